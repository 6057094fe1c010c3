//! Chooses how to load from what was measured, and says why in words.
//!
//! A pure function of [`Signals`]. To add a backend, add it to [`Backend`] and to [`decide`]. What a measured device changes is in
//! `profile`.

mod profile;

pub use profile::{BestReads, Profile};

use crate::units::ByteRange;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// A way of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring, one ring a worker.
    Uring,
    /// Worker threads that call `pread`.
    Pread,
    /// The files mapped into memory.
    Mmap,
    /// tokio's blocking threads.
    Tokio,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 4] = [Self::Uring, Self::Pread, Self::Mmap, Self::Tokio];

    /// The name that people and JSON output use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Pread => "pread",
            Self::Mmap => "mmap",
            Self::Tokio => "tokio",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What was measured of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSignals {
    /// Its length in bytes.
    pub bytes: u64,
    /// The share of it in the page cache, 0 to 1; `None` when the system would not tell.
    pub resident: Option<f32>,
    /// Where, if it is a part of the file and the system says which: ascending and disjoint.
    pub cached: Vec<ByteRange>,
    /// Whether direct reads are possible.
    pub direct: bool,
    /// Whether any wanted tensor lies in the file as it must in memory. Where none does, all have to be shifted, which only reads
    /// through the page cache can do.
    pub aligned: bool,
    /// How many of its bytes are wanted; a file of which none are is not read.
    pub wanted_bytes: u64,
}

impl FileSignals {
    fn takes_direct_reads(&self) -> bool {
        self.direct && self.aligned && !is_cached(self)
    }
}

/// Who gets the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// A caller that waits for all of them.
    #[default]
    Whole,
    /// A caller that takes them one after another, so that others must read meanwhile.
    Stream,
}

/// What was measured before a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Signals {
    /// Each file.
    pub files: Vec<FileSignals>,
    /// The bytes that are wanted.
    pub selected_bytes: u64,
    /// Who wants them.
    pub consumer: Consumer,
    /// The file system's name, when it is known.
    pub file_system: String,
    /// Whether the file system is on another machine.
    pub network: bool,
    /// Why io_uring cannot be used, if so.
    pub uring_refused: Option<String>,
    /// Why direct reads cannot be used although files take them, if so.
    pub direct_refused: Option<String>,
    /// The processors this process may run on.
    pub cpus: usize,
    /// The device as it was measured once, if it was.
    pub profile: Option<Profile>,
}

/// How a load is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// What reads.
    pub backend: Backend,
    /// By file: past the page cache or through it.
    pub direct: Vec<bool>,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The reads in flight per worker, to begin with.
    pub depth: usize,
    /// The reads in flight of all workers together that a [`Tuner`](crate::tune::Tuner) may go up to; `workers` times `depth` where nothing
    /// is to be tuned.
    pub most_in_flight: usize,
    /// Rings or threads; 0 means that the caller's own thread does it all.
    pub workers: usize,
    /// Why, in a sentence or two.
    pub reason: String,
}

impl Strategy {
    /// How many reads each worker's source must be able to hold.
    #[must_use]
    pub fn ring_entries(&self) -> usize {
        self.depth.max(self.most_in_flight.div_ceil(self.workers.max(1)))
    }

    /// How many reads are in flight to begin with, and at most. `gathers`: whether the plan has reads that slices are gathered from, each of
    /// which has a buffer on top of the memory that was planned; a stream's plan counts on so few.
    #[must_use]
    pub fn in_flight(&self, gathers: bool) -> (usize, usize) {
        let workers = self.workers.max(1);
        let start = workers.saturating_mul(self.depth.max(1));
        let bound = if gathers { MOST_GATHERED.max(workers) } else { usize::MAX };
        (start.min(bound), self.most_in_flight.max(start).min(bound))
    }
}

