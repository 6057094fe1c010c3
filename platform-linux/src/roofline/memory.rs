//! Measures memory: copies from the page cache, and first touches of new pages. Both limit a load,
//! however fast its device is.

use super::bytes::Bytes;
use super::reads::{Run, Scratch};
use super::{Rate, ReadMethod};
use crate::probe::memory_limit;
use memmap2::{Advice, MmapMut};
use std::io;
use std::time::{Duration, Instant};

/// The number of bytes to copy or touch at a time.
const SAMPLE: usize = 64 << 20;
const SAMPLES: usize = 5;
const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// Returns how much memory to touch, or `None` if too little is available.
///
/// It leaves enough for the process in a small control group, and contains a huge page wherever it
/// starts.
pub(crate) fn affordable(target_bytes: usize) -> Option<usize> {
    affordable_of(target_bytes, memory_limit().available)
}

fn affordable_of(target_bytes: usize, available: u64) -> Option<usize> {
    let max = usize::try_from(available / 4).unwrap_or(usize::MAX);
    let bytes = target_bytes.min(max) / HUGE_PAGE * HUGE_PAGE;
    (bytes >= 2 * HUGE_PAGE).then_some(bytes)
}

/// Measures copies from the page cache to existing huge pages by all processors, in bytes per
/// second.
pub(super) fn copy(bytes: &Bytes, scratch: &mut Scratch, cpus: usize) -> Result<Rate, String> {
    let total = (SAMPLE as u64).min(bytes.total());
    let (method, in_flight) = (ReadMethod { ring: false, direct: false }, cpus.min(scratch.byte_len() >> 20).max(1));
    let share = total / in_flight as u64;
    let run = Run {
        method,
        chunk_bytes: 1 << 20,
        in_flight,
        rings: 1,
        time: Duration::from_secs(1),
        max_bytes: share.max(1),
    };
    let mut once = || {
        bytes.rewind();
        run.rate(bytes, scratch)
    };
    // The first run brings the bytes into the cache.
    once()?;
    let rates = (0..SAMPLES).map(|_| once()).collect::<Result<Vec<f64>, String>>()?;
    Rate::of(rates).ok_or_else(|| "nothing was copied".to_owned())
}

/// Measures faulting in new memory by all processors, with or without huge pages, in bytes per
/// second.
pub(crate) fn fault(huge: bool, bytes: usize, samples: usize, cpus: usize) -> io::Result<Option<Rate>> {
    let rates = (0..samples).map(|_| fault_once(huge, bytes, cpus)).collect::<io::Result<Vec<f64>>>()?;
    Ok(Rate::of(rates))
}

pub(super) fn fault_rates(cpus: usize) -> io::Result<(Option<Rate>, Option<Rate>)> {
    let bytes = affordable(SAMPLE).ok_or_else(|| io::Error::other("there is too little memory"))?;
    Ok((fault(true, bytes, SAMPLES, cpus)?, fault(false, bytes, SAMPLES, cpus)?))
}

fn fault_once(huge: bool, bytes: usize, cpus: usize) -> io::Result<f64> {
    let mut memory = MmapMut::map_anon(bytes)?;
    let advice = if huge { Advice::HugePage } else { Advice::NoHugePage };
    // A kernel without huge pages refuses, and is measured as it is.
    let _ = memory.advise(advice);
    let started = Instant::now();
    let part = bytes.div_ceil(cpus.max(1)).next_multiple_of(HUGE_PAGE);
    let touch = |part: &mut [u8]| part.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::thread::scope(|scope| {
        let mut parts = memory.chunks_mut(part);
        let own = parts.next();
        for part in parts {
            // If no thread can be started, this one does the work.
            let part = floodtide_memory::sync::Mutex::new(Some(part));
            let part = std::sync::Arc::new(part);
            let theirs = std::sync::Arc::clone(&part);
            let take = |part: &floodtide_memory::sync::Mutex<Option<&mut [u8]>>| {
                if let Some(part) = part.lock().take() {
                    touch(part);
                }
            };
            if std::thread::Builder::new().spawn_scoped(scope, move || take(&theirs)).is_err() {
                take(&part);
            }
        }
        own.into_iter().for_each(touch);
    });
    std::hint::black_box(&memory);
    Ok(bytes as f64 / started.elapsed().as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_touched_than_a_small_control_group_bears() {
        const MIB: u64 = 1 << 20;
        let touched = |available: u64| affordable_of(SAMPLE, available).map(|bytes| bytes as u64 / MIB);
        assert_eq!(
            [u64::MAX, 256 * MIB, 100 * MIB, 16 * MIB, 16 * MIB - 1, 0].map(touched),
            [Some(64), Some(64), Some(24), Some(4), None, None]
        );
    }
}
