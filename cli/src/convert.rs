//! `floodtide convert`: writes a checkpoint in another format, in other files, or in part.

use crate::args::ConvertArgs;
use crate::output::{self, Facts, Failure};
use floodtide::convert::{Converted, Converter};
use floodtide::core::{Escaped, Selection};
use floodtide::{Loader, StreamOptions};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let cancelled = cancel_when_interrupted();
    let converter = converter(args)?.cancelled_by(Arc::clone(&cancelled));
    let bar = if args.json { None } else { output::progress_bar("converting") };
    let converter = match bar.clone() {
        Some(bar) => converter.on_progress(move |written| {
            // The bar stays until every file is synced.
            bar.set_length(written.bytes_total);
            bar.set_position(written.bytes_done);
        }),
        None => converter,
    };
    let converted = converter.convert(&args.path, &args.output);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let converted = converted.map_err(|error| match cancelled.load(Ordering::Relaxed) {
        true => Failure::Interrupted,
        false => error.into(),
    })?;
    report_on(args, &converted)
}

fn converter(args: &ConvertArgs) -> Result<Converter, Failure> {
    let selection = if args.select.is_empty() { Selection::All } else { Selection::globs(&args.select)? };
    let mut loader = Loader::new().selection(selection);
    if let Some(limit) = args.memory_limit {
        loader = loader.stream_options(StreamOptions::new().memory_limit(limit.as_u64()));
    }
    let converter = Converter::new(loader, args.to).split(args.split()).force(args.force);
    Ok(args.rename.iter().fold(converter, |converter, rule| converter.rename(rule.0.clone())))
}

/// Makes Ctrl-C and SIGTERM cancel the conversion, which then removes its files.
fn cancel_when_interrupted() -> Arc<AtomicBool> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancelled);
    // Without the handler, an interrupted conversion leaves a folder that the next one removes.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    cancelled
}

fn report_on(args: &ConvertArgs, converted: &Converted) -> Result<(), Failure> {
    let Converted { from, files, copied, tensors, tensor_bytes, elapsed, read, warnings, .. } = converted;
    let rate = output::gib_per_second(*tensor_bytes, *elapsed);
    let peak = output::peak_rss_bytes();
    output::warn(warnings);
    if args.json {
        let rows = |files: &[(String, u64)]| -> Vec<Value> {
            files.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect()
        };
        return output::print_json(&json!({
            "path": args.path.to_string_lossy(),
            "output": args.output.to_string_lossy(),
            "from": from.name(),
            "to": converted.to.name(),
            "files": rows(files),
            "copied": rows(copied),
            "tensors": tensors,
            "bytes": tensor_bytes,
            "seconds": elapsed.as_secs_f64(),
            "gib_per_second": rate,
            "backend": read.backend.name(),
            "reason": read.reason(),
            "decisions": output::decisions(&read.decisions, &read.routes),
            "memory_limit": read.memory_limit,
            "peak_rss_bytes": peak,
            "warnings": output::texts(warnings),
        }));
    }
    let done = format!(
        "{} of {}, {from} to {}",
        output::count(*tensors, "tensor"),
        output::bytes(*tensor_bytes),
        converted.to
    );
    let mut facts = vec![
        ("converted", done),
        ("output", format!("{} in {}", output::count(files.len(), "file"), Escaped(&args.output.to_string_lossy()))),
    ];
    if !copied.is_empty() {
        let names: Vec<String> = copied.iter().map(|(name, _)| Escaped(name).to_string()).collect();
        facts.push(("copied", names.join(", ")));
    }
    facts.push(("time", format!("{}, {rate:.2} GiB/s", output::duration(*elapsed))));
    facts.extend(output::backend_facts(&read.decisions, &read.routes));
    facts.push(("peak memory", output::bytes(peak)));
    let mut out = output::stdout();
    write!(out, "{}", Facts(facts))?;
    Ok(out.flush()?)
}