/// Below this, starting a thread or a ring, and asking the system about either, costs more than it brings.
const SMALL_BYTES: u64 = 4 << 20;
/// From this share on a file counts as cached, where nothing tells which part of it is not.
const CACHED_SHARE: f32 = 0.9;
const MAX_WORKERS: usize = 8;
/// 1 GiB of reads of 2 MiB: what 50 GB/s and 20 ms ask for.
const MAX_IN_FLIGHT: usize = 512;
const MAX_THREADS: usize = 64;
/// Of a plan that gathers no more reads are in flight than these, or one a worker.
const MOST_GATHERED: usize = 32;

/// Whether so little is wanted that it is read through the page cache without threads, whatever the system allows: nothing but the
/// files' lengths and `selected_bytes` need be measured then.
#[must_use]
pub fn is_small(selected_bytes: u64, wanted: Option<Backend>) -> bool {
    selected_bytes < SMALL_BYTES && wanted.is_none()
}

/// Decides. `wanted` is the caller's choice of backend, `None` to choose here; a wanted backend is taken as given.
#[must_use]
pub fn decide(signals: &Signals, wanted: Option<Backend>) -> Strategy {
    let signals = &*profile::reconsidered(signals, wanted);
    let mut reasons: Vec<String> = Vec::new();
    let small = is_small(signals.selected_bytes, wanted);
    let direct: Vec<bool> = signals.files.iter().map(|file| !small && file.takes_direct_reads()).collect();
    let any_direct = direct.iter().any(|&direct| direct);
    let backend = match wanted {
        Some(backend) => {
            reasons.push(format!("{backend} was asked for"));
            backend
        }
        None => choose(signals, small, any_direct, &mut reasons),
    };
    match backend {
        Backend::Mmap => reasons.push("the files are mapped; views of them share the page cache".to_string()),
        _ if small => {}
        _ => reasons.push(explain_files(signals, &direct)),
    }
    let cpus = signals.cpus.clamp(1, MAX_WORKERS);
    let waits = any_direct || signals.network || signals.files.iter().any(|file| !is_cached(file));
    let (chunk_bytes, depth, workers) = match backend {
        Backend::Uring => (2 << 20, 4, cpus),
        _ if small => (4 << 20, 1, usize::from(signals.consumer == Consumer::Stream)),
        // A network file system answers slowly and in parallel.
        _ if signals.network => (4 << 20, 1, 16),
        // A thread waits while its direct read is under way: two a processor keep the device busy.
        _ if any_direct => (2 << 20, 1, 2 * cpus),
        _ => (2 << 20, 1, cpus),
    };
    let most_in_flight = match backend {
        Backend::Uring if waits => MAX_IN_FLIGHT,
        // Each is a thread. Copies from the page cache keep a processor busy, and there are no more of those.
        Backend::Pread if waits && !small => MAX_THREADS,
        _ => workers * depth,
    };
    let mut strategy =
        Strategy { backend, direct, chunk_bytes, depth, workers, most_in_flight, reason: reasons.join("; ") };
    profile::adjust(&mut strategy, signals);
    strategy
}

fn choose(signals: &Signals, small: bool, any_direct: bool, reasons: &mut Vec<String>) -> Backend {
    if small {
        reasons.push(match signals.consumer {
            Consumer::Whole => {
                "so little needs neither ring nor threads: the calling thread reads it through the page cache"
                    .to_string()
            }
            Consumer::Stream => "so little needs no ring: one thread reads it through the page cache".to_string(),
        });
    } else if !any_direct {
        reasons.push("buffered reads are copies by the processor, which threads share best".to_string());
    } else if let Some(why) = &signals.uring_refused {
        reasons.push(format!("io_uring cannot be used here ({why}), so threads wait for the direct reads"));
    } else {
        reasons.push("a ring keeps direct reads in flight from few threads".to_string());
        return Backend::Uring;
    }
    Backend::Pread
}

