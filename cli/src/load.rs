//! `floodtide load`: the main job, and how it went.

use crate::args::{CheckpointArgs, LoadArgs};
use crate::output::{self, Facts, Failure};
use floodtide::core::HumanBytes;
use floodtide::trace::TraceFile;
use floodtide::{Error, Loader, Report, StreamOptions, Tensors, read_manifest};
use serde_json::json;
use std::borrow::Cow;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Loads with a progress bar, unless `--json` is given.
pub(crate) fn with_progress(loader: Loader, source: &CheckpointArgs, json: bool) -> Result<Tensors, Failure> {
    Ok(watched(loader, "loading", json, |loader| loader.load(&source.path))?)
}

/// Runs `work` with a loader that shows its progress, unless `--json` is given.
pub(crate) fn watched<T>(
    loader: Loader,
    what: impl Into<Cow<'static, str>>,
    json: bool,
    work: impl FnOnce(Loader) -> Result<T, Error>,
) -> Result<T, Error> {
    let bar = if json { None } else { output::progress_bar(what) };
    let loader = match bar.clone() {
        Some(bar) => loader.on_progress(move |progress| output::show(&bar, progress)),
        None => loader,
    };
    let result = work(loader);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    result
}

/// Streams the tensors and consumes them by reading one byte of each page.
fn stream(loader: Loader, args: &LoadArgs) -> Result<Report, Failure> {
    let mut options = StreamOptions::new().order(args.order.order());
    if let Some(limit) = args.memory_limit {
        options = options.memory_limit(limit.as_u64());
    }
    Ok(watched(loader.stream_options(options), "streaming", args.json, |loader| {
        let mut seen = 0_u8;
        let report = loader.stream(&args.source.path)?.for_each_part(|_, _, bytes| {
            seen = bytes.iter().step_by(4096).fold(seen, |seen, byte| seen ^ byte);
        });
        std::hint::black_box(seen);
        report
    })?)
}

pub(crate) fn run(args: &LoadArgs) -> Result<(), Failure> {
    let mut loader = args.source.loader()?.mlock(args.mlock);
    if let Some(manifest) = &args.verify {
        loader = loader.verify_with(read_manifest(manifest)?);
    }
    let trace = args.trace.as_ref().map(TraceFile::create).transpose()?;
    if let Some(trace) = &trace {
        finish_when_interrupted(trace.clone());
        loader = loader.trace(trace.clone());
    }
    let result = load(loader, args);
    // If the load failed too, its error is the one to report.
    let traced = trace.map_or(Ok(()), |trace| trace.finish());
    let result = result.and_then(|(report, tensors)| report_on(args, &report).map(|()| tensors));
    result.and_then(|_| Ok(traced?))
}

/// How long an interrupted load may take to finish its trace.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes Ctrl-C and SIGTERM finish the trace before they end the process, so that the file is
/// complete.
///
/// A reader that blocks (a pipe whose reader sleeps) delays the exit by a few seconds at most, or
/// until the next signal.
fn finish_when_interrupted(trace: TraceFile) {
    let interrupted = AtomicBool::new(false);
    let handler = move || {
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        let trace = trace.clone();
        let finish = std::thread::Builder::new().spawn(move || {
            if let Err(error) = trace.finish() {
                output::complain("error", &error.to_string());
            }
            std::process::exit(130)
        });
        let give_up = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(TRACE_FLUSH_TIMEOUT);
            output::complain("error", "the trace could not be written in time and is incomplete");
            std::process::exit(130)
        });
        // Without this thread, nothing would end the process.
        if finish.is_err() || give_up.is_err() {
            std::process::exit(130);
        }
    };
    // Without the handler, an interrupted load leaves an incomplete trace.
    let _ = ctrlc::set_handler(handler);
}

/// Loads or streams. The caller keeps the tensors until it has reported, so that the peak includes
/// their memory.
fn load(loader: Loader, args: &LoadArgs) -> Result<(Report, Option<Tensors>), Failure> {
    if args.stream {
        return Ok((stream(loader, args)?, None));
    }
    let tensors = with_progress(loader, &args.source, args.json)?;
    Ok((tensors.report().clone(), Some(tensors)))
}

fn report_on(args: &LoadArgs, report: &Report) -> Result<(), Failure> {
    let rate = output::gib_per_second(report.bytes, report.elapsed);
    let peak = output::peak_rss_bytes();
    output::warn(&report.warnings);
    if args.json {
        let mut document = json!({
            "path": args.source.path.to_string_lossy(),
            "format": report.format.name(),
            "files": report.files,
            "tensors": report.tensors,
            "bytes": report.bytes,
            "read_bytes": report.read_bytes,
            "seconds": report.elapsed.as_secs_f64(),
            "gib_per_second": rate,
            "backend": report.backend.name(),
            "reason": report.reason(),
            "decisions": output::decisions(&report.decisions, &report.routes),
            "peak_rss_bytes": peak,
            "locked_bytes": report.locked_bytes,
            "verified": report.verified,
            "warnings": output::texts(&report.warnings),
        });
        if let Some(limit) = report.memory_limit {
            document["stream"] = json!({ "memory_limit": limit, "order": args.order.name() });
        }
        return output::print_json(&document);
    }
    let done = format!(
        "{} of {} in {}",
        output::count(report.tensors, "tensor"),
        output::bytes(report.bytes),
        output::count(report.files, "file")
    );
    let mut facts = vec![(if args.stream { "streamed" } else { "loaded" }, done)];
    if args.source.shard.is_some() {
        // A read of slices may include the gaps between them.
        facts.push(("read", output::bytes(report.read_bytes)));
    }
    facts.push(("time", format!("{}, {rate:.2} GiB/s", output::duration(report.elapsed))));
    facts.extend(output::backend_facts(&report.decisions, &report.routes));
    facts.push(("peak memory", output::bytes(peak)));
    if let Some(limit) = report.memory_limit {
        facts.push(("buffers", format!("up to {} in total, order {}", HumanBytes(limit), args.order.name())));
    }
    if report.verified {
        facts.push(("verified", "every tensor matches the manifest".to_owned()));
    }
    if args.mlock {
        facts.push(("locked", output::bytes(report.locked_bytes)));
    }
    let mut out = output::stdout();
    write!(out, "{}", Facts(facts))?;
    Ok(out.flush()?)
}
