//! Measures a device once: what it gives by the size of reads and how many are in flight, past the page cache and through it, by rings and by
//! threads; and what memory gives.
//!
//! [`measure`] finds bytes to read (`bytes`), reads them in runs of some milliseconds by the sources that loads use (`reads`), one run of
//! every combination a round, in another order each round, and then of the fastest ones only (`rounds`); and measures copies and page faults (`memory`). Every
//! figure is a median with the least and the most beside it. A device's own cache, and its host's, cannot be dropped: what is read
//! again after all the rest may come from there.

mod bytes;
pub(crate) mod memory;
mod reads;
mod rounds;

use crate::probe::device::Device;
use crate::probe::profile::{MemoryRates, StoredProfile};
use crate::probe::{FUSE, cpus, file_system, memory_limit, uring_refusal};
use bytes::Bytes;
use floodtide_core::strategy::BestReads;
use floodtide_core::{Escaped, HumanBytes};
use reads::Scratch;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

/// The sizes of reads that are measured, in bytes.
pub const CHUNKS: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// How many reads in flight are measured.
pub const DEPTHS: [usize; 7] = [1, 2, 4, 8, 16, 32, 128];
/// More bytes than this are never in flight.
const MAX_IN_FLIGHT_BYTES: u64 = 64 << 20;
/// So many are, however little memory there is.
const MIN_IN_FLIGHT_BYTES: usize = 1 << 20;

/// From this spread on, somebody should look.
const MAX_QUIET_SPREAD: f64 = 0.4;

/// Why nothing could be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ProbeError {
    /// The folder cannot be looked at.
    #[error("{}: cannot open the folder: {source}", Escaped(&path.to_string_lossy()))]
    Folder { path: PathBuf, source: io::Error },
    /// Something else than a folder.
    #[error("{}: expected a folder on the device to measure, found something else; name the folder of the checkpoint", Escaped(&path.to_string_lossy()))]
    NotAFolder { path: PathBuf },
    /// tmpfs and the like.
    #[error("{}: {file_system} is memory: there is no device to measure; name a folder on a disk", Escaped(&path.to_string_lossy()))]
    MemoryFileSystem { path: PathBuf, file_system: String },
    /// Not enough files, and no room for one.
    #[error("{}: no files of {} are here that could be read without dropping what is cached of them, and there is no room for one: a temporary file needs {}, but {} are free; make room, or name the folder of a checkpoint", Escaped(&path.to_string_lossy()), HumanBytes(bytes::TARGET_BYTES), HumanBytes(*needed), HumanBytes(*free))]
    NoSpace { path: PathBuf, needed: u64, free: u64 },
    /// Not enough files, and none can be written.
    #[error("{}: no files of {} are here that could be read without dropping what is cached of them, and a temporary one cannot be written: {source}; name the folder of a checkpoint, or one that can be written to", Escaped(&path.to_string_lossy()), HumanBytes(bytes::TARGET_BYTES))]
    Write { path: PathBuf, source: io::Error },
    /// The system gives no memory.
    #[error("cannot map {} of memory for the reads: {source}", HumanBytes(*bytes as u64))]
    NoMemory { bytes: usize, source: io::Error },
}

impl ProbeError {
    fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_owned(), source }
    }
}

/// A way of reading that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// By io_uring, one ring a processor; else by a thread for each read.
    pub ring: bool,
    /// Past the page cache; else through it, with nothing of the file in it.
    pub direct: bool,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 4] = [
        Self { ring: true, direct: true },
        Self { ring: false, direct: true },
        Self { ring: true, direct: false },
        Self { ring: false, direct: false },
    ];
}

/// A median in bytes a second, with what it is the median of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many there were.
    pub samples: usize,
}

impl Rate {
    fn of(mut rates: Vec<f64>) -> Option<Self> {
        rates.sort_by(f64::total_cmp);
        let (min, max) = (*rates.first()?, *rates.last()?);
        let middle = rates.len() / 2;
        let median = if rates.len() % 2 == 1 { rates[middle] } else { (rates[middle - 1] + rates[middle]) / 2.0 };
        Some(Self { median, min, max, samples: rates.len() })
    }