fn explain_files(signals: &Signals, direct: &[bool]) -> String {
    let read = || signals.files.iter().filter(|file| file.wanted_bytes > 0);
    let files = read().count();
    let direct = signals.files.iter().zip(direct).filter(|(file, direct)| **direct && file.wanted_bytes > 0).count();
    let cached = read().filter(|file| is_cached(file)).count();
    let partly = read().filter(|file| !is_cached(file) && !file.cached.is_empty()).count();
    let refusing = read().filter(|file| !file.direct).count();
    let unknown = read().filter(|file| file.resident.is_none()).count();
    let shifted = read().filter(|file| file.direct && !file.aligned && !is_cached(file)).count();
    let mut text = match (direct, cached, refusing) {
        _ if files == 0 => "there is nothing to read".to_string(),
        (0, c, _) if c == files => "the files are in the page cache, so they are copied from there".to_string(),
        (0, _, r) if r == files && signals.direct_refused.is_some() => {
            format!("{}, so the reads are buffered", signals.direct_refused.as_deref().unwrap_or_default())
        }
        (0, _, r) if r == files => format!("{} takes no direct reads, so the reads are buffered", signals.file_system),
        (0, 0, 0) => {
            "the tensors lie in the files at offsets that their dtypes do not allow in memory, so each is read \
                      through the page cache to a place of its own"
                .to_string()
        }
        (d, _, _) if d == files && partly > 0 => {
            format!(
                "{partly} of {files} files are partly in the page cache: that part is copied, the rest is read past it"
            )
        }
        (d, _, _) if d == files => "the files are not in the page cache, so the reads go past it".to_string(),
        _ => format!(
            "{direct} of {files} files are read past the page cache ({cached} are cached, {partly} partly, {refusing} take no direct \
             reads, {shifted} have their tensors at offsets that must be shifted)"
        ),
    };
    if unknown > 0 {
        text += &format!("; the system would not tell what is cached of {unknown} files");
    }
    text
}

