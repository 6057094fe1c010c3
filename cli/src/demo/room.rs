//! Whether a demo fits on the disk it writes to and in memory, and which scale of it would.

use super::layout::{self, Spec};
use crate::output::Failure;
use floodtide::core::HumanBytes;
use std::path::Path;

/// What a demo of these tensors takes of the disk, and of memory: the writer holds one tensor at a time, a load all of
/// them once.
fn needed(specs: &[Spec]) -> u64 {
    let sizes = specs.iter().map(|spec| spec.bytes() as u64);
    sizes.clone().sum::<u64>() + sizes.max().unwrap_or(0)
}

/// Refuses before anything is made what would fill the disk or the memory, and says which scale fits.
pub(crate) fn check(folder: &Path, specs: &[Spec]) -> Result<(), Failure> {
    let memory = floodtide::probe::memory_limit();
    for (what, available) in [("disk space", free(folder)), ("memory", memory.available)] {
        if available >= needed(specs) {
            continue;
        }
        return Err(Failure::Failed(format!(
            "the demo needs {} of {what}, but there are {} ({}); {}",
            HumanBytes(needed(specs)),
            HumanBytes(available),
            if what == "memory" { &memory.limit } else { "free on the disk of the folder it writes to" },
            advice(available),
        )));
    }
    Ok(())
}

/// The scale to try where so many bytes can be had.
pub(crate) fn advice(available: u64) -> String {
    // In steps of a hundredth, with a quarter of the room to spare.
    let fits = |scale: &f64| needed(&layout::gpt2(*scale)) <= available / 4 * 3;
    (1..100).rev().map(|hundredths| f64::from(hundredths) / 100.0).find(fits).map_or_else(
        || format!("even the smallest needs {}", HumanBytes(needed(&layout::gpt2(0.01)))),
        |scale| format!("try --scale {scale}"),
    )
}

/// The bytes that can be written to a folder that may be yet to make; no limit where the system does not tell.
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
        assert!(advice(1 << 20).starts_with("even the smallest needs"));
    }
}
