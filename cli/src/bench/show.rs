//! Prints results as text and as JSON.

use super::notes;
use super::rounds::{Results, Timing};
use super::subject::Subject;
use crate::output;
use floodtide::core::HumanBytes;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// Describes the checkpoint in one line.
pub(super) fn headline(results: &Results) -> String {
    let checkpoint = &results.checkpoint;
    format!(
        "{} of {} in {}, {}",
        output::count(checkpoint.tensors, "tensor"),
        HumanBytes(checkpoint.bytes),
        output::count(checkpoint.files.len(), "file"),
        results.cache_state(),
    )
}

pub(super) fn table(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let (bytes, machine) = (results.checkpoint.bytes, &results.machine);
    writeln!(out, "{}", headline(results))?;
    writeln!(out, "{}; {}; Linux {}\n", machine.storage(), machine.processor(), machine.kernel)?;
    let columns = ["time", "GiB/s", "min to max", "of roofline", "to std::fs::read", "CPU time", "peak memory"];
    let [time, rate, spread, share, ratio, cpu, peak] = columns;
    writeln!(out, "{:13}  {time:>7}  {rate:>6}  {spread:>14}  {share:>11}  {ratio:>16}  {cpu:>8}  {peak:>11}", "")?;
    let baseline = results.subjects.iter().find(|row| row.what == Subject::StdRead);
    let baseline = baseline.and_then(|row| row.result.as_ref().ok()).map(|timing| timing.seconds()[1]);
    let mut line = |name: &str, timing: &Timing, bytes: u64, compared: bool| {
        let ([fastest, median, _], [min, typical, max]) = (timing.seconds(), timing.rates(bytes));
        let (seconds, rate) = if compared { (median, typical) } else { (fastest, max) };
        let share = results.limit().filter(|limit| compared && *limit > 0.0);
        let share = share.map_or_else(String::new, |limit| format!("{:.0} %", rate / limit * 100.0));
        let ratio =
            baseline.filter(|_| compared).map_or_else(String::new, |baseline| format!("{:.1} x", baseline / seconds));
        let spread = format!("{min:.2} to {max:.2}");
        let [time, cpu] =
            [seconds, timing.cpu_seconds()].map(|seconds| output::duration(Duration::from_secs_f64(seconds)));
        let peak = HumanBytes(timing.peak_rss_bytes()).to_string();
        writeln!(out, "{name:13}  {time:>7}  {rate:>6.2}  {spread:>14}  {share:>11}  {ratio:>16}  {cpu:>8}  {peak:>11}")
    };
    let mut refused = Vec::new();
    for row in &results.subjects {
        match &row.result {
            Ok(timing) => line(row.what.name(), timing, bytes, true)?,
            Err(why) => refused.push(format!("{:13}  failed: {why}", row.what.name())),
        }
    }
    if let Some((_, timing)) = results.best() {
        line("roofline", timing, results.checkpoint.file_bytes, false)?;
    }
    refused.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    let verdict =
        if results.agree { "All loads agree, byte for byte." } else { "Only one way to load ran: nothing to compare." };
    writeln!(out, "\n{verdict} Medians of {}, interleaved.", output::count(results.runs, "run"))?;
    if let Some((pattern, _)) = results.best() {
        writeln!(out, "roofline: {}, discarded; the fastest run", pattern.describe())?;
    }
    let auto = results.subjects.iter().find(|row| row.what == Subject::Auto).and_then(|row| row.result.as_ref().ok());
    if let Some((backend, reason)) = auto.and_then(Timing::chosen) {
        writeln!(out, "auto chose {backend}: {reason}")?;
    }
    notes::of(results).iter().try_for_each(|note| writeln!(out, "note: {note}"))
}

pub(super) fn document(results: &Results) -> Value {
    let (checkpoint, machine) = (&results.checkpoint, &results.machine);
    let subjects: Vec<Value> = results
        .subjects
        .iter()
        .map(|row| match &row.result {
            Ok(timing) => {
                let mut subject = numbers(row.what.name(), timing, checkpoint.bytes);
                let rate = timing.rates(checkpoint.bytes)[1];
                subject["of_roofline"] = json!(results.limit().filter(|limit| *limit > 0.0).map(|limit| rate / limit));
                if let Some((backend, reason)) = timing.chosen() {
                    subject["backend"] = json!(backend);
                    subject["reason"] = json!(reason);
                }
                subject
            }
            Err(why) => json!({"name": row.what.name(), "error": why}),
        })
        .collect();
    let roofline = results.best().map(|(pattern, timing)| {
        let mut roofline = numbers("roofline", timing, checkpoint.file_bytes);
        roofline["limit_gib_per_second"] = json!(results.limit());
        roofline["direct"] = json!(pattern.direct);
        roofline["threads"] = json!(pattern.threads);
        roofline["read_bytes"] = json!(pattern.block);
        roofline
    });
    json!({
        "path": checkpoint.path.to_string_lossy(),
        "files": checkpoint.files.len(),
        "file_bytes": checkpoint.file_bytes,
        "tensors": checkpoint.tensors,
        "bytes": checkpoint.bytes,
        "cold": results.cold,
        "runs": results.runs,
        "disturbed_share": results.disturbed,
        "agree": results.agree,
        "machine": {
            "cpu": machine.cpu,
            "cpus": machine.cpus,
            "kernel": machine.kernel,
            "file_system": machine.file_system,
            "device": machine.device,
            "gives_memory_back": machine.gives_memory_back,
        },
        "roofline": roofline,
        "subjects": subjects,
        "warnings": results.warnings(),
    })
}

fn numbers(name: &str, timing: &Timing, bytes: u64) -> Value {
    let ([min, seconds, max], [slowest, rate, fastest]) = (timing.seconds(), timing.rates(bytes));
    json!({
        "name": name,
        "seconds": seconds,
        "min_seconds": min,
        "max_seconds": max,
        "gib_per_second": rate,
        "min_gib_per_second": slowest,
        "max_gib_per_second": fastest,
        "cpu_seconds": timing.cpu_seconds(),
        "peak_rss_bytes": timing.peak_rss_bytes(),
    })
}
