//! Measures a device: its rate by read size and reads in flight, for direct and buffered reads,
//! with rings and threads. Also measures memory.
//!
//! [`measure`] finds bytes to read (`bytes`). It reads them in runs of some milliseconds through
//! the sources that loads use (`reads`). Each round has one run of every combination in a different
//! order, and later only of the fastest (`rounds`). It also measures copies and page faults
//! (`memory`). Every figure is a median with the minimum and the maximum. The cache of a device or
//! of its host cannot be dropped, so repeated reads may come from there.

mod bytes;
pub(crate) mod memory;
mod reads;
mod rounds;

use crate::probe::device::Device;
use crate::probe::profile::{MemoryRates, StoredProfile};
use crate::probe::{FUSE, cpus, file_system, memory_limit, uring_refusal};
use bytes::Bytes;
use floodtide_core::strategy::BestReads;
use floodtide_core::{ErrorKind, Escaped, HumanBytes};
use reads::Scratch;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

/// The measured read sizes in bytes.
pub const CHUNKS: [u64; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// The measured numbers of reads in flight.
pub const DEPTHS: [usize; 7] = [1, 2, 4, 8, 16, 32, 128];
/// The maximum number of bytes in flight.
const MAX_IN_FLIGHT_BYTES: u64 = 64 << 20;
/// The minimum number of bytes in flight, however little memory there is.
const MIN_IN_FLIGHT_BYTES: usize = 1 << 20;

/// The spread from which a figure is reported as unstable.
const MAX_QUIET_SPREAD: f64 = 0.4;

/// Why nothing could be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum ProbeError {
    /// The folder cannot be examined.
    #[error("{}: cannot open the folder: {source}", Escaped(&path.to_string_lossy()))]
    Folder { path: PathBuf, source: io::Error },
    /// The path is not a folder.
    #[error("{}: expected a folder on the device to measure, found something else; pass the checkpoint's folder", Escaped(&path.to_string_lossy()))]
    NotAFolder { path: PathBuf },
    /// The folder is in memory, as on tmpfs.
    #[error("{}: {file_system} is in memory, so there is no device to measure; pass a folder on a disk", Escaped(&path.to_string_lossy()))]
    MemoryFileSystem { path: PathBuf, file_system: String },
    /// There are too few files, and no space for one.
    #[error("{}: expected {} of uncached files, and there is no room for a temporary one: it needs {}, {} available; free space or pass a checkpoint's folder", Escaped(&path.to_string_lossy()), HumanBytes(bytes::TARGET_BYTES), HumanBytes(*needed), HumanBytes(*free))]
    NoSpace { path: PathBuf, needed: u64, free: u64 },
    /// There are too few files, and none can be written.
    #[error("{}: expected {} of uncached files, and a temporary one cannot be written: {source}; pass a checkpoint's folder or a writable one", Escaped(&path.to_string_lossy()), HumanBytes(bytes::TARGET_BYTES))]
    Write { path: PathBuf, source: io::Error },
    /// The system has no memory.
    #[error("cannot map {} of memory for the reads: {source}", HumanBytes(*bytes as u64))]
    NoMemory { bytes: usize, source: io::Error },
}

impl ProbeError {
    /// Returns the kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Folder { source, .. } | Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Io,
            },
            Self::NotAFolder { .. } | Self::MemoryFileSystem { .. } => ErrorKind::InvalidRequest,
            Self::NoSpace { .. } => ErrorKind::Io,
            Self::NoMemory { .. } => ErrorKind::OutOfMemory,
        }
    }

    fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_owned(), source }
    }
}

/// A measured kind of read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadMethod {
    /// Whether io_uring reads, with one ring per processor. If not, there is one thread per read.
    pub ring: bool,
    /// Whether reads are direct. If not, they are buffered and nothing of the file is cached.
    pub direct: bool,
}

impl ReadMethod {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self { ring: true, direct: true },
        Self { ring: false, direct: true },
        Self { ring: true, direct: false },
        Self { ring: false, direct: false },
    ];
}

/// A median in bytes per second, with its samples' range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
    /// The number of samples.
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

    /// Returns the median, rounded down to a whole number.
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a byte does not matter")]
    fn whole_median(self) -> u64 {
        self.median as u64
    }

    /// Returns the range of the samples as a fraction of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

/// The result of one combination.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// The kind of read.
    pub method: ReadMethod,
    /// The size of the reads in bytes.
    pub chunk_bytes: u64,
    /// The number of reads in flight.
    pub in_flight: usize,
    /// The rate.
    pub rate: Rate,
}

/// The result of a measurement.
#[derive(Debug)]
#[non_exhaustive]
pub struct Roofline {
    /// The device, or why it cannot be identified, in which case no profile can be stored.
    pub device: Result<Device, String>,
    /// The name of the file system.
    pub file_system: String,
    /// What was read, in words.
    pub origin: String,
    /// The duration, including finding bytes to read.
    pub elapsed: Duration,
    /// The time of the end, in seconds since 1970.
    pub measured_at: u64,
    /// The measured combinations.
    pub cells: Vec<Cell>,
    /// The kinds that could not be measured, with the reasons.
    pub refused: Vec<(ReadMethod, String)>,
    /// Copies from the page cache to huge pages by all processors.
    pub copy: Option<Rate>,
    /// First touches of new memory with huge pages requested.
    pub fault_huge: Option<Rate>,
    /// First touches of new memory in small pages.
    pub fault_small: Option<Rate>,
    /// The number of processors that took part.
    pub cpus: usize,
    /// Notes on the figures.
    pub notes: Vec<String>,
}