fn is_cached(file: &FileSignals) -> bool {
    let enough = if file.cached.is_empty() { CACHED_SHARE } else { 1.0 };
    file.resident.is_some_and(|share| share >= enough)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn signals(resident: Option<f32>, direct: bool) -> Signals {
        let file =
            FileSignals { bytes: 1 << 30, resident, cached: vec![], direct, aligned: true, wanted_bytes: 1 << 30 };
        Signals {
            files: vec![file.clone(), file],
            selected_bytes: 2 << 30,
            consumer: Consumer::Whole,
            file_system: "ext4".to_string(),
            network: false,
            uring_refused: None,
            direct_refused: None,
            cpus: 2,
            profile: None,
        }
    }

    #[test]
    fn what_is_gathered_has_fewer_reads_in_flight() {
        let bounds = |workers, depth, most_in_flight, gathers| {
            let strategy = decide(&signals(Some(0.0), true), None);
            Strategy { workers, depth, most_in_flight, ..strategy }.in_flight(gathers)
        };
        assert_eq!([bounds(2, 4, 512, false), bounds(2, 4, 512, true)], [(8, 512), (8, 32)]);
        assert_eq!(bounds(8, 16, 512, true), (32, 32), "a profile may ask for more to begin with");
        assert_eq!(bounds(40, 1, 40, true), (40, 40), "whoever asks for so many workers gets them");
        assert_eq!(bounds(0, 1, 0, true), (1, 1));
    }

    #[test]
    fn cold_files_go_direct_through_the_ring() {
        let strategy = decide(&signals(Some(0.0), true), None);
        assert_eq!((strategy.backend, strategy.direct), (Backend::Uring, vec![true, true]));
        assert!(strategy.reason.contains("not in the page cache"), "{}", strategy.reason);
    }

    #[test]
    fn a_refused_ring_means_threads_and_says_so() {
        let refused = Signals { uring_refused: Some("EPERM".to_string()), ..signals(Some(0.0), true) };
        let strategy = decide(&refused, None);
        assert_eq!(strategy.backend, Backend::Pread);
        assert!(strategy.reason.contains("EPERM"), "{}", strategy.reason);
        assert_eq!(decide(&refused, Some(Backend::Uring)).backend, Backend::Uring, "the caller's choice stands");
    }

    #[test]
    fn cached_files_and_files_without_direct_reads_are_copied_by_threads() {
        for signals in [signals(Some(1.0), true), signals(Some(0.0), false)] {
            let strategy = decide(&signals, None);
            assert_eq!((strategy.backend, strategy.direct), (Backend::Pread, vec![false, false]));
        }
    }

    #[test]
    fn little_is_read_on_the_calling_thread() {
        let little = Signals { selected_bytes: 1000, ..signals(Some(0.0), true) };
        let strategy = decide(&little, None);
        assert_eq!((strategy.workers, strategy.direct), (0, vec![false, false]));
        assert_eq!(decide(&little, Some(Backend::Uring)).direct, [true, true], "what was asked for is done");
        let streamed = Signals { consumer: Consumer::Stream, ..little };
        assert_eq!(decide(&streamed, None).workers, 1, "the caller consumes meanwhile");
    }

    #[test]
    fn what_is_partly_cached_is_read_both_ways() {
        let mut signals = signals(Some(0.95), true);
        signals.files[0].cached = vec![ByteRange::new(0, 1 << 29).expect("forwards")];
        let strategy = decide(&signals, None);
        assert_eq!(
            (strategy.backend, strategy.direct),
            (Backend::Uring, vec![true, false]),
            "the other's part is unknown"
        );
        signals.files[1].cached = signals.files[0].cached.clone();
        let reason = decide(&signals, None).reason;
        assert!(reason.contains("2 of 2 files are partly in the page cache"), "{reason}");
    }

    #[test]
    fn backends_are_shown_by_their_names() {
        let shown = Backend::ALL.map(|backend| format!("{backend:>6}"));
        assert_eq!(shown, [" uring", " pread", "  mmap", " tokio"]);
    }

    #[test]
    fn what_is_asked_for_is_taken_and_said() {
        let strategy = decide(&signals(Some(0.0), true), Some(Backend::Mmap));
        assert_eq!(strategy.backend, Backend::Mmap);
        assert_eq!(strategy.reason, "mmap was asked for; the files are mapped; views of them share the page cache");
    }

    #[test]
    fn little_is_less_than_what_threads_are_worth() {
        let workers =
            |selected_bytes, wanted| decide(&Signals { selected_bytes, ..signals(Some(1.0), true) }, wanted).workers;
        assert_eq!([workers((4 << 20) - 1, None), workers(4 << 20, None)], [0, 2]);
        assert_eq!(workers(1000, Some(Backend::Pread)), 2, "who asks for threads gets them");
    }

    #[test]
    fn reads_are_as_large_and_as_many_as_each_way_of_reading_needs() {
        let sizes = |signals: &Signals, wanted| {
            let strategy = decide(signals, wanted);
            (strategy.chunk_bytes, strategy.depth, strategy.workers)
        };
        let [cold, cached] = [0.0, 1.0].map(|share| Signals { cpus: 3, ..signals(Some(share), true) });
        assert_eq!(sizes(&cold, None), (2 << 20, 4, 3), "a ring a processor");
        assert_eq!(sizes(&cold, Some(Backend::Pread)), (2 << 20, 1, 6), "two threads a processor, as they wait");
        assert_eq!(sizes(&cached, None), (2 << 20, 1, 3), "a thread a processor, as they copy");
        assert_eq!(
            sizes(&Signals { network: true, ..cached.clone() }, None),
            (4 << 20, 1, 16),
            "many that wait for long"
        );
        assert_eq!(
            sizes(&Signals { selected_bytes: 1, ..cached.clone() }, None),
            (4 << 20, 1, 0),
            "the caller's thread"
        );
        assert_eq!(sizes(&Signals { cpus: 100, ..cached.clone() }, None).2, 8);
        assert_eq!(sizes(&Signals { cpus: 0, ..cached }, None).2, 1);
    }

    #[test]
    fn a_file_is_cached_when_nine_tenths_of_it_are() {
        let direct = |share| decide(&signals(Some(share), true), None).direct;
        assert_eq!([direct(0.89), direct(0.9)], [vec![true; 2], vec![false; 2]]);
    }

    #[test]
    fn the_file_system_that_takes_no_direct_reads_is_named() {
        let reason = decide(&signals(Some(0.0), false), None).reason;
        assert!(reason.ends_with("ext4 takes no direct reads, so the reads are buffered"), "{reason}");
    }

    #[test]
    fn files_that_differ_are_counted() {
        let mut mixed = signals(Some(0.0), true);
        let cold = mixed.files[0].clone();
        mixed.files = vec![
            cold.clone(),
            FileSignals { resident: Some(1.0), ..cold.clone() },
            FileSignals { direct: false, ..cold.clone() },
            FileSignals { aligned: false, ..cold.clone() },
            FileSignals { resident: None, ..cold.clone() },
            // Not read, so not counted.
            FileSignals { wanted_bytes: 0, resident: None, direct: false, ..cold.clone() },
            FileSignals { wanted_bytes: 0, ..cold },
        ];
        let reason = decide(&mixed, None).reason;
        let counts = "2 of 5 files are read past the page cache (1 are cached, 0 partly, 1 take no direct reads, \
                      1 have their tensors at offsets that must be shifted); \
                      the system would not tell what is cached of 1 files";
        assert!(reason.ends_with(counts), "{reason}");
        mixed.files.iter_mut().for_each(|file| file.wanted_bytes = 0);
        let reason = decide(&mixed, None).reason;
        assert!(reason.ends_with("there is nothing to read"), "{reason}");
    }

    #[test]
    fn what_is_cached_is_said_to_be_copied() {
        let mut signals = signals(Some(1.0), true);
        // That it could not be read directly either is beside the point.
        signals.direct_refused = Some("the memory is crooked".to_string());
        let reason = decide(&signals, None).reason;
        assert!(reason.ends_with("the files are in the page cache, so they are copied from there"), "{reason}");
        signals.files[0].resident = Some(0.0);
        signals.files[0].aligned = false;
        let reason = decide(&signals, None).reason;
        assert!(
            reason.contains("0 of 2 files are read past the page cache (1 are cached, 0 partly, 0 take no"),
            "{reason}"
        );
    }

    #[test]
    fn tensors_that_must_be_shifted_are_not_said_to_go_past_the_cache() {
        let mut signals = signals(Some(0.0), true);
        signals.files.iter_mut().for_each(|file| file.aligned = false);
        let strategy = decide(&signals, None);
        assert_eq!((strategy.backend, strategy.direct), (Backend::Pread, vec![false, false]));
        assert!(strategy.reason.contains("offsets that their dtypes do not allow"), "{}", strategy.reason);
    }

    #[test]
    fn files_that_are_not_read_are_not_spoken_of() {
        let mut part = signals(Some(0.0), true);
        part.files[1] = FileSignals { wanted_bytes: 0, aligned: false, ..part.files[1].clone() };
        let reason = decide(&part, None).reason;
        assert!(reason.ends_with("the files are not in the page cache, so the reads go past it"), "{reason}");
    }

    #[test]
    fn memory_that_takes_no_direct_reads_is_said_to_be_the_cause() {
        let mut signals = signals(Some(0.0), true);
        signals.files.iter_mut().for_each(|file| file.direct = false);
        signals.direct_refused = Some("the memory is crooked".to_string());
        let strategy = decide(&signals, None);
        assert_eq!(strategy.backend, Backend::Pread);
        assert!(strategy.reason.contains("the memory is crooked, so the reads are buffered"), "{}", strategy.reason);
    }

    #[test]
    fn unknown_residency_is_taken_as_cold_and_said() {
        let strategy = decide(&signals(None, true), None);
        assert_eq!(strategy.direct, vec![true, true]);
        assert!(strategy.reason.contains("would not tell"), "{}", strategy.reason);
    }
}
