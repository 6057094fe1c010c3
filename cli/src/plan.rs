//! `floodtide plan`: what a load would do and why, from headers and probes alone.

use crate::args::PlanArgs;
use crate::output::{self, Facts, Failure};
use floodtide_core::strategy::Backend;
use floodtide_core::{Escaped, HumanBytes, Method, Plan};
use floodtide_linux::Planned;
use serde_json::{Value, json};
use std::io::Write;

/// What becomes of one file.
struct FilePlan<'a> {
    path: &'a str,
    bytes: u64,
    resident: Option<f32>,
    direct_reads: usize,
    buffered_reads: usize,
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
            resident: signals.resident,
            direct_reads: 0,
            buffered_reads: 0,
            mapped_bytes: 0,
        })
        .collect();
    for chunk in planned.plan.chunks() {
        let file = &mut files[chunk.file.index()];
        match chunk.method {
            Method::Direct => file.direct_reads += 1,
            Method::Buffered => file.buffered_reads += 1,
        }
    }
    for (file, range) in planned.plan.mapped() {
        files[file.index()].mapped_bytes += range.len();
    }
    files
}

fn sliced_tensors(plan: &Plan) -> usize {
    (0..plan.placements().len()).filter(|&placement| plan.slice(placement).is_some()).count()
}

fn gathered_reads(plan: &Plan) -> usize {
    plan.chunks().iter().filter(|chunk| chunk.gathered).count()
}

/// How many tensors are not whole, if any.
fn sliced(plan: &Plan) -> String {
    match sliced_tensors(plan) {
        0 => String::new(),
        n => format!("; of {n} a slice"),
    }
}

/// What holds for the whole load.
fn facts(planned: &Planned) -> Vec<(&'static str, String)> {
    let (plan, strategy) = (&planned.plan, &planned.strategy);
    let workers = match (strategy.workers, strategy.backend) {
        (0, _) => "the calling thread".to_owned(),
        (n, Backend::Uring) => {
            format!("{}, {} in flight in each", output::count(n, "ring"), output::count(strategy.depth, "read"))
        }
        (n, _) => output::count(n, "thread"),
    };
    let mapped: u64 = plan.mapped().iter().map(|(_, range)| range.len()).sum();
    let mut facts = vec![
        ("backend", format!("{}: {}", strategy.backend, strategy.reason)),
        ("workers", workers),
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
    ];
    if mapped > 0 {
        let tensors = "where the tensors are views of the files";
        facts.push(("mapped", format!("{}, {tensors}", output::bytes(mapped))));
    }
    // Of what is mapped nothing is read by a plan, unless some tensors are not aligned in their file.
    if mapped == 0 || !plan.chunks().is_empty() {
        facts.push((
            "reads",
            format!(
                "{} of up to {}, {} in all{}",
                plan.chunks().len(),
                HumanBytes(strategy.chunk_bytes),
                output::bytes(plan.read_bytes()),
                match gathered_reads(plan) {
                    0 => String::new(),
                    n => format!("; {n} of them go over pieces of slices, which are gathered"),
                }
            ),
        ));
        facts.push(("runs", format!("{}, each in one piece in memory", plan.extents().len())));
    }
    facts.push((
        "memory",
        format!(
            "{} of {} that can be had ({})",
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
    let mut out = output::stdout();
    writeln!(out, "{}", Facts(facts(&planned)))?;
    writeln!(out, "{:>10}  {:>8}  {:>8}  {:>8}  {:>10}  file", "size", "cached", "direct", "buffered", "mapped")?;
    for file in file_plans(&planned) {
        let cached = file.resident.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let (size, mapped) = (HumanBytes(file.bytes).to_string(), HumanBytes(file.mapped_bytes).to_string());
        let (direct, buffered) = (file.direct_reads, file.buffered_reads);
        writeln!(out, "{size:>10}  {cached:>8}  {direct:>8}  {buffered:>8}  {mapped:>10}  {}", Escaped(file.path))?;
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
                "resident_share": file.resident,
                "direct_reads": file.direct_reads,
                "buffered_reads": file.buffered_reads,
                "mapped_bytes": file.mapped_bytes,
            })
        })
        .collect();
    json!({
        "format": planned.catalog.format().name(),
        "backend": strategy.backend.name(),
        "reason": strategy.reason,
        "workers": strategy.workers,
        "depth": strategy.depth,
        "chunk_bytes": strategy.chunk_bytes,
        "most_in_flight": strategy.most_in_flight,
        "uncached": strategy.uncached,
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
        "file_system": planned.signals.file_system,
        "files": files,
        "warnings": planned.warnings,
    })
}
