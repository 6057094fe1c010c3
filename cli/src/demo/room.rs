//! Checks whether a demo fits on the disk and in memory, and finds a scale that does.

use super::layout::{self, Spec};
use crate::output::Failure;
use floodtide::core::HumanBytes;
use std::path::Path;

/// Returns the bytes that a demo of these tensors takes on disk, and in memory: the writer holds
/// one tensor at a time, a load holds all of them once.
fn needed(specs: &[Spec]) -> u64 {
    let sizes = specs.iter().map(|spec| spec.bytes() as u64);
    sizes.clone().sum::<u64>() + sizes.max().unwrap_or(0)
}

/// Fails before anything is written if the demo would fill the disk or the memory. The error names
/// a scale that fits.
pub(crate) fn check(folder: &Path, specs: &[Spec]) -> Result<(), Failure> {
    let memory = floodtide::probe::memory_limit();
    for (what, available) in [("disk space", free(folder)), ("memory", memory.available)] {
        if available >= needed(specs) {
            continue;
        }
        return Err(Failure::Failed(format!(
            "the demo needs {} of {what}, {} available ({}); {}",
            HumanBytes(needed(specs)),
            HumanBytes(available),
            if what == "memory" { &memory.limit } else { "free on the disk of the folder it writes to" },
            advice(available),
        )));
    }
    Ok(())
}

/// Returns advice on the scale to try with `room` bytes available.
pub(crate) fn advice(available: u64) -> String {
    // In steps of a hundredth, with a quarter of the room to spare.
    let fits = |scale: &f64| needed(&layout::gpt2(*scale)) <= available / 4 * 3;
    (1..100).rev().map(|hundredths| f64::from(hundredths) / 100.0).find(fits).map_or_else(
        || format!("even the smallest demo needs {}", HumanBytes(needed(&layout::gpt2(0.01)))),
        |scale| format!("try --scale {scale}"),
    )
}

/// Returns the bytes available to a folder, which may not exist yet, or `u64::MAX` if the system
/// does not report it.
fn free(folder: &Path) -> u64 {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(existing).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proposed_scale_fits_and_follows_the_room() {
        let mut scales = Vec::new();
        for room in [64_u64 << 20, 128 << 20, 512 << 20] {
            let advice = advice(room);
            let scale: f64 = advice.strip_prefix("try --scale ").expect("a scale").parse().expect("a number");
            assert!(needed(&layout::gpt2(scale)) <= room, "{room}: {scale}");
            scales.push(scale);
        }
        assert!(scales.is_sorted_by(|a, b| a < b), "{scales:?}");
        assert!(advice(1 << 20).starts_with("even the smallest demo needs"));
    }
}
