//! Chooses how to load from measured signals, and gives the reasons in words.
//!
//! The choice is a pure function of [`Signals`]. Files on one device share a [`Route`]. `route`
//! decides it from the signals of that device alone. `profile` applies the measured profile of a
//! device. `files` explains the decisions per file.

mod decision;
mod demand;
mod files;
mod group;
mod profile;
mod route;

pub use crate::backend::Backend;
pub use crate::profile::{BestReads, Profile};
pub use decision::Decision;
pub use demand::{Demand, FileDemand};

use crate::backend::ReadStyle;
use crate::plan::MAX_GATHER_READS;
use crate::storage::DeviceSignals;
use crate::units::{ByteRange, FileId, RouteId};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use group::Group;

/// The signals of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSignals {
    /// The length in bytes.
    pub bytes: u64,
    /// The fraction in the page cache, 0 to 1, or `None` if unknown.
    pub resident: Option<f32>,
    /// The cached ranges, ascending and not adjacent. Known only for a partly cached file.
    pub cached: Vec<ByteRange>,
    /// Whether the file supports direct reads.
    pub direct: bool,
    /// Whether any selected tensor is aligned in the file as it must be in memory. If none is, all
    /// must be shifted, which only reads through the page cache can do.
    pub aligned: bool,
    /// The number of selected bytes. A file without any is not read.
    pub selected_bytes: u64,
    /// The index of the file's device.
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

/// Who consumes the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Consumer {
    /// A caller that waits for all tensors.
    #[default]
    Whole,
    /// A caller that takes one tensor after another. Other threads must read meanwhile.
    Stream,
}

/// A device, and the ways in which its storage can read.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// The signals that the storage reports.
    pub signals: DeviceSignals,
    /// The backends of the storage, at least one.
    pub backends: Vec<Backend>,
    /// The backend that the caller chose, or `None` to choose one here.
    pub requested: Option<Backend>,
}

/// Everything that is measured before a load.
#[derive(Debug, Clone, PartialEq)]
pub struct Signals {
    /// The files.
    pub files: Vec<FileSignals>,
    /// The devices that hold the files.
    pub devices: Vec<Device>,
    /// The number of selected bytes in all files.
    pub selected_bytes: u64,
    /// Who consumes them.
    pub consumer: Consumer,
    /// Whether the reading threads also verify checksums.
    pub verified: bool,
    /// Why direct reads are ruled out although files support them, if they are.
    pub direct_refused: Option<String>,
    /// Whether to leave the files in the page cache for later loads.
    pub populate_page_cache: bool,
    /// The available memory in bytes, including what the page cache would free.
    pub memory: u64,
    /// The number of processors that this process may use.
    pub cpus: usize,
}

/// How the files of one device are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The backend.
    pub backend: Backend,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The initial number of reads in flight per worker.
    pub depth: usize,
    /// The maximum number of reads in flight of all workers together, for a
    /// [`Tuner`](crate::tune::Tuner).
    ///
    /// It equals `workers` times `depth` if nothing is tuned.
    pub max_in_flight: usize,
    /// The rate of direct reads in the device's profile, in bytes per second, for a
    /// [`DirectIoFallback`](crate::direct_io_fallback::DirectIoFallback).
    ///
    /// `None` disables the fallback:
    /// - without a profile or without direct reads;
    /// - if the caller chose a ring or the number of workers;
    /// - if a consumer, checksums or copies from the page cache may be slower than the device.
    pub profiled_direct_rate: Option<u64>,
    /// Whether buffered reads use `RWF_DONTCACHE`, because the page cache has no room for the
    /// files.
    pub dont_cache: bool,
    /// The number of rings or threads. With 0 the calling thread does all the work.
    pub workers: usize,
}

impl Route {
    /// Returns the number of reads that each worker's source must be able to hold.
    #[must_use]
    pub fn source_capacity(&self) -> usize {
        self.depth.max(self.max_in_flight.div_ceil(self.workers.max(1)))
    }

