//! `floodtide demo`: the whole job with nothing given. Writes a GPT-2 small checkpoint, loads it by every way there is, and
//! shows what floodtide chose.

mod compare;
mod layout;
mod room;
mod write;

use crate::args::DemoArgs;
use crate::output::{self, Failure};
use compare::{Comparison, Way};
use floodtide_core::HumanBytes;
use layout::Spec;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let specs = layout::gpt2(args.scale);
    let bytes: u64 = specs.iter().map(|spec| spec.bytes() as u64).sum();
    let (folder, removed_on_drop) = folder(args, &specs)?;
    if removed_on_drop.is_some() {
        remove_when_interrupted(folder.clone());
    }
    write::write(&folder, &specs, args.json)?;
    let comparison = compare::compare(&folder)?;
    if args.json {
        return output::print_json(&document(&comparison, &specs, bytes));
    }
    let mut out = output::stdout();
    show(&mut out, &comparison, &specs, bytes)?;
    if args.keep.is_some() {
        writeln!(out, "\nThe checkpoint is kept in {}", folder.display())?;
    }
    Ok(out.flush()?)
}

/// The folder to write to, made only when there is room, and what removes it when it is temporary.
fn folder(args: &DemoArgs, specs: &[Spec]) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let Some(keep) = &args.keep else {
        room::check(&std::env::temp_dir(), specs)?;
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
    let exists = keep.try_exists().map_err(failed)?;
    if exists && fs::read_dir(keep).map_err(failed)?.next().is_some() {
        let message = format!("{}: --keep needs a folder that is new or empty, and this one is not", keep.display());
        return Err(Failure::BadRequest(message));
    }
    room::check(keep, specs)?;
    fs::create_dir_all(keep).map_err(failed)?;
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

fn document(comparison: &Comparison, specs: &[Spec], bytes: u64) -> Value {
    let ways: Vec<Value> = comparison
        .rows
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
    json!({
        "tensors": specs.len(),
        "bytes": bytes,
        "agree": comparison.agree(),
        "cached_share": comparison.cached,
        "ways": ways,
    })
}

/// What was in the page cache when the loads began, in words.
fn cache_state(cached: Option<f32>) -> String {
    match cached {
        // A page or two that something else looked at make no load a warm one.
        Some(share) if share < 0.01 => "page cache dropped before each load".to_owned(),
        Some(share) => format!(
            "not from a cold disk: up to {:.0} % of a file was in memory when a load began, and could not be dropped",
            share * 100.0
        ),
        None => "page cache to be dropped before each load, but the system does not tell whether it was".to_owned(),
    }
}

fn show(out: &mut impl Write, comparison: &Comparison, specs: &[Spec], bytes: u64) -> std::io::Result<()> {
    let rows = &comparison.rows;
    let tensors = output::count(specs.len(), "tensor");
    writeln!(
        out,
        "GPT-2 small layout: {tensors} of {} in 2 shards, {}\n",
        HumanBytes(bytes),
        cache_state(comparison.cached)
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
    let verdict =
        if comparison.agree() { "All loads agree, byte for byte." } else { "Only one way ran: nothing to compare." };
    writeln!(out, "\n{verdict} Medians of interleaved rounds.")?;
    let auto = rows.iter().find(|row| row.way == Way::Auto).and_then(|row| row.result.as_ref().ok());
    if let Some((backend, reason)) = auto.and_then(|timing| Some((timing.backend?, &timing.reason))) {
        writeln!(out, "auto chose {backend}: {reason}")?;
    }
    Ok(())
}
