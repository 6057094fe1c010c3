//! `floodtide load`: the main job, and how it went.

use crate::args::{LoadArgs, Source};
use crate::output::{self, Facts, Failure};
use floodtide_linux::{Loader, Tensors};
use serde_json::json;
use std::io::Write;

/// Loads with a progress bar, unless JSON was asked for.
pub(crate) fn with_progress(loader: Loader, source: &Source, json: bool) -> Result<Tensors, Failure> {
    let bar = if json { None } else { output::progress_bar("loading") };
    let loader = match bar.clone() {
        Some(bar) => loader.on_progress(move |progress| output::show(&bar, progress)),
        None => loader,
    };
    let result = loader.load(&source.path);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(result?)
}

pub(crate) fn run(args: &LoadArgs) -> Result<(), Failure> {
    let loader = args.source.loader()?.mlock(args.mlock);
    let tensors = with_progress(loader, &args.source, args.json)?;
    let report = tensors.report();
    let rate = output::gib_per_second(report.bytes, report.elapsed);
    let peak = output::peak_rss_bytes();
    output::warn(&report.warnings);
    if args.json {
        return output::print_json(&json!({
            "path": args.source.path.to_string_lossy(),
            "format": report.format.name(),
            "files": report.files,
            "tensors": report.tensors,
            "bytes": report.bytes,
            "seconds": report.elapsed.as_secs_f64(),
            "gib_per_second": rate,
            "backend": report.backend.name(),
            "reason": report.reason,
            "peak_rss_bytes": peak,
            "locked_bytes": report.locked_bytes,
            "warnings": report.warnings,
        }));
    }
    let mut facts = vec![
        (
            "loaded",
            format!(
                "{} of {} in {}",
                output::count(report.tensors, "tensor"),
                output::bytes(report.bytes),
                output::count(report.files, "file")
            ),
        ),
        ("time", format!("{:.3} s, {rate:.2} GiB/s", report.elapsed.as_secs_f64())),
        ("backend", format!("{}: {}", report.backend, report.reason)),
        ("peak memory", output::bytes(peak)),
    ];
    if args.mlock {
        facts.push(("locked", output::bytes(report.locked_bytes)));
    }
    let mut out = output::stdout();
    write!(out, "{}", Facts(facts))?;
    Ok(out.flush()?)
}