    /// Returns the initial and the maximum number of reads in flight.
    ///
    /// `gathers` says whether the plan gathers slices. Each such read needs a buffer on top of the
    /// planned memory, and a stream's plan counts on a limited number of them.
    #[must_use]
    pub fn in_flight(&self, gathers: bool) -> (usize, usize) {
        let workers = self.workers.max(1);
        let start = workers.saturating_mul(self.depth.max(1));
        let bound = if gathers { MAX_GATHER_READS.max(workers) } else { usize::MAX };
        (start.min(bound), self.max_in_flight.max(start).min(bound))
    }

    /// Sets the number of threads or rings, whatever was measured.
    pub fn set_workers(&mut self, workers: usize) {
        // The caller's number may be too small to reach the measured rate.
        self.profiled_direct_rate = None;
        match self.backend.style() {
            ReadStyle::Tasks => {
                // One worker hands out all reads.
                (self.workers, self.depth, self.max_in_flight) = (1, workers, workers);
            }
            ReadStyle::Queue => self.workers = workers,
            // Each worker has one read in flight.
            ReadStyle::Blocking | ReadStyle::Mapped => (self.workers, self.max_in_flight) = (workers, workers),
        }
    }

    /// Returns true if each worker keeps many reads in flight.
    #[must_use]
    pub fn queues(&self) -> bool {
        matches!(self.backend.style(), ReadStyle::Queue | ReadStyle::Tasks)
    }
}

/// How a load is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// The routes, one per device, at least one.
    pub routes: Vec<Route>,
    /// The route, by file.
    pub route_of: Vec<RouteId>,
    /// Whether reads are direct, by file.
    pub direct: Vec<bool>,
    /// Whether to request huge pages for the tensors' memory.
    pub huge_pages: bool,
    /// The decisions, each with its reason.
    pub decisions: Vec<Decision>,
}

impl Strategy {
    /// Returns the route of a file.
    #[must_use]
    pub fn route(&self, file: FileId) -> &Route {
        &self.routes[self.route_of[file.index()].index()]
    }

    /// Returns the route that reads the most files.
    ///
    /// # Panics
    /// Panics if there is no route.
    #[must_use]
    pub fn main_route(&self) -> &Route {
        let files = |route: usize| self.route_of.iter().filter(|of| of.index() == route).count();
        // Of equals, take the first.
        let main = (0..self.routes.len()).rev().max_by_key(|&route| files(route));
        &self.routes[main.expect("a strategy has a route")]
    }

    /// Returns true if the calling thread does all the work.
    #[must_use]
    pub fn runs_inline(&self) -> bool {
        self.routes.iter().all(|route| route.workers == 0)
    }

    /// Returns the decisions as one line.
    #[must_use]
    pub fn reason(&self) -> String {
        Decision::join(&self.decisions)
    }
}

/// The minimum size for huge pages, in bytes. Below it, zeroing a huge page takes longer than the
/// page faults of small ones.
pub const HUGE_PAGES_FROM: u64 = 512 << 10;

/// Below this size, starting a thread or a ring, or measuring for one, costs more than it gains.
const SMALL_BYTES: u64 = 4 << 20;
/// The cached fraction from which a file counts as cached, if the cached ranges are unknown.
const CACHED_SHARE: f32 = 0.9;
const MAX_WORKERS: usize = 8;
/// The maximum number of reads in flight: 1 GiB in reads of 2 MiB, enough for 50 GB/s at 20 ms.
const MAX_IN_FLIGHT: usize = 512;
const MAX_THREADS: usize = 64;

/// Returns true if a load is small enough to be read through the page cache without threads.
///
/// Nothing but the files' lengths and `selected_bytes` needs to be measured then.
#[must_use]
pub fn is_small(selected_bytes: u64, requested_backend: Option<Backend>) -> bool {
    selected_bytes < SMALL_BYTES && requested_backend.is_none()
}

/// Decides how to read the files of each device.
///
/// # Panics
/// Panics if a file names a device that does not exist, or a device has no backend.
#[must_use]
pub fn decide(signals: &Signals) -> Strategy {
    let mut strategy = Strategy {
        routes: Vec::with_capacity(signals.devices.len()),
        route_of: signals.files.iter().map(|file| RouteId::from_index(file.device)).collect(),
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
        let id = RouteId::from_index(strategy.routes.len());
        strategy.routes.push(route);
        strategy.decisions.extend(decisions.into_iter().map(|decision| decision.of_route(id)));
    }
    strategy
}

#[cfg(test)]
mod tests;
