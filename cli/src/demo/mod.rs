//! `floodtide demo`: the whole job with nothing given. Writes a GPT-2 small checkpoint, loads it by every way there is, and
//! shows what floodtide chose.

mod compare;
mod layout;
mod write;

use crate::args::DemoArgs;
use crate::output::{self, Failure};
use compare::{Row, Way};
use floodtide_core::HumanBytes;
use layout::Spec;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let specs = layout::gpt2(args.scale);
    let bytes: u64 = specs.iter().map(|spec| spec.bytes() as u64).sum();
    let (folder, removed_on_drop) = folder(args)?;
    check_room(&folder, &specs)?;
    if removed_on_drop.is_some() {
        remove_when_interrupted(folder.clone());
    }
    write::write(&folder, &specs, args.json)?;
    let rows = compare::compare(&folder)?;
    if args.json {
        return output::print_json(&document(&rows, &specs, bytes));
    }
    let mut out = output::stdout();
    show(&mut out, &rows, &specs, bytes)?;
    if args.keep.is_some() {
        writeln!(out, "\nThe checkpoint is kept in {}", folder.display())?;
    }
    Ok(out.flush()?)
}

/// The folder to write to, and what removes it when it is temporary.
fn folder(args: &DemoArgs) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let Some(keep) = &args.keep else {
        let folder = tempfile::Builder::new().prefix("floodtide-demo-").tempdir().map_err(|error| {
            let parent = std::env::temp_dir();
            Failure::Failed(format!(
                "{}: cannot make a temporary folder: {error}; set TMPDIR or use --keep DIR",
                parent.display()
            ))
        })?;
        return Ok((folder.path().to_owned(), Some(folder)));
    };
    let failed = |error| Failure::Failed(format!("{}: cannot use the folder: {error}", keep.display()));
    fs::create_dir_all(keep).map_err(failed)?;
    if fs::read_dir(keep).map_err(failed)?.next().is_some() {
        let message = format!("{}: --keep needs a folder that is new or empty, and this one is not", keep.display());
        return Err(Failure::BadRequest(message));
    }
    Ok((keep.clone(), None))
}

/// Ctrl-C and SIGTERM end the demo without leaving half a gigabyte behind.
fn remove_when_interrupted(folder: PathBuf) {
    let handler = move || {
        // The writer may add a file meanwhile: once more, then.
        let _ = fs::remove_dir_all(&folder).or_else(|_| fs::remove_dir_all(&folder));
        std::process::exit(130);
    };
    // Without the handler an interrupted demo leaves its folder, which the system's cleaning of temporary files gets.
    let _ = ctrlc::set_handler(handler);
}

/// What a demo of these tensors takes of the disk, and of memory: the writer holds one tensor at a time, a load all of
/// them once.
fn needed(specs: &[Spec]) -> u64 {
    let sizes = specs.iter().map(|spec| spec.bytes() as u64);
    sizes.clone().sum::<u64>() + sizes.max().unwrap_or(0)
}

/// Refuses before the first byte what would fill the disk or the memory, and says which scale fits.
fn check_room(folder: &Path, specs: &[Spec]) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)).unwrap_or(u64::MAX);
    let memory = floodtide_linux::probe::memory_limit();
    for (what, available) in [("disk space", disk), ("memory", memory.available)] {
        if available >= needed(specs) {
            continue;
        }
        // In steps of a hundredth, with a quarter of it to spare.
        let fits = |scale: &f64| needed(&layout::gpt2(*scale)) <= available / 4 * 3;
        let advice = (1..100).rev().map(|hundredths| f64::from(hundredths) / 100.0).find(fits).map_or_else(
            || format!("even the smallest needs {}", HumanBytes(needed(&layout::gpt2(0.01)))),
            |scale| format!("try --scale {scale}"),
        );
        return Err(Failure::Failed(format!(
            "the demo needs {} of {what}, but there are {} ({}); {advice}",
            HumanBytes(needed(specs)),
            HumanBytes(available),
            if what == "memory" { &memory.limit } else { "free on the disk of the folder it writes to" },
        )));
    }
    Ok(())
}

fn document(rows: &[Row], specs: &[Spec], bytes: u64) -> Value {
    let ways: Vec<Value> = rows
        .iter()
        .map(|row| match &row.result {
            Ok(timing) => json!({
                "way": row.way.name(),
                "seconds": timing.median().as_secs_f64(),
                "gib_per_second": output::gib_per_second(bytes, timing.median()),
                "backend": timing.backend.map(|backend| backend.name()),
                "reason": timing.reason,
            }),
            Err(why) => json!({"way": row.way.name(), "error": why}),
        })
        .collect();
    json!({"tensors": specs.len(), "bytes": bytes, "agree": true, "ways": ways})
}

fn show(out: &mut impl Write, rows: &[Row], specs: &[Spec], bytes: u64) -> std::io::Result<()> {
    let tensors = output::count(specs.len(), "tensor");
    writeln!(
        out,
        "GPT-2 small layout: {tensors} of {} in 2 shards, page cache dropped before each load\n",
        HumanBytes(bytes)
    )?;
    let median = |way: Way| {
        let row = rows.iter().find(|row| row.way == way)?;
        row.result.as_ref().ok().map(|timing| timing.median().as_secs_f64())
    };
    let baseline = median(Way::StdRead);
    writeln!(out, "{:14}  {:>8}  {:>8}  {:>16}", "", "seconds", "GiB/s", "to std::fs::read")?;
    for row in rows {
        let name = row.way.name();
        match &row.result {
            Ok(timing) => {
                let seconds = timing.median().as_secs_f64();
                let rate = output::gib_per_second(bytes, timing.median());
                let ratio = baseline.map_or_else(String::new, |baseline| format!("{:.1} x", baseline / seconds));
                writeln!(out, "{name:14}  {seconds:>8.3}  {rate:>8.2}  {ratio:>16}")?;
            }
            Err(why) => writeln!(out, "{name:14}  not here: {why}")?,
        }
    }
    writeln!(out, "\nAll loads agree, byte for byte. Medians of interleaved rounds.")?;
    let auto = rows.iter().find(|row| row.way == Way::Auto).and_then(|row| row.result.as_ref().ok());
    if let Some((backend, reason)) = auto.and_then(|timing| Some((timing.backend?, &timing.reason))) {
        writeln!(out, "auto chose {backend}: {reason}")?;
    }
    Ok(())
}
