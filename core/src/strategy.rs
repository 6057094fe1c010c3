//! Chooses how to load from what was measured, and says why in words.
//!
//! A pure function of [`Signals`]. Files on one device share a [`Route`], which is decided from that device's signals alone, in
//! `route`. What a measured device changes is in `profile`, what the decisions say of the files in `files`.

mod decision;
mod demand;
mod files;
mod profile;
mod route;

pub use crate::backend::Backend;
pub use crate::profile::{BestReads, Profile};
pub use decision::Decision;
pub use demand::{Demand, FileDemand};

use crate::backend::ReadStyle;
use crate::plan::MAX_GATHER_READS;
use crate::storage::DeviceSignals;
use crate::units::{ByteRange, FileId};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use route::Group;

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
    /// Whether any selected tensor lies in the file as it must in memory. Where none does, all have
    /// to be shifted, which only reads through the page cache can do.
    pub aligned: bool,
    /// How many of its bytes are selected; a file of which none are is not read.
    pub selected_bytes: u64,
    /// The index of its device.
    pub device: usize,
}

impl FileSignals {
    fn takes_direct_reads(&self) -> bool {
        self.direct && self.aligned && !self.is_cached()
    }

    fn is_cached(&self) -> bool {
        let enough = if self.cached.is_empty() { CACHED_SHARE } else { 1.0 };
        self.resident.is_some_and(|share| share >= enough)
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

/// A device that files are on, and how its storage can read them.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// What the storage reports.
    pub signals: DeviceSignals,
    /// The storage's ways of reading, at least one.
    pub backends: Vec<Backend>,
    /// The caller's choice among them; `None` to choose here.
    pub requested: Option<Backend>,
}

/// What was measured before a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Signals {
    /// Each file.
    pub files: Vec<FileSignals>,
    /// Each device that a file is on.
    pub devices: Vec<Device>,
    /// The bytes that are selected.
    pub selected_bytes: u64,
    /// Who wants them.
    pub consumer: Consumer,
    /// Whether the threads that read also hold what they read against checksums.
    pub verified: bool,
    /// Why direct reads cannot be used although files take them, if so.
    pub direct_refused: Option<String>,
    /// Whether the caller wants the files in the page cache afterwards, for others that will load them.
    pub populate_page_cache: bool,
    /// The bytes of memory that can be had, what the page cache would give up included.
    pub memory: u64,
    /// The processors this process may run on.
    pub cpus: usize,
}

/// How the files of one device are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What reads.
    pub backend: Backend,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The reads in flight per worker, to begin with.
    pub depth: usize,
    /// The reads in flight of all workers together that a [`Tuner`](crate::tune::Tuner) may go up to; `workers` times `depth` where nothing
    /// is to be tuned.
    pub max_in_flight: usize,
    /// The bytes per second that direct reads brought when the device was measured, for a
    /// [`DirectIoFallback`](crate::direct_io_fallback::DirectIoFallback); `None` where it was not,
    /// or none are to be made, or the reads are to be these and no others, or where not the device
    /// may set the pace, but a consumer, checksums, or copies from the page cache.
    pub profiled_direct_rate: Option<u64>,
    /// Whether buffered reads leave nothing in the page cache that was not there (`RWF_DONTCACHE`), as it could not hold it.
    pub dont_cache: bool,
    /// Rings or threads; 0 means that the caller's own thread does it all.
    pub workers: usize,
}

impl Route {
    /// How many reads each worker's source must be able to hold.
    #[must_use]
    pub fn source_capacity(&self) -> usize {
        self.depth.max(self.max_in_flight.div_ceil(self.workers.max(1)))
    }

    /// How many reads are in flight to begin with, and at most. `gathers`: whether the plan has reads that slices are gathered from, each of
    /// which has a buffer on top of the memory that was planned; a stream's plan counts on so few.
    #[must_use]
    pub fn in_flight(&self, gathers: bool) -> (usize, usize) {
        let workers = self.workers.max(1);
        let start = workers.saturating_mul(self.depth.max(1));
        let bound = if gathers { MAX_GATHER_READS.max(workers) } else { usize::MAX };
        (start.min(bound), self.max_in_flight.max(start).min(bound))
    }

