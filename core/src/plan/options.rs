//! What a planner is told.

use super::{Buffers, chunks};
use crate::catalog::TensorInfo;
use crate::units::{Alignment, ByteRange, DirectLimits, FileId};
use alloc::string::String;
use alloc::vec::Vec;

/// Of a plan that gathers no more reads are in flight than these, or one a worker.
pub(crate) const MAX_GATHER_READS: usize = 32;

/// How tensors are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Copied into an arena that the load owns.
    Copy,
    /// As views of the mapped files; only tensors that would not be aligned there are copied, among them all that are to be aligned to more
    /// than a page.
    Map {
        /// Whether the mapped bytes will be made resident, so that they count as memory.
        resident: bool,
    },
    /// Copied into buffers that each hold a part, one after another: every [`Extent`] has a buffer of its own.
    Stream(Buffers),
}

/// What a tensor's address is aligned to: as its dtype needs, and at least to `min`.
#[must_use]
pub fn tensor_alignment(tensor: &TensorInfo<'_>, min: Alignment) -> Alignment {
    Alignment::new(tensor.dtype.alignment()).unwrap_or(Alignment::ONE).max(min)
}

/// How much memory a load may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// In bytes.
    pub available: u64,
    /// Where the number comes from, for the message: "free memory", "the limit of cgroup …".
    pub limit: String,
}

/// What the planner is told beside the catalog and the selection.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Copy or map.
    pub access: Access,
    /// How each file may be read directly, by [`FileId`]; `None` (or no entry) is never.
    pub direct: Vec<Option<DirectLimits>>,
    /// By file, what of it is in the page cache: ascending, and none touching the next. Of what would be read directly, what is there (64 KiB at least in
    /// one piece) is read through the cache instead: a copy is faster than the device, and the device has less to do. Of a strided slice
    /// that is so for reads whose bytes are all there.
    pub cached: Vec<Vec<ByteRange>>,
    /// What every tensor's address is at least aligned to, beside its dtype's own alignment.
    pub tensor_alignment: Alignment,
    /// The size of a read in bytes; rounded up to a power of two of at least 64 KiB and cut to 1 GiB.
    pub chunk_bytes: u64,
    /// The same by file, where files differ; a file without an entry has [`chunk_bytes`](Self::chunk_bytes).
    pub file_chunk_bytes: Vec<u64>,
    /// The widest gap between selected tensors that is read rather than skipped, in bytes.
    pub max_merge_gap: u64,
    /// The widest gap between the blocks of a slice that is read along with them rather than skipped, in bytes: what a device brings in the
    /// time that one more request takes. What is read along takes no memory that stays.
    pub max_read_gap: u64,
    /// How many reads that slices are gathered from may be in flight, each of which has a scratch
    /// buffer: all of them together take about a stream's limit, or what memory is left, up to 128
    /// MiB.
    pub max_gather_reads: u64,
    /// The memory there is; `None` plans without looking. A plan that fits differs from one without a limit in nothing but the length of
    /// reads that slices are gathered from ([`max_gather_reads`](Self::max_gather_reads)).
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
    /// The size of a read of a file, as a power of two.
    pub(super) fn chunk_bytes_of(&self, file: FileId) -> u64 {
        chunks::chunk_bytes(self.file_chunk_bytes.get(file.index()).copied().unwrap_or(self.chunk_bytes))
    }

    /// The size of the shortest reads of any file.
    pub(super) fn shortest_chunk(&self) -> u64 {
        chunks::chunk_bytes(self.file_chunk_bytes.iter().copied().min().unwrap_or(self.chunk_bytes))
    }
}