impl Roofline {
    /// Returns the best combination of a kind, of those measured most often, so that one lucky run
    /// does not count.
    #[must_use]
    pub fn best(&self, method: ReadMethod) -> Option<&Cell> {
        let max = self.cells.iter().filter(|cell| cell.method == method).map(|cell| cell.rate.samples).max()?;
        let cells = || self.cells.iter().filter(move |cell| cell.method == method && cell.rate.samples > max / 2);
        let best = BestReads::choose(cells().map(best_reads).collect::<Vec<_>>())?;
        cells().find(|cell| best_reads(cell) == best)
    }

    /// Returns the median over all combinations of the samples' spread.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        let several = self.cells.iter().filter(|cell| cell.rate.samples > 1);
        Rate::of(several.map(|cell| cell.rate.spread()).collect()).map(|rate| rate.median)
    }

    /// Returns the profile to store.
    ///
    /// # Errors
    /// Returns the reason if no profile can be stored.
    pub fn profile(&self) -> Result<StoredProfile, String> {
        let device = self.device.clone()?;
        let reads: Vec<BestReads> =
            ReadMethod::ALL.into_iter().filter_map(|method| self.best(method)).map(best_reads).collect();
        if reads.is_empty() {
            return Err("no reads could be measured".to_owned());
        }
        let rates = || {
            let [copy, fault_huge, fault_small] =
                [self.copy?, self.fault_huge?, self.fault_small?].map(Rate::whole_median);
            Some(MemoryRates { copy, fault_huge, fault_small })
        };
        Ok(StoredProfile { device, measured_at: self.measured_at, reads, memory: rates() })
    }
}

fn best_reads(cell: &Cell) -> BestReads {
    let &Cell { method: ReadMethod { ring, direct }, chunk_bytes, in_flight, rate } = cell;
    BestReads { ring, direct, chunk_bytes, in_flight, bytes_per_second: rate.whole_median().max(1) }
}

/// Measures the device of a folder's files in about `budget`, or up to twice that if writing a
/// temporary file is slow. Calls `on_step` with a description of each
/// step.
///
/// # Errors
/// Fails if there is nothing to read and nothing can be written, or the system has no memory.
pub fn measure(
    folder: &Path,
    checkpoint: Option<Vec<PathBuf>>,
    budget: Duration,
    on_step: impl Fn(&str),
) -> Result<Roofline, ProbeError> {
    let started = Instant::now();
    let bytes = Bytes::find(folder, checkpoint, bytes::TARGET_BYTES, budget / 4, &on_step)?;
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
    // Memory gets the rest of the time.
    let reading = (budget.mul_f64(0.9).saturating_sub(started.elapsed())).max(budget.mul_f64(0.4));
    on_step(&format!("reading for {:.1} s: {}", reading.as_secs_f64(), roofline.origin));
    bytes.drop_cache();
    if let Some(share) = bytes.resident().filter(|&share| share > 0.05 && bytes.buffered_refused.is_none()) {
        let note = "% of a file stayed in the page cache although it was dropped: not all buffered reads are cold";
        roofline.notes.push(format!("{:.0} {note}", share * 100.0));
    }
    rounds::read(&mut roofline, &bytes, &mut scratch, reading);
    on_step("copying and touching memory");
    let copy = memory::copy(&bytes, &mut scratch, cpus);
    bytes.drop_cache();
    roofline.copy = copy.inspect_err(|why| roofline.notes.push(format!("copies were not measured: {why}"))).ok();
    // The pages are freed first, so that there is room for new ones.
    drop((scratch, bytes));
    match memory::fault_rates(cpus) {
        Ok((huge, small)) => (roofline.fault_huge, roofline.fault_small) = (huge, small),
        Err(error) => roofline.notes.push(format!("page faults were not measured: {error}")),
    }
    if let Some(spread) = roofline.spread().filter(|&spread| spread > MAX_QUIET_SPREAD) {
        let note = "of their median apart: another program uses the device or the processors; measure again without it";
        roofline.notes.push(format!("samples of the same combination lie {:.0} % {note}", spread * 100.0));
    }
    roofline.elapsed = started.elapsed();
    roofline.measured_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(roofline)
}

/// Returns the kinds that cannot be measured, with the reasons.
fn refusals(bytes: &Bytes) -> Vec<(ReadMethod, String)> {
    let (name, _) = file_system(bytes.files[0].buffered());
    let ring = uring_refusal()
        .or_else(|| (name == FUSE).then(|| "on FUSE, rings may bring wrong bytes, so loads do without".to_owned()));
    let direct = (!bytes.takes_direct()).then(|| format!("{name} does not support direct reads of these files"));
    let why = |method: ReadMethod| {
        let engine = ring.clone().filter(|_| method.ring);
        let past = direct.clone().filter(|_| method.direct);
        engine.or(past).or_else(|| bytes.buffered_refused.clone().filter(|_| !method.direct))
    };
    ReadMethod::ALL.into_iter().filter_map(|method| Some((method, why(method)?))).collect()
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
