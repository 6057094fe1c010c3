//! Times a load. `benches/baselines/common.py` does the same for Python.

use crate::explain;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// Prepares caches and memory with the command that `BENCH_PREPARE` holds as a JSON list. It runs
/// as its own process, right before the clock starts, after imports and earlier loads.
pub(crate) fn prepare() -> Result<(), String> {
    let Ok(command) = std::env::var("BENCH_PREPARE") else { return Ok(()) };
    let command: Vec<String> = serde_json::from_str(&command).map_err(explain)?;
    let (program, arguments) = command.split_first().ok_or("BENCH_PREPARE names no program")?;
    let output = Command::new(program).args(arguments).output().map_err(explain)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("preparing: {}", why.lines().last().unwrap_or("it told nothing")))
}

/// Reads one byte of each page.
pub(crate) fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(4096).map(|&byte| u64::from(byte)).sum()
}

/// Prepares, then times `load`, which returns the number of touched bytes and a value that must
/// live until the clock stops.
pub(crate) fn timed<T>(load: impl FnOnce() -> Result<(u64, T), String>) -> Result<(Value, T), String> {
    prepare()?;
    // Resets the peak, so that it is the load's own.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (before, processor) = (status("VmRSS:"), processor_seconds());
    let start = Instant::now();
    let (bytes, kept) = load()?;
    let seconds = start.elapsed().as_secs_f64();
    let report = json!({
        "bytes": bytes,
        "seconds": seconds,
        "cpu_seconds": processor_seconds() - processor,
        "peak_bytes": status("VmHWM:"),
        "before_bytes": before,
    });
    Ok((report, kept))
}

/// Returns a value of `/proc/self/status` in bytes.
pub(crate) fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Returns the CPU time of all threads of this process, user and system.
fn processor_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 * 1e-9
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
