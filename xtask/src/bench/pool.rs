//! The buffer pool against other pools, with Criterion.

use super::{machine, write_section};
use crate::tools::{cargo, run, target};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Runs the bench and writes its section.
pub(crate) fn run_bench() -> Result<(), String> {
    // Results of earlier runs must not count as this run's.
    let criterion = target().join("criterion");
    for old in groups(&criterion) {
        fs::remove_dir_all(criterion.join(&old)).map_err(|error| format!("{old}: {error}"))?;
    }
    let mut bench = cargo();
    bench.args(["bench", "--package", "floodtide-benches", "--bench", "pool"]);
    run(cargo().args(["bench", "--no-run", "--package", "floodtide-benches", "--bench", "pool"]))?;
    let output = bench.stderr(Stdio::inherit()).output().map_err(|error| format!("cargo bench: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo bench ended with {}", output.status));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut section = format!(
        "## Buffer pool\n\n`cargo xtask bench pool`, {}.\n\nTime of one *get and drop*, median of 20 samples; lower is better. In the table of short-lived threads it is the \
         time of a thread that starts, makes ten of them and ends. Pools that cannot be shared between threads are missing from the tables with several \
         threads.\n",
        machine()
    );
    let mut names = groups(&criterion);
    let order = ["get and drop", "get, write", "two threads", "four threads", "thousand", "turn", "short"];
    names.sort_by_key(|name| order.iter().position(|part| name.contains(part)));
    for group in names {
        table(&mut section, &criterion, &group)?;
    }
    section += "\n### Hit rates\n\nShare of requests that were served without allocating, for the pools that count it.\n\n| case | pool | hits |\n|---|---|---|\n";
    for line in printed.lines().filter_map(|line| line.strip_prefix("hit rate | ")) {
        let _ = writeln!(section, "| {line} |");
    }
    write_section("## Buffer pool", &section)
}

fn groups(criterion: &Path) -> Vec<String> {
    let entries = fs::read_dir(criterion).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with("pool ")).collect()
}

/// Appends a Criterion group as a table: a row per contender, a column per size.
fn table(section: &mut String, criterion: &Path, group: &str) -> Result<(), String> {
    let mut rows: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    let mut sizes: BTreeMap<u64, String> = BTreeMap::new();
    let mut title = group.to_owned();
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for case in folders(&criterion.join(group)).flat_map(|contender| folders(&contender).collect::<Vec<_>>()) {
        let (Ok(benchmark), Ok(estimates)) =
            (json(&case.join("new/benchmark.json")), json(&case.join("new/estimates.json")))
        else {
            continue;
        };
        let text = |key: &str| benchmark[key].as_str().unwrap_or_default().to_owned();
        let median = estimates["median"]["point_estimate"].as_f64().ok_or("an estimate has no median")?;
        title = text("group_id");
        sizes.insert(bytes_of(&text("value_str")), text("value_str"));
        rows.entry(text("function_id")).or_default().insert(bytes_of(&text("value_str")), median);
    }
    let _ = write!(section, "\n### {}\n\n|", title.trim_start_matches("pool "));
    sizes.values().for_each(|size| _ = write!(section, " | {size}"));
    let _ = writeln!(section, " |\n|---|{}", "---:|".repeat(sizes.len()));
    let mut rows: Vec<_> = rows.into_iter().collect();
    // floodtide first, then by the time at the smallest size.
    let smallest = |row: &BTreeMap<u64, f64>| row.values().next().copied().unwrap_or(f64::MAX);
    rows.sort_by(|a, b| {
        (a.0 != "floodtide", smallest(&a.1))
            .partial_cmp(&(b.0 != "floodtide", smallest(&b.1)))
            .expect("times are numbers")
    });
    for (contender, row) in rows {
        let _ = write!(section, "| {contender}");
        sizes
            .keys()
            .for_each(|size| _ = write!(section, " | {}", row.get(size).map_or("–".to_owned(), |&ns| time(ns))));
        section.push_str(" |\n");
    }
    Ok(())
}

fn json(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Parses a size such as "64 KiB".
fn bytes_of(size: &str) -> u64 {
    let (number, unit) = size.split_once(' ').unwrap_or((size, ""));
    number.parse::<u64>().unwrap_or(0) * if unit == "MiB" { 1 << 20 } else { 1 << 10 }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}
