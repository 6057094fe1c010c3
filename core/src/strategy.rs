//! Chooses how to load from what was measured, and says why in words.
//!
//! A pure function of [`Signals`]. To add a backend, add it to [`Backend`] and to [`decide`]. What a measured device changes is in
//! `profile`, what the reason says of the files in `files`.

mod decision;
mod files;
mod profile;

pub use decision::Decision;
pub use profile::{BestReads, Profile};

use crate::units::ByteRange;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
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
    /// Where, if it is a part of the file and the system says which: ascending, and none touching the next.
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
    /// Whether the threads that read also hold what they read against checksums.
    pub verified: bool,
    /// The file system's name, when it is known.
    pub file_system: String,
    /// Whether the file system is on another machine.
    pub network: bool,
    /// Why io_uring cannot be used, if so.
    pub uring_refused: Option<String>,
    /// Why direct reads cannot be used although files take them, if so.
    pub direct_refused: Option<String>,
    /// Whether the caller wants the files in the page cache afterwards, for others that will load them.
    pub leave_cached: bool,
    /// The bytes of memory that can be had, what the page cache would give up included.
    pub memory: u64,
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
    /// The bytes per second that direct reads brought when the device was measured, for a [`Detour`](crate::detour::Detour); `None` where it
    /// was not, or none are to be made, or the reads are to be these and no others, or where not the device may set the pace, but a
    /// consumer, checksums, or copies from the page cache.
    pub expected: Option<u64>,
    /// Whether buffered reads leave nothing in the page cache that was not there (`RWF_DONTCACHE`), as it could not hold it.
    pub uncached: bool,
    /// Whether the tensors' own memory is asked for in huge pages.
    pub huge_pages: bool,
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

/// From so many bytes on memory is asked for in huge pages: zeroing one for less takes longer than its page faults.
pub const HUGE_PAGES_FROM: u64 = 512 << 10;

/// Below this, starting a thread or a ring, and asking the system about either, costs more than it brings.
const SMALL_BYTES: u64 = 4 << 20;
/// From this share on a file counts as cached, where nothing tells which part of it is not.
const CACHED_SHARE: f32 = 0.9;
const MAX_WORKERS: usize = 8;
/// 1 GiB of reads of 2 MiB: what 50 GB/s and 20 ms ask for.
const MAX_IN_FLIGHT: usize = 512;
const MAX_THREADS: usize = 64;
/// Of a plan that gathers no more reads are in flight than these, or one a worker.
pub(crate) const MOST_GATHERED: usize = 32;

/// Whether so little is wanted that it is read through the page cache without threads, whatever the system allows: nothing but the
/// files' lengths and `selected_bytes` need be measured then.
#[must_use]
pub fn is_small(selected_bytes: u64, wanted: Option<Backend>) -> bool {
    selected_bytes < SMALL_BYTES && wanted.is_none()
}

/// Decides. `wanted` is the caller's choice of backend, `None` to choose here; a wanted backend is taken as given.
#[must_use]
pub fn decide(signals: &Signals, wanted: Option<Backend>) -> Strategy {
    let signals = &*without_direct(signals);
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
        _ => reasons.push(files::explain(signals, &direct)),
    }
    let uncached = backend != Backend::Mmap && !small && !signals.leave_cached && floods_the_cache(signals, &direct);
    if uncached {
        reasons.push("the page cache has no room for them, so what is read is not left there".to_string());
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
    let huge_pages = backend != Backend::Mmap && signals.selected_bytes >= HUGE_PAGES_FROM;
    let mut strategy = Strategy {
        backend,
        direct,
        chunk_bytes,
        depth,
        most_in_flight,
        expected: None,
        uncached,
        huge_pages,
        workers,
        reason: reasons.join("; "),
    };
    profile::adjust(&mut strategy, signals);
    if wanted == Some(Backend::Uring) {
        // Whoever wants the ring wants the direct reads that it is for.
        strategy.expected = None;
    }
    if strategy.expected.is_some() && !signals.leave_cached {
        // Should they be given up, what is read in their place.
        strategy.uncached |= floods_the_cache(signals, &vec![false; signals.files.len()]);
    }
    strategy
}

/// The signals as they are, or, where the files are to stay in the page cache, as if none took direct reads.
fn without_direct(signals: &Signals) -> Cow<'_, Signals> {
    if !signals.leave_cached {
        return Cow::Borrowed(signals);
    }
    let mut signals = signals.clone();
    signals.files.iter_mut().for_each(|file| file.direct = false);
    signals.direct_refused = Some("the files are to stay in the page cache".to_string());
    Cow::Owned(signals)
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

/// Whether what is read through the page cache is more than the memory beside the tensors: it would push out the files of others, and in
/// the end itself.
fn floods_the_cache(signals: &Signals, direct: &[bool]) -> bool {
    let through = signals.files.iter().zip(direct).filter(|(file, direct)| !**direct && !is_cached(file));
    let through = through.fold(0_u64, |sum, (file, _)| sum.saturating_add(file.wanted_bytes));
    let tensors = if signals.consumer == Consumer::Whole { signals.selected_bytes } else { 0 };
    through > signals.memory.saturating_sub(tensors)
}

fn is_cached(file: &FileSignals) -> bool {
    let enough = if file.cached.is_empty() { CACHED_SHARE } else { 1.0 };
    file.resident.is_some_and(|share| share >= enough)
}

#[cfg(test)]
mod tests;