    /// How far the samples lie apart, as a share of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

/// What one combination gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// How it was read.
    pub way: Way,
    /// The size of the reads.
    pub chunk_bytes: u64,
    /// How many were in flight.
    pub in_flight: usize,
    /// The rate.
    pub rate: Rate,
}

/// What was measured.
#[derive(Debug)]
#[non_exhaustive]
pub struct Roofline {
    /// The device, or why it cannot be told from others, so that no profile of it can be kept.
    pub device: Result<Device, String>,
    /// The file system's name.
    pub file_system: String,
    /// What was read, in words.
    pub origin: String,
    /// How long it took, finding bytes included.
    pub elapsed: Duration,
    /// When it ended, in seconds since 1970.
    pub measured_at: u64,
    /// Every combination that was measured.
    pub cells: Vec<Cell>,
    /// The ways that could not be measured, and why.
    pub refused: Vec<(Way, String)>,
    /// Copies from the page cache to huge pages, by all processors.
    pub copy: Option<Rate>,
    /// First touches of fresh memory, huge pages asked for.
    pub fault_huge: Option<Rate>,
    /// First touches of fresh memory in small pages.
    pub fault_small: Option<Rate>,
    /// The processors that took part.
    pub cpus: usize,
    /// What the figures should be read with.
    pub notes: Vec<String>,
}

impl Roofline {
    /// The cell that a load should read by, of those that were measured as often as any: one lucky run is no reason.
    #[must_use]
    pub fn best(&self, way: Way) -> Option<&Cell> {
        let max = self.cells.iter().filter(|cell| cell.way == way).map(|cell| cell.rate.samples).max()?;
        let cells = || self.cells.iter().filter(move |cell| cell.way == way && cell.rate.samples > max / 2);
        let best = BestReads::choose(cells().map(best_reads).collect::<Vec<_>>())?;
        cells().find(|cell| best_reads(cell) == best)
    }

    /// How far the samples of a combination lie apart, as a share of their median: the median of all combinations.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        let several = self.cells.iter().filter(|cell| cell.rate.samples > 1);
        Rate::of(several.map(|cell| cell.rate.spread()).collect()).map(|rate| rate.median)
    }

    /// What is worth keeping of it.
    ///
    /// # Errors
    /// Why nothing can be kept.
    pub fn profile(&self) -> Result<StoredProfile, String> {
        let device = self.device.clone()?;
        let reads: Vec<BestReads> = Way::ALL.into_iter().filter_map(|way| self.best(way)).map(best_reads).collect();
        if reads.is_empty() {
            return Err("no reads could be measured".to_owned());
        }
        let rates = || {
            let [copy, fault_huge, fault_small] =
                [self.copy?, self.fault_huge?, self.fault_small?].map(|r| r.median as u64);
            Some(MemoryRates { copy, fault_huge, fault_small })
        };
        Ok(StoredProfile { device, measured_at: self.measured_at, reads, memory: rates() })
    }
}

fn best_reads(cell: &Cell) -> BestReads {
    let &Cell { way: Way { ring, direct }, chunk_bytes, in_flight, rate } = cell;
    BestReads { ring, direct, chunk_bytes, in_flight, bytes_per_second: (rate.median as u64).max(1) }
}

