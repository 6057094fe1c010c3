//! `floodtide plan`: reports what a load would do and why, from headers and probes alone.

use crate::args::PlanArgs;
use crate::output::{self, Facts, Failure};
use floodtide::Planned;
use floodtide::core::strategy::{FileSignals, Route, is_small};
use floodtide::core::{ByteRange, Chunk, Escaped, HumanBytes, Method, Plan, ReadStyle};
use serde_json::{Value, json};
use std::io::Write;

/// How one file is read.
struct FilePlan<'a> {
    path: &'a str,
    bytes: u64,
    signals: &'a FileSignals,
    direct_reads: usize,
    buffered_reads: usize,
    direct_bytes: u64,
    buffered_bytes: u64,
    /// The buffered bytes that are in the page cache.
    copied_bytes: u64,
    mapped_bytes: u64,
}

fn file_plans(planned: &Planned) -> Vec<FilePlan<'_>> {
    let mut files: Vec<FilePlan<'_>> = planned
        .catalog
        .files()
        .iter()
        .zip(&planned.signals.files)
        .map(|(file, signals)| FilePlan {
            path: &file.path,
            bytes: file.bytes,
            signals,
            direct_reads: 0,
            buffered_reads: 0,
            direct_bytes: 0,
            buffered_bytes: 0,
            copied_bytes: 0,
            mapped_bytes: 0,
        })
        .collect();
    for chunk in planned.plan.chunks() {
        let (file, bytes) = (&mut files[chunk.file.index()], chunk.payload_len as u64);
        match chunk.method {
            Method::Direct => {
                file.direct_reads += 1;
                file.direct_bytes += bytes;
            }
            Method::Buffered => {
                file.buffered_reads += 1;
                file.buffered_bytes += bytes;
                file.copied_bytes += cached_bytes(file.signals, chunk);
            }
        }
    }
    for (file, range) in planned.plan.mapped() {
        files[file.index()].mapped_bytes += range.len();
    }
    files
}

/// Returns how many bytes of a read are in the page cache.
fn cached_bytes(file: &FileSignals, chunk: &Chunk) -> u64 {
    let (start, end) = (chunk.offset, chunk.offset + chunk.payload_len as u64);
    if file.cached.is_empty() {
        return if file.resident == Some(1.0) { end - start } else { 0 };
    }
    let within = |range: &ByteRange| range.end().min(end).saturating_sub(range.start().max(start));
    file.cached.iter().map(within).sum()
}

