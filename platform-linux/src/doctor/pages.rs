//! Checks huge pages by touching memory that requests them.

use super::{Finding, Status};
use crate::probe::cpus;
use crate::roofline::memory::{affordable, fault};
use floodtide_core::HumanBytes;
use memmap2::{Advice, MmapMut};
use std::fs;

const NAME: &str = "huge pages";
const MODE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// The amount of memory to touch: large enough for a meaningful figure, small enough to be
/// available.
const SAMPLE: usize = 32 << 20;
/// The amount of memory to check for huge pages.
const LOOK: usize = 8 << 20;

pub(super) fn huge_pages() -> Finding {
    let text = fs::read_to_string(MODE).unwrap_or_default();
    let mode = chosen(&text).unwrap_or("not there");
    let looked = affordable(LOOK).ok_or_else(|| "not tried: there is too little memory".to_owned());
    let (bytes, got) = match looked.and_then(|bytes| Ok((bytes as u64, huge_bytes(bytes)?))) {
        Ok(looked) => looked,
        Err(why) => {
            let meaning = "whether memory comes in huge pages is unknown";
            return Finding::new(NAME, Status::Limited, format!("mode {mode}; {why}"), meaning);
        }
    };
    let found = format!("mode {mode}; {} of {} came in huge pages", HumanBytes(got), HumanBytes(bytes));
    if got > 0 {
        let meaning = "an arena's memory comes in pages of 2 MiB, so few faults interrupt the reads";
        return with_cost(Finding::new(NAME, Status::Good, found, meaning));
    }
    let remedy = match mode {
        "never" => "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root",
        "not there" => "a kernel with transparent huge pages",
        _ => {
            "free memory may be too fragmented: echo 1 > /proc/sys/vm/compact_memory, as root; or they are off for this \
              process alone (PR_SET_THP_DISABLE)"
        }
    };
    let meaning = "an arena's memory comes in small pages, each with its own page fault";
    Finding::new(NAME, Status::Missing, found, meaning)
        .cost("with small pages two thirds of a load's time are page faults (ARCHITECTURE)")
        .remedy(remedy)
}

/// Adds a cost that is measured now.
fn with_cost(finding: Finding) -> Finding {
    let rate = |huge| fault(huge, affordable(SAMPLE)?, 3, cpus()).ok().flatten();
    match (rate(true), rate(false)) {
        (Some(huge), Some(small)) => {
            let gib = |rate: f64| rate / f64::from(1 << 30);
            let (huge, small) = (gib(huge.median), gib(small.median));
            finding.cost(format!(
                "without them, new memory is faulted in at {small:.1} instead of {huge:.1} GiB/s (just measured)"
            ))
        }
        _ => finding,
    }
}

/// Returns the mode in brackets.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
}

/// Returns how many bytes of new memory that requests huge pages get them.
fn huge_bytes(bytes: usize) -> Result<u64, String> {
    let mut memory = MmapMut::map_anon(bytes).map_err(|error| format!("no memory to try ({error})"))?;
    if let Err(error) = memory.advise(Advice::HugePage) {
        return Err(format!("madvise refuses ({error})"));
    }
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let smaps = fs::read_to_string("/proc/self/smaps").map_err(|error| format!("/proc/self/smaps: {error}"))?;
    anon_huge_bytes(&smaps, memory.as_ptr() as u64).ok_or_else(|| "/proc/self/smaps does not report it".to_owned())
}

/// Returns `AnonHugePages` of the mapping that contains an address, in bytes.
fn anon_huge_bytes(smaps: &str, address: u64) -> Option<u64> {
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split(' ').next()?;
        if let Some((start, end)) = first.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16).ok();
            inside = number(start).zip(number(end)).is_some_and(|(start, end)| (start..end).contains(&address));
        } else if let (true, Some(size)) = (inside, line.strip_prefix("AnonHugePages:")) {
            let kib: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
            return Some(kib * 1024);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_that_holds_the_address_tells() {
        let smaps = "1000-2000 rw-p 0 00:00 0 \nSize: 4 kB\nAnonHugePages:         0 kB\n\
                     ff0000-fff000 rw-p 0 00:00 0 [heap]\nAnonHugePages:      2048 kB\n";
        assert_eq!(anon_huge_bytes(smaps, 0x1800), Some(0));
        assert_eq!(anon_huge_bytes(smaps, 0xff_0000), Some(2 << 20));
        assert_eq!(anon_huge_bytes(smaps, 0x5000), None);
    }

    #[test]
    fn the_mode_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen(""), None);
    }
}
