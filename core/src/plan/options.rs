//! The options of a planner.

use super::Buffers;
use crate::catalog::TensorInfo;
use crate::units::{Alignment, ByteRange, DirectLimits, FileId};
use alloc::string::String;
use alloc::vec::Vec;

/// The maximum number of gather reads in flight, unless there are more workers.
pub(crate) const MAX_GATHER_READS: usize = 32;

/// The range of read sizes in bytes. Shorter reads show their fixed cost, longer ones would exceed
/// the kernel's limit of 2^31 − 4096.
const CHUNK_RANGE: (u64, u64) = (64 << 10, 1 << 30);

/// The maximum size of all gather reads in flight of an owned load, in addition to its arena.
const MAX_GATHER_BYTES: u64 = 128 << 20;

/// How a load provides tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As copies in an arena that the load owns.
    Copy,
    /// As views of the mapped files.
    ///
    /// Tensors that are misaligned there are copied, including all that need more than page
    /// alignment.
    Map {
        /// Whether the mapped bytes will be made resident, so that they count as memory.
        resident: bool,
    },
    /// As copies in buffers that each hold a part: every [`Extent`](super::Extent) has its own
    /// buffer.
    Stream(Buffers),
}

/// Returns the alignment of a tensor's address: what its dtype needs, and at least `min`.
#[must_use]
pub fn tensor_alignment(tensor: &TensorInfo<'_>, min: Alignment) -> Alignment {
    Alignment::new(tensor.dtype.alignment()).unwrap_or(Alignment::ONE).max(min)
}

/// The memory that a load may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The available memory in bytes.
    pub available: u64,
    /// The source of the number for messages: "free memory", "the limit of cgroup …".
    pub limit: String,
}

/// The options of a [`Planner`](super::Planner).
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// How to provide tensors.
    pub access: Access,
    /// The limits of direct reads by file, or `None` for buffered reads. A missing entry counts as
    /// `None`.
    pub direct: Vec<Option<DirectLimits>>,
    /// The cached ranges by file, ascending and not adjacent.
    ///
    /// Cached parts of direct runs, if they are at least 64 KiB long, are copied from the cache. A
    /// copy is faster than the device. For strided slices this applies to reads that are entirely
    /// cached.
    pub cached: Vec<Vec<ByteRange>>,
    /// The minimum alignment of every tensor's address.
    pub tensor_alignment: Alignment,
    /// The size of a read in bytes. It is rounded up to a power of two from 64 KiB to 1 GiB.
    pub chunk_bytes: u64,
    /// The size of a read by file. A file without an entry uses [`chunk_bytes`](Self::chunk_bytes).
    pub file_chunk_bytes: Vec<u64>,
    /// The maximum gap between selected tensors that is read rather than skipped, in bytes.
    pub max_merge_gap: u64,
    /// The maximum gap between the blocks of a slice that is read rather than skipped, in bytes.
    ///
    /// A device reads about this much in the time of one more request. These bytes are not
    /// retained.
    pub max_read_gap: u64,
    /// The maximum number of gather reads in flight.
    ///
    /// Each has a scratch buffer. Together these take at most about a stream's limit, or the
    /// remaining memory up to 128 MiB.
    pub max_gather_reads: u64,
    /// The available memory, or `None` to plan without a limit.
    ///
    /// A limit that suffices changes only the length of gather reads
    /// ([`max_gather_reads`](Self::max_gather_reads)).
    pub memory: Option<MemoryLimit>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            access: Access::Copy,
            direct: Vec::new(),
            cached: Vec::new(),
            tensor_alignment: Alignment::ONE,
            chunk_bytes: 4 << 20,
            file_chunk_bytes: Vec::new(),
            max_merge_gap: 128 << 10,
            max_read_gap: 128 << 10,
            max_gather_reads: MAX_GATHER_READS as u64,
            memory: None,
        }
    }
}

impl PlanOptions {
    /// Returns the size of a file's reads, a power of two.
    pub(super) fn chunk_bytes_of(&self, file: FileId) -> u64 {
        chunk_bytes(self.file_chunk_bytes.get(file.index()).copied().unwrap_or(self.chunk_bytes))
    }

    /// Returns the size of the shortest reads of any file.
    pub(super) fn shortest_chunk(&self) -> u64 {
        chunk_bytes(self.file_chunk_bytes.iter().copied().min().unwrap_or(self.chunk_bytes))
    }

    /// Returns the maximum size of a gather read.
    ///
    /// Gather buffers use memory on top of a stream's limit or of the `needed` bytes of a load.
    /// Together they should be small beside that and fit in the remaining memory.
    pub(super) fn max_gather_read(&self, needed: u64) -> u64 {
        let reads = self.max_gather_reads.max(1);
        let together = match self.access {
            Access::Stream(Buffers { limit, .. }) => limit,
            _ => {
                let left = self.memory.as_ref().map_or(u64::MAX, |memory| memory.available.saturating_sub(needed));
                left.min(MAX_GATHER_BYTES)
            }
        };
        // A power of two that does not exceed each read's share.
        let max = chunk_bytes((together / reads).checked_ilog2().map_or(0, |log| 1 << log));
        max.min(self.shortest_chunk())
    }
}

/// Rounds a requested read size up to a power of two within the range.
fn chunk_bytes(asked: u64) -> u64 {
    asked.clamp(CHUNK_RANGE.0, CHUNK_RANGE.1).next_power_of_two()
}
