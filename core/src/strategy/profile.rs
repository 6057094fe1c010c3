//! Applies the measured [`Profile`](super::Profile) of a device: the size of reads, their number in
//! flight, and whether cold files are read by direct I/O.
//!
//! A platform measures and keeps the profile. Without one, nothing here has an effect. In
//! [`decide`](super::decide), [`reconsider`] runs before a route is chosen and [`adjust`]
//! afterwards.

use super::group::Group;
use super::{Consumer, Decision, FileSignals, MAX_WORKERS, Route};
use crate::backend::ReadStyle;
use crate::units::HumanBytes;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

/// The speedup from which buffered reads are used for cold files.
///
/// Buffered reads cost a copy and evict other files from the page cache.
const MIN_BUFFERED_SPEEDUP: f64 = 1.25;
/// The minimum size of a read. Shorter reads gain nothing on any device and each has a cost.
const MIN_CHUNK_BYTES: u64 = 512 << 10;
/// The maximum number of threads. Their stacks use address space, of which a load reserves some
/// tens of MiB.
const MAX_THREADS: usize = 32;

/// Rules out direct reads if the device is clearly faster through the page cache.
///
/// A requested ring keeps its direct reads, and a mapping reads nothing.
pub(super) fn reconsider(group: &mut Group<'_>) {
    let device = group.device;
    let Some(profile) = &device.signals.profile else { return };
    let (Some(direct), Some(buffered)) = (profile.fastest(true), profile.fastest(false)) else { return };
    let takes_direct = group.files.iter().any(|file| file.direct);
    let given = device.requested.is_some_and(|b| matches!(b.style(), ReadStyle::Queue | ReadStyle::Mapped));
    if given || !takes_direct || (buffered as f64) < direct as f64 * MIN_BUFFERED_SPEEDUP {
        return;
    }
    group.refuse_direct(format!(
        "by the profile of {}, this device reads faster through the page cache ({}/s, direct {}/s)",
        profile.device,
        HumanBytes(buffered),
        HumanBytes(direct)
    ));
}

/// Returns true if direct reads alone limit the load.
///
/// There is no consumer and no verification, and at most 1/16 of the selected bytes come from or
/// through the page cache. Reading the headers leaves about that much in it.
fn sets_the_pace(group: &Group<'_>, direct: &[bool]) -> bool {
    let signals = group.signals;
    let cached = |file: &FileSignals| file.cached.iter().map(|range| range.len()).sum::<u64>();
    let files = group.files.iter().zip(direct).filter(|(file, _)| file.selected_bytes > 0);
    let others: u64 = files.map(|(file, &direct)| if direct { cached(file) } else { file.selected_bytes }).sum();
    signals.consumer == Consumer::Whole && !signals.verified && others <= signals.selected_bytes / 16
}

/// Sets the read size and depth of a route from the profile, and adds a decision.
///
/// The profile does not apply to small loads, cached files and mappings.
pub(super) fn adjust(route: &mut Route, group: &Group<'_>, direct: &[bool], decisions: &mut Vec<Decision>) {
    let Some(profile) = &group.device.signals.profile else { return };
    let signals = group.signals;
    let selected = || group.files.iter().zip(direct).filter(|(file, _)| file.selected_bytes > 0);
    let any_direct = selected().any(|(_, &direct)| direct);
    let any_cold = selected().any(|(file, _)| !file.is_cached());
    if !any_cold || signals.selected_bytes < super::SMALL_BYTES || route.backend.is_mapped() {
        return;
    }
    let ring = route.backend.style() == ReadStyle::Queue;
    let Some(best) = profile.reads(ring, any_direct) else { return };
    let cpus = signals.cpus.clamp(1, MAX_WORKERS);
    // The measurement read into memory that was already faulted in. A load faults in its memory as
    // it reads, and the device needs work meanwhile.
    let in_flight = best.in_flight.max(2 * cpus).min(if ring { usize::MAX } else { MAX_THREADS });
    // Every read in flight should have a successor, so that the device does not idle for half of a
    // small load.
    let fits = signals.selected_bytes / (2 * in_flight as u64).max(1);
    let mut chunk_bytes = best.chunk_bytes.max(MIN_CHUNK_BYTES);
    while chunk_bytes > fits && chunk_bytes / 2 >= MIN_CHUNK_BYTES {
        chunk_bytes /= 2;
    }
    route.chunk_bytes = chunk_bytes;
    route.profiled_direct_rate = (any_direct && sets_the_pace(group, direct)).then_some(best.bytes_per_second);
    // A tuner continues from there.
    if ring {
        route.workers = cpus;
        route.depth = in_flight.div_ceil(route.workers);
    } else if route.backend.style() == ReadStyle::Tasks {
        (route.workers, route.depth) = (1, in_flight);
    } else {
        (route.workers, route.depth) = (in_flight, 1);
    }
    route.max_in_flight = route.max_in_flight.max(route.workers * route.depth);
    let device = format!("the profile of {}", profile.device);
    let is_named = decisions.iter().any(|decision| decision.why.contains(&device));
    let by = if is_named { "the same profile" } else { &device };
    let measured = Size { chunk_bytes: best.chunk_bytes, in_flight: best.in_flight };
    let used = Size { chunk_bytes, in_flight: route.workers * route.depth };
    let begins = match why_not(measured, used, cpus) {
        None => "this load starts with the same".to_string(),
        Some(why) => format!("this load starts with {used}, as {why}"),
    };
    let why = format!("by {by}, {measured} gave {}/s, the best: {begins}", HumanBytes(best.bytes_per_second));
    decisions.push(Decision::new("profile", why));
}