/// Measures the device that a folder's files lie on, in about `budget`; where writing a temporary file takes long, in up to twice that. `told` is
/// called with what is being done.
///
/// # Errors
/// When there is nothing to read and nothing can be written, or the system gives no memory.
pub fn measure(
    folder: &Path,
    checkpoint: Option<Vec<PathBuf>>,
    budget: Duration,
    told: impl Fn(&str),
) -> Result<Roofline, ProbeError> {
    let started = Instant::now();
    let bytes = Bytes::find(folder, checkpoint, bytes::TARGET_BYTES, budget / 4, &told)?;
    let read = bytes.files[0].buffered();
    let memory = usize::try_from(MAX_IN_FLIGHT_BYTES.min(memory_limit().available / 4)).unwrap_or(usize::MAX);
    let memory = memory.max(MIN_IN_FLIGHT_BYTES);
    let mut scratch = Scratch::new(memory).map_err(|source| ProbeError::NoMemory { bytes: memory, source })?;
    let cpus = cpus();
    let mut roofline = Roofline {
        device: Device::of(read).map_err(|error| error.to_string()),
        file_system: file_system(read).0,
        origin: bytes.origin.clone(),
        elapsed: Duration::ZERO,
        measured_at: 0,
        cells: Vec::new(),
        refused: refusals(&bytes),
        copy: None,
        fault_huge: None,
        fault_small: None,
        cpus,
        notes: Vec::new(),
    };
    // Memory takes what is left.
    let reading = (budget.mul_f64(0.9).saturating_sub(started.elapsed())).max(budget.mul_f64(0.4));
    told(&format!("reading for {:.1} s: {}", reading.as_secs_f64(), roofline.origin));
    bytes.drop_cache();
    if let Some(share) = bytes.resident().filter(|&share| share > 0.05 && bytes.buffered_refused.is_none()) {
        let note = "% of a file stayed in the page cache although it was told to go: buffered reads are not all cold";
        roofline.notes.push(format!("{:.0} {note}", share * 100.0));
    }
    rounds::read(&mut roofline, &bytes, &mut scratch, reading);
    told("copying and touching memory");
    let copy = memory::copy(&bytes, &mut scratch, cpus);
    bytes.drop_cache();
    roofline.copy = copy.inspect_err(|why| roofline.notes.push(format!("copies were not measured: {why}"))).ok();
    // The pages are given back first, so that there is room for the fresh ones.
    drop((scratch, bytes));
    match memory::fault_rates(cpus) {
        Ok((huge, small)) => (roofline.fault_huge, roofline.fault_small) = (huge, small),
        Err(error) => roofline.notes.push(format!("page faults were not measured: {error}")),
    }
    if let Some(spread) = roofline.spread().filter(|&spread| spread > MAX_QUIET_SPREAD) {
        let note =
            "of their median apart: something else uses the device or the processors; measure again when it does not";
        roofline.notes.push(format!("samples of the same combination lie {:.0} % {note}", spread * 100.0));
    }
    roofline.elapsed = started.elapsed();
    roofline.measured_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(roofline)
}

/// The ways that are out of the question, and why.
fn refusals(bytes: &Bytes) -> Vec<(Way, String)> {
    let (name, _) = file_system(bytes.files[0].buffered());
    let ring = uring_refusal()
        .or_else(|| (name == FUSE).then(|| "on FUSE, rings may bring wrong bytes, so loads do without".to_owned()));
    let direct = (!bytes.takes_direct()).then(|| format!("{name} takes no direct reads of these files"));
    let why = |way: Way| {
        let engine = ring.clone().filter(|_| way.ring);
        let past = direct.clone().filter(|_| way.direct);
        engine.or(past).or_else(|| bytes.buffered_refused.clone().filter(|_| !way.direct))
    };
    Way::ALL.into_iter().filter_map(|way| Some((way, why(way)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_its_spread() {
        let rate = Rate::of(vec![3.0, 1.0, 2.0]).expect("some");
        assert_eq!((rate.median, rate.min, rate.max, rate.samples), (2.0, 1.0, 3.0, 3));
        assert_eq!(rate.spread(), 1.0);
        assert_eq!(Rate::of(vec![1.0, 2.0]).expect("some").median, 1.5);
        assert_eq!(Rate::of(vec![]), None);
    }

    #[test]
    fn fresh_memory_is_touched_with_huge_pages_and_without() {
        for huge in [true, false] {
            let rate = memory::fault(huge, 8 << 20, 3, 2).expect("maps").expect("samples");
            assert!(rate.median > 1e6, "{rate:?}");
        }
    }
}
