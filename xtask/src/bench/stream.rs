//! A stream in bounded memory against a load that keeps everything.

use super::disk::{Disk, drop_cache, reclaims_memory, warm_cache};
use super::{checkpoint, machine, write_section};
use crate::tools::{cargo, run, target};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const ROUNDS: usize = 7;

/// The loads to compare: a name and the arguments of `floodtide load`.
const LOADS: [(&str, &[&str]); 4] = [
    ("owned load", &[]),
    ("stream, 64 MiB", &["--stream", "--memory-limit", "64MiB"]),
    ("stream, 256 MiB", &["--stream", "--memory-limit", "256MiB"]),
    ("stream, 1 GiB", &["--stream", "--memory-limit", "1GiB"]),
];

#[derive(Clone, Copy)]
struct Sample {
    gib_per_second: f64,
    peak_bytes: u64,
}

/// Measures, and writes the section.
pub(crate) fn run_bench() -> Result<(), String> {
    run(cargo().args(["build", "--release", "--package", "floodtide-cli"]))?;
    let mut section = format!(
        "## Streaming\n\n`cargo xtask bench stream`, {}.\n\n`floodtide load` loads and streams a checkpoint of Qwen3-1.7B's layout (3.2 GiB, 4 shards). \
         Figures are medians of {ROUNDS} interleaved rounds, with the slowest and the fastest. The ratio is the median of the ratios within each round.\n",
        machine()
    );
    if reclaims_memory() {
        section += "\nThis virtual machine returns freed memory to its host (free page reporting), so fresh memory is slow. An owned load pays \
                    for all of its bytes, a stream only for its buffers.\n";
    }
    match Disk::zram(5 << 30) {
        Ok(disk) => measure_on(&disk, &mut section)?,
        Err(why) => println!("zram is skipped: {why}"),
    }
    measure_on(&Disk::ordinary()?, &mut section)?;
    write_section("## Streaming", &section)
}

fn measure_on(disk: &Disk, section: &mut String) -> Result<(), String> {
    let folder = disk.path().join("qwen3-1.7b");
    checkpoint::write_model(&folder, &checkpoint::QWEN3_1_7B)?;
    for cold in [true, false] {
        if !cold {
            warm_cache(&folder)?;
        }
        let mut samples: [Vec<Sample>; LOADS.len()] = Default::default();
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            for i in 0..LOADS.len() {
                // Each load follows each other load equally often.
                let at = (i + round) % LOADS.len();
                if cold {
                    drop_cache(&folder)?;
                }
                let sample = load(&folder, LOADS[at].1)?;
                if round > 0 {
                    samples[at].push(sample);
                }
            }
        }
        let state = if cold { "cold" } else { "warm" };
        let _ = writeln!(
            section,
            "\n### {}, {state} page cache\n\n| | GiB/s | to owned | peak memory |\n|---|---:|---:|---:|",
            disk.name()
        );
        for ((name, _), own) in LOADS.iter().zip(&samples) {
            let rates = sorted(own.iter().map(|sample| sample.gib_per_second));
            let ratios =
                sorted(own.iter().zip(&samples[0]).map(|(own, owned)| own.gib_per_second / owned.gib_per_second));
            let peak = own.iter().map(|sample| sample.peak_bytes).max().unwrap_or(0);
            let _ = writeln!(
                section,
                "| {name} | {:.2} ({:.2} – {:.2}) | {:.2} | {} MiB |",
                rates[ROUNDS / 2],
                rates[0],
                rates[ROUNDS - 1],
                ratios[ROUNDS / 2],
                peak >> 20
            );
        }
    }
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn load(folder: &Path, arguments: &[&str]) -> Result<Sample, String> {
    let output = Command::new(target().join("release/floodtide"))
        .arg("load")
        .arg(folder)
        .arg("--json")
        .args(arguments)
        // A stored profile of this disk must not change what is compared.
        .env("XDG_CACHE_HOME", "/dev/null")
        .output()
        .map_err(|error| format!("floodtide: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let report: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("floodtide's report: {error}"))?;
    let missing = |key: &str| format!("floodtide's report has no {key}");
    let [rate, peak] = ["gib_per_second", "peak_rss_bytes"];
    Ok(Sample {
        gib_per_second: report[rate].as_f64().ok_or_else(|| missing(rate))?,
        peak_bytes: report[peak].as_u64().ok_or_else(|| missing(peak))?,
    })
}