/// The read size and the number of reads in flight.
#[derive(Clone, Copy)]
struct Size {
    chunk_bytes: u64,
    in_flight: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reads of {}, {} in flight", HumanBytes(self.chunk_bytes), self.in_flight)
    }
}

/// Returns why a load deviates from the measured optimum, if it does.
fn why_not(measured: Size, used: Size, cpus: usize) -> Option<String> {
    let mut reasons = Vec::new();
    match used.in_flight.cmp(&measured.in_flight) {
        Ordering::Less => reasons.push("each needs a thread"),
        Ordering::Equal => {}
        Ordering::Greater if measured.in_flight < 2 * cpus => {
            reasons.push("each processor needs two, because it also faults in memory");
        }
        Ordering::Greater => reasons.push("all rings have equally many"),
    }
    match used.chunk_bytes.cmp(&measured.chunk_bytes) {
        Ordering::Less => reasons.push("the load is too small for larger ones"),
        Ordering::Equal => {}
        Ordering::Greater => reasons.push("smaller ones gain nothing"),
    }
    (!reasons.is_empty()).then(|| reasons.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::super::Signals;
    use super::super::tests::{self, MMAP, PREAD, URING, decide};
    use super::*;
    use crate::profile::{BestReads, Profile};
    use crate::units::ByteRange;
    use alloc::vec;

    const MIB: u64 = 1 << 20;

    fn reads(ring: bool, direct: bool, chunk_mib: u64, in_flight: usize, mib_per_second: u64) -> BestReads {
        BestReads { ring, direct, chunk_bytes: chunk_mib * MIB, in_flight, bytes_per_second: mib_per_second * MIB }
    }

    fn signals(resident: f32, best: Vec<BestReads>) -> Signals {
        let profile = Some(Profile { device: "ext4 on 254:0".to_string(), best });
        let mut signals = Signals { cpus: 4, ..tests::signals(Some(resident), true) };
        signals.devices[0].signals.profile = profile;
        signals
    }

    #[test]
    fn a_profile_sizes_the_reads_and_says_so() {
        let best = vec![reads(true, true, 4, 24, 3000), reads(false, true, 1, 16, 2900)];
        let strategy = decide(&signals(0.0, best.clone()), None);
        assert_eq!((strategy.backend, strategy.direct.clone()), (URING, vec![true, true]));
        assert_eq!((strategy.chunk_bytes, strategy.workers, strategy.depth), (4 * MIB, 4, 6));
        let words = "; by the profile of ext4 on 254:0, reads of 4.0 MiB, 24 in flight gave 2.9 GiB/s, the best: this load starts with the same";
        assert!(strategy.reason.ends_with(words), "{}", strategy.reason);
        let strategy = decide(&signals(0.0, best), Some(PREAD));
        assert_eq!((strategy.chunk_bytes, strategy.workers, strategy.depth), (MIB, 16, 1), "the threads' own");
        let many = decide(&signals(0.0, vec![reads(false, true, 1, 128, 3000)]), Some(PREAD));
        assert_eq!(many.workers, MAX_THREADS);
        assert!(many.reason.ends_with("starts with reads of 1.0 MiB, 32 in flight, as each needs a thread"));
    }

    #[test]
    fn direct_reads_are_expected_to_be_as_measured_only_where_nothing_else_sets_the_pace() {
        let cold = signals(0.0, vec![reads(true, true, 4, 24, 3000)]);
        let expected = |signals: &Signals| decide(signals, None).profiled_direct_rate;
        assert_eq!(expected(&cold), Some(3000 * MIB));
        assert_eq!(expected(&Signals { consumer: Consumer::Stream, ..cold.clone() }), None);
        assert_eq!(expected(&Signals { verified: true, ..cold.clone() }), None);
        assert_eq!(decide(&cold, Some(URING)).profiled_direct_rate, None, "these reads and no others");
        // Two files are partly cached: one by its header's reading, the other by half.
        for (mib, pace) in [(64, true), (512, false)] {
            let mut partly = cold.clone();
            partly.files[0].cached = ByteRange::new(0, mib * MIB).into_iter().collect();
            partly.files[0].resident = Some(mib as f32 / 1024.0);
            assert_eq!(expected(&partly).is_some(), pace, "{mib} MiB cached");
        }
        let mut buffered = cold;
        buffered.files[1].aligned = false;
        assert_eq!(expected(&buffered), None);
    }

    #[test]
    fn processors_that_fault_memory_in_leave_the_device_something_to_do() {
        let strategy = decide(&signals(0.0, vec![reads(true, true, 4, 1, 100)]), None);
        assert_eq!((strategy.workers, strategy.depth), (4, 2));
        let words = "reads of 4.0 MiB, 1 in flight gave 100.0 MiB/s, the best: this load starts with reads of 4.0 MiB, 8 in flight, as each \
                     processor needs two, because it also faults in memory";
        assert!(strategy.reason.ends_with(words), "{}", strategy.reason);
        let uneven = decide(&signals(0.0, vec![reads(true, true, 4, 21, 100)]), None).reason;
        assert!(
            uneven.ends_with("starts with reads of 4.0 MiB, 24 in flight, as all rings have equally many"),
            "{uneven}"
        );
    }

    #[test]
    fn a_device_that_reads_clearly_faster_through_the_page_cache_is_read_so() {
        let best = |buffered| vec![reads(true, true, 4, 8, 1000), reads(false, false, 2, 4, buffered)];
        let strategy = decide(&signals(0.0, best(2000)), None);
        assert_eq!((strategy.backend, strategy.direct.clone()), (PREAD, vec![false, false]));
        assert_eq!((strategy.chunk_bytes, strategy.workers), (2 * MIB, 8), "two threads a processor at least");
        let words = "reads faster through the page cache (1.9 GiB/s, direct 1000.0 MiB/s), so the reads are buffered";
        assert!(strategy.reason.contains(words), "{}", strategy.reason);
        assert_eq!(decide(&signals(0.0, best(1200)), None).direct, vec![true, true], "not clearly faster");
        let asked = decide(&signals(0.0, best(2000)), Some(URING));
        assert_eq!((asked.backend, asked.direct), (URING, vec![true, true]));
    }

    #[test]
    fn cached_files_small_loads_and_mappings_ignore_the_profile() {
        let best = vec![reads(true, true, 16, 64, 1000), reads(false, false, 16, 64, 3000)];
        let without = |signals: &Signals| {
            let mut signals = signals.clone();
            signals.devices[0].signals.profile = None;
            signals
        };
        let cached = signals(1.0, best.clone());
        assert_eq!(decide(&cached, None), decide(&without(&cached), None));
        let cold = signals(0.0, best.clone());
        assert_eq!(decide(&cold, Some(MMAP)), decide(&without(&cold), Some(MMAP)));
        let little = Signals { selected_bytes: 1000, ..signals(0.0, vec![best[0]]) };
        assert_eq!(decide(&little, None), decide(&without(&little), None));
        let unmeasured = signals(0.0, vec![]);
        assert_eq!(decide(&unmeasured, None), decide(&without(&unmeasured), None));
    }

    #[test]
    fn a_small_load_has_reads_for_all_that_are_in_flight() {
        let mut small = signals(0.0, vec![reads(true, true, 16, 8, 1000)]);
        small.selected_bytes = 64 * MIB;
        let strategy = decide(&small, None);
        assert_eq!(strategy.chunk_bytes, 4 * MIB);
        let words = "starts with reads of 4.0 MiB, 8 in flight, as the load is too small for larger ones";
        assert!(strategy.reason.ends_with(words), "{}", strategy.reason);
        small.selected_bytes = 4 * MIB;
        assert_eq!(decide(&small, None).chunk_bytes, MIN_CHUNK_BYTES);
        let tiny = BestReads { chunk_bytes: 64 << 10, ..reads(true, true, 1, 64, 1000) };
        let strategy = decide(&signals(0.0, vec![tiny]), None);
        assert_eq!(strategy.chunk_bytes, MIN_CHUNK_BYTES);
        assert!(strategy.reason.ends_with("in flight, as smaller ones gain nothing"), "{}", strategy.reason);
    }
}
