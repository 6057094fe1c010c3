//! How a load is timed: `benches/baselines/common.py` does the same for Python.

use crate::explain;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Instant;

/// Brings caches and memory into the state that is asked for, by the command that `BENCH_PREPARE` holds as a JSON list. This is a process
/// of its own, the last thing before the clock starts, whatever was done before: importing libraries, or an earlier load.
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

/// Looks at one byte of each page.
pub(crate) fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(4096).map(|&byte| u64::from(byte)).sum()
}

/// Prepares, then times `load`, which returns how many bytes it has touched, and what must live until the clock stops.
pub(crate) fn timed<T>(load: impl FnOnce() -> Result<(u64, T), String>) -> Result<(Value, T), String> {
    prepare()?;
    // Makes the peak that is told from now on this load's.
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

/// A figure of `/proc/self/status`, in bytes.
pub(crate) fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What all threads of this process have used so far, in it and in the kernel.
fn processor_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 * 1e-9
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