/// Divides the bytes into those read directly, copied from the page cache, and read through it.
fn origins(files: &[FilePlan<'_>]) -> String {
    let sum = |of: fn(&FilePlan<'_>) -> u64| files.iter().map(of).sum::<u64>();
    let origins = [
        (sum(|file| file.direct_bytes), "by direct reads"),
        (sum(|file| file.copied_bytes), "copied from the page cache"),
        (sum(|file| file.buffered_bytes - file.copied_bytes), "read through the page cache"),
    ];
    let used = origins.iter().filter(|(bytes, _)| *bytes > 0);
    let shown: Vec<String> = used.map(|(bytes, how)| format!("{} {how}", HumanBytes(*bytes))).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// Returns the share of a file in the page cache. It is 100 % only if every page is cached.
fn cached_share(file: &FileSignals, small: bool) -> String {
    match file.resident {
        // In a huge file, one missing page does not show in the share.
        Some(share) if !file.cached.is_empty() => format!("{:.0} %", (share * 100.0).floor().min(99.0)),
        Some(share) => format!("{:.0} %", (share * 100.0).floor()),
        None if small => "not checked".to_owned(),
        None => "unknown".to_owned(),
    }
}

fn sliced_tensors(plan: &Plan) -> usize {
    (0..plan.placements().len()).filter(|&placement| plan.slice(placement).is_some()).count()
}

fn gathered_reads(plan: &Plan) -> usize {
    plan.chunks().iter().filter(|chunk| chunk.gathered).count()
}

/// Describes how many tensors are slices, if any.
fn sliced(plan: &Plan) -> String {
    match sliced_tensors(plan) {
        0 => String::new(),
        n => format!("; {n} of them sliced"),
    }
}

/// Describes the workers of one device.
fn workers(route: &Route) -> String {
    let reads = output::count(route.depth, "read");
    match (route.workers, route.backend.style()) {
        (0, _) => "the calling thread".to_owned(),
        (n, ReadStyle::Queue) => format!("{}, {reads} in flight each", output::count(n, "ring")),
        (_, ReadStyle::Tasks) => format!("a runtime, {reads} in flight"),
        (n, ReadStyle::Blocking | ReadStyle::Mapped) => output::count(n, "thread"),
    }
}

/// Returns the facts about the whole load.
fn facts(planned: &Planned, files: &[FilePlan<'_>]) -> Vec<(&'static str, String)> {
    let (plan, strategy) = (&planned.plan, &planned.strategy);
    let mapped: u64 = plan.mapped().iter().map(|(_, range)| range.len()).sum();
    let workers: Vec<String> = strategy.routes.iter().map(workers).collect();
    let chunk_bytes = strategy.routes.iter().map(|route| route.chunk_bytes).max().unwrap_or(0);
    let mut facts = output::backend_facts(&strategy.decisions, &planned.routes());
    facts.extend([
        ("workers", workers.join("; ")),
        (
            "tensors",
            format!(
                "{} of {}, {}{}",
                plan.placements().len(),
                planned.catalog.len(),
                output::bytes(plan.selected_bytes()),
                sliced(plan)
            ),
        ),
    ]);
    if mapped > 0 {
        let tensors = "as views of the page cache";
        facts.push(("mapped", format!("{}, {tensors}", output::bytes(mapped))));
    }
    // A mapped load reads only the tensors that are not aligned in their file.
    if mapped == 0 || !plan.chunks().is_empty() {
        facts.push((
            "reads",
            format!(
                "{} of up to {}, {} in all{}",
                plan.chunks().len(),
                HumanBytes(chunk_bytes),
                output::bytes(plan.read_bytes()),
                match gathered_reads(plan) {
                    0 => String::new(),
                    n => format!("; {n} of them are gathered into slices"),
                }
            ),
        ));
        facts.push(("from", origins(files)));
        let runs = plan.extents().len();
        facts.push(("runs", format!("{runs}, contiguous in the file and in memory")));
    }
    facts.push((
        "memory",
        format!(
            "needs {}, {} available ({})",
            HumanBytes(plan.arena_bytes() as u64),
            HumanBytes(planned.memory.available),
            planned.memory.limit
        ),
    ));
    facts
}

pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    let planned = args.source.loader()?.plan(&args.source.path)?;
    output::warn(&planned.warnings);
    if args.json {
        return output::print_json(&document(&planned));
    }
    let files = file_plans(&planned);
    let small = is_small(planned.signals.selected_bytes, args.source.backend.backend());
    let mut out = output::stdout();
    writeln!(out, "{}", Facts(facts(&planned, &files)))?;
    writeln!(out, "{:>10}  {:>9}  {:>8}  {:>8}  {:>10}  file", "size", "cached", "direct", "buffered", "mapped")?;
    for file in &files {
        let cached = cached_share(file.signals, small);
        let (size, mapped) = (HumanBytes(file.bytes).to_string(), HumanBytes(file.mapped_bytes).to_string());
        let (direct, buffered) = (file.direct_reads, file.buffered_reads);
        writeln!(out, "{size:>10}  {cached:>9}  {direct:>8}  {buffered:>8}  {mapped:>10}  {}", Escaped(file.path))?;
    }
    if small {
        writeln!(out, "\nnot checked: for less than 4 MiB, a query of the page cache takes longer than the reads")?;
    }
    Ok(out.flush()?)
}

fn document(planned: &Planned) -> Value {
    let (plan, strategy) = (&planned.plan, &planned.strategy);
    let files: Vec<Value> = file_plans(planned)
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "bytes": file.bytes,
                "resident_share": file.signals.resident,
                "direct_reads": file.direct_reads,
                "buffered_reads": file.buffered_reads,
                "direct_bytes": file.direct_bytes,
                "buffered_bytes": file.buffered_bytes,
                "copied_bytes": file.copied_bytes,
                "mapped_bytes": file.mapped_bytes,
            })
        })
        .collect();
    let route = strategy.main_route();
    json!({
        "format": planned.catalog.format().name(),
        "backend": route.backend.name(),
        "reason": strategy.reason(),
        "decisions": output::decisions(&strategy.decisions, &planned.routes()),
        "routes": strategy.routes.len(),
        "workers": route.workers,
        "depth": route.depth,
        "chunk_bytes": route.chunk_bytes,
        "max_in_flight": route.max_in_flight,
        "dont_cache": route.dont_cache,
        "huge_pages": strategy.huge_pages,
        "tensors": plan.placements().len(),
        "selected_bytes": plan.selected_bytes(),
        "sliced_tensors": sliced_tensors(plan),
        "read_bytes": plan.read_bytes(),
        "gathered_reads": gathered_reads(plan),
        "reads": plan.chunks().len(),
        "extents": plan.extents().len(),
        "arena_bytes": plan.arena_bytes(),
        "memory_available": planned.memory.available,
        "memory_limit": planned.memory.limit,
        "file_system": planned.signals.devices.first().map(|device| &device.signals.file_system),
        "files": files,
        "warnings": output::texts(&planned.warnings),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide::Backend;

    #[test]
    fn workers_are_named_by_how_they_read() {
        let of = |style, workers, depth| workers_of(Backend::new("any", style, ""), workers, depth);
        assert_eq!(of(ReadStyle::Queue, 2, 4), "2 rings, 4 reads in flight each");
        assert_eq!(of(ReadStyle::Tasks, 1, 6), "a runtime, 6 reads in flight");
        assert_eq!(of(ReadStyle::Blocking, 1, 1), "1 thread");
        assert_eq!(of(ReadStyle::Blocking, 0, 1), "the calling thread");
    }

    fn workers_of(backend: Backend, count: usize, depth: usize) -> String {
        workers(&Route {
            backend,
            chunk_bytes: 1 << 20,
            depth,
            max_in_flight: depth,
            profiled_direct_rate: None,
            dont_cache: false,
            workers: count,
        })
    }

    #[test]
    fn a_share_is_100_percent_only_if_every_page_is_cached() {
        let file = |resident, cached: &[ByteRange]| FileSignals {
            bytes: 1 << 20,
            resident,
            cached: cached.to_vec(),
            direct: true,
            aligned: true,
            selected_bytes: 1 << 20,
            device: 0,
        };
        let part = [ByteRange::new(0, 4096).expect("forwards")];
        for (share, cached, shown) in [
            (Some(0.976), &part[..], "97 %"),
            (Some(0.997), &[], "99 %"),
            (Some(0.002), &[], "0 %"),
            (Some(1.0), &[], "100 %"),
            (Some(1.0), &part, "99 %"),
            (None, &[], "unknown"),
        ] {
            assert_eq!(cached_share(&file(share, cached), false), shown);
        }
        assert_eq!(cached_share(&file(None, &[]), true), "not checked");
    }
}