    /// Works with that many threads or rings, whatever was measured.
    pub fn set_workers(&mut self, workers: usize) {
        // So many may be fewer than the device asks for.
        self.profiled_direct_rate = None;
        match self.backend.style() {
            ReadStyle::Tasks => {
                // One worker hands out all reads.
                (self.workers, self.depth, self.max_in_flight) = (1, workers, workers);
            }
            ReadStyle::Queue => self.workers = workers,
            // Each reads one thing at a time, and there are to be no more.
            ReadStyle::Blocking | ReadStyle::Mapped => (self.workers, self.max_in_flight) = (workers, workers),
        }
    }

    /// Whether each worker keeps many reads in flight by itself.
    #[must_use]
    pub fn queues(&self) -> bool {
        matches!(self.backend.style(), ReadStyle::Queue | ReadStyle::Tasks)
    }
}

/// How a load is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// The routes: one for each device, at least one.
    pub routes: Vec<Route>,
    /// By file: the index of its route.
    pub route_of: Vec<usize>,
    /// By file: past the page cache or through it.
    pub direct: Vec<bool>,
    /// Whether the tensors' own memory is asked for in huge pages.
    pub huge_pages: bool,
    /// What was decided, and why.
    pub decisions: Vec<Decision>,
}

impl Strategy {
    /// The route of a file.
    #[must_use]
    pub fn route(&self, file: FileId) -> &Route {
        &self.routes[self.route_of[file.index()]]
    }

    /// The route that reads the most files.
    ///
    /// # Panics
    /// When there is no route.
    #[must_use]
    pub fn main_route(&self) -> &Route {
        let files = |route: usize| self.route_of.iter().filter(|&&of| of == route).count();
        // The first of those that are alike.
        let main = (0..self.routes.len()).rev().max_by_key(|&route| files(route));
        &self.routes[main.expect("a strategy has a route")]
    }

    /// Whether the caller's own thread does it all.
    #[must_use]
    pub fn runs_inline(&self) -> bool {
        self.routes.iter().all(|route| route.workers == 0)
    }

    /// The decisions in one line.
    #[must_use]
    pub fn reason(&self) -> String {
        Decision::join(&self.decisions)
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

/// Whether so little is selected that it is read through the page cache without threads, whatever
/// the system allows: nothing but the files' lengths and `selected_bytes` need be measured then.
#[must_use]
pub fn is_small(selected_bytes: u64, requested_backend: Option<Backend>) -> bool {
    selected_bytes < SMALL_BYTES && requested_backend.is_none()
}

/// Decides how each device's files are read.
///
/// # Panics
/// When a file names a device that is not there, or a device has no backend.
#[must_use]
pub fn decide(signals: &Signals) -> Strategy {
    let mut strategy = Strategy {
        routes: Vec::with_capacity(signals.devices.len()),
        route_of: signals.files.iter().map(|file| file.device).collect(),
        direct: vec![false; signals.files.len()],
        huge_pages: false,
        decisions: Vec::new(),
    };
    for (device, of) in signals.devices.iter().enumerate() {
        let files: Vec<usize> = (0..signals.files.len()).filter(|&file| signals.files[file].device == device).collect();
        let (route, direct, decisions) = Group::new(signals, of, &files).decide();
        for (file, direct) in files.into_iter().zip(direct) {
            strategy.direct[file] = direct;
        }
        strategy.huge_pages |= !route.backend.is_mapped() && signals.selected_bytes >= HUGE_PAGES_FROM;
        strategy.routes.push(route);
        for decision in decisions {
            if !strategy.decisions.contains(&decision) {
                strategy.decisions.push(decision);
            }
        }
    }
    strategy
}

#[cfg(test)]
mod tests;
