//! The plan of a load: every read and the final place of every byte, fixed before the first read.
//!
//! - [`planner`] runs the steps and refuses a plan that does not fit.
//! - [`ties`] finds the tensors that are the same bytes.
//! - [`extents`] groups the selected tensors into runs of file bytes, and places each in the arena.
//! - [`chunks`] cuts the runs into reads, and orders the reads over all files.
//! - [`buffers`] adds the buffers of a stream.
//! - [`gather`] adds the slices whose bytes lie in the file in blocks.
//!
//! An arena's base is aligned to a huge page. A run that is read directly is placed at an address
//! congruent to its file offset, modulo the direct-I/O alignment and the tensors' alignment, so
//! that a direct read lands at the final address. A tensor whose file offset lacks the requested
//! alignment starts a run of its own. That run is shifted to an aligned address and read through
//! the page cache, which takes any address. Only such tensors pay.

mod buffers;
mod chunks;
mod extents;
mod gather;
mod options;
mod planner;
mod ties;

pub use buffers::{Buffers, Order, PlacedPart};
pub use gather::Gather;
pub(crate) use options::MAX_GATHER_READS;
pub use options::{Access, MemoryLimit, PlanOptions, tensor_alignment};
pub use planner::Planner;

use crate::catalog::{Catalog, TensorInfo};
use crate::strided_range::StridedRange;
use crate::tensor_slice::Slice;
use crate::units::{Alignment, ByteRange, ExtentId, FileId, TensorId};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;

/// How a run of bytes is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By direct I/O (`O_DIRECT`).
    Direct,
    /// Through the page cache.
    Buffered,
}

/// How the blocks of a strided extent are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// One read per block.
    PerBlock,
    /// One read for several blocks and the gaps between them.
    Spanning,
}

/// A run of file bytes that is contiguous in the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The file.
    pub file: FileId,
    /// The file range from the first selected byte to the last.
    pub range: ByteRange,
    /// The blocks of a strided slice: all of them, even if the slice is divided into several
    /// extents.
    pub strided: Option<StridedRange>,
    /// How its blocks are read, if it is strided.
    pub read_mode: ReadMode,
    /// How it is read.
    pub method: Method,
    /// The offset of the range's first byte in the arena, or in the extent's own buffer.
    pub buffer_offset: usize,
    /// The size of its own buffer, or 0 if all extents share one arena.
    pub buffer_bytes: usize,
    /// The alignment of its reads, one byte for buffered reads.
    pub alignment: Alignment,
    /// The placements that it contains.
    pub tensors: Range<usize>,
}

/// A part of an extent. One read fills it unless it is interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The extent that it belongs to.
    pub extent: ExtentId,
    /// The file.
    pub file: FileId,
    /// The offset of its first byte in the file, aligned for a direct read.
    pub offset: u64,
    /// The number of bytes that must arrive.
    pub payload_len: usize,
    /// Its range of the arena or of the extent's own buffer: at least `payload_len` bytes, rounded
    /// up to the alignment. If it is [gathered](Self::gathered), the range of its scratch buffer,
    /// from 0.
    pub buffer_range: Range<usize>,
    /// Whether it is read to a scratch buffer and copied as [`Plan::gather`] says. The address of
    /// that buffer has its [`alignment`](Self::alignment).
    pub gathered: bool,
    /// The number of bytes at its start that alignment added. They belong to no extent or to an
    /// earlier chunk.
    pub align_prefix: u32,
    /// How it is read.
    pub method: Method,
    /// The alignment of a resumed direct read.
    pub alignment: Alignment,
    /// The placements with bytes in it.
    pub tensors: Range<usize>,
}

/// The location of a tensor's bytes after the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the arena, at this offset.
    Arena(usize),
    /// In the mapping of its file, at its file offset.
    Mapped,
    /// In the buffers of the extents that contain its parts: see [`Plan::parts`].
    Streamed,
}

/// A selected tensor and its location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The tensor.
    pub tensor: TensorId,
    /// The file range from the first selected byte to the last.
    pub range: ByteRange,
    /// The location.
    pub location: Location,
    /// The number of its slice in the plan, from 1.
    slice: Option<NonZeroU32>,
}

/// A tensor of which a slice is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sliced {
    slice: Slice,
    strided: Option<StridedRange>,
    /// The range of its shape in the plan's dimensions.
    dims: Range<usize>,
}

/// The slices of a plan, usually few or none. Whole tensors do not pay for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slices {
    list: Vec<Sliced>,
    dims: Vec<u64>,
}

impl Slices {
    fn add(&mut self, tensor: &TensorInfo<'_>, slice: Slice, strided: Option<StridedRange>) -> Option<NonZeroU32> {
        let start = self.dims.len();
        self.dims.extend_from_slice(tensor.shape);
        if let Some(dim) = self.dims.get_mut(start + slice.dim as usize) {
            *dim = slice.len();
        }
        self.list.push(Sliced { slice, strided, dims: start..self.dims.len() });
        // There are no more slices than tensors, which are numbered in 32 bits.
        u32::try_from(self.list.len()).ok().and_then(NonZeroU32::new)
    }

    fn get(&self, placement: &Placement) -> Option<&Sliced> {
        self.list.get(placement.slice?.get() as usize - 1)
    }
}

/// The complete plan of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    placements: Vec<Placement>,
    extents: Vec<Extent>,
    chunks: Vec<Chunk>,
    mapped: Vec<(FileId, ByteRange)>,
    arena_bytes: usize,
    selected_bytes: u64,
    streamed: bool,
    slices: Slices,
}

impl Plan {
    /// Returns the selected tensors in the order of file and offset, or as listed for a stream in
    /// [`Order::Selection`].
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Returns the runs to read, by [`ExtentId`], in the order of file and offset. Those of a
    /// stream are in the order of reading.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Returns the reads in the order of issue, by [`ChunkId`](crate::ChunkId).
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Returns the mapped ranges, ascending by file and offset, and disjoint.
    #[must_use]
    pub fn mapped(&self) -> &[(FileId, ByteRange)] {
        &self.mapped
    }

    /// Returns true if every extent has its own buffer: [`Access::Stream`].
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Returns the length of the arena in bytes, 0 for a stream.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Returns the selected slice of a placement, or `None` if the whole tensor is selected.
    ///
    /// # Panics
    /// Panics if there is no such placement.
    #[must_use]
    pub fn slice(&self, placement: usize) -> Option<Slice> {
        self.slices.get(&self.placements[placement]).map(|sliced| sliced.slice)
    }

    /// Returns the blocks of a placement, if it has more than one in the file.
    ///
    /// # Panics
    /// Panics if there is no such placement.
    #[must_use]
    pub fn strided(&self, placement: usize) -> Option<StridedRange> {
        self.slices.get(&self.placements[placement])?.strided
    }

    /// Returns the length of a placement in bytes.
    ///
    /// # Panics
    /// Panics if there is no such placement.
    #[must_use]
    pub fn byte_len(&self, placement: usize) -> u64 {
        self.strided(placement).map_or(self.placements[placement].range.len(), StridedRange::byte_len)
    }

    /// Returns the selected part of a placement's tensor: for a slice, its own shape and range.
    /// `catalog` is the plan's.
    ///
    /// # Panics
    /// Panics if there is no such placement.
    #[must_use]
    pub fn tensor<'a>(&'a self, catalog: &'a Catalog, placement: usize) -> TensorInfo<'a> {
        let placement = &self.placements[placement];
        let tensor = catalog.tensor(placement.tensor);
        match self.slices.get(placement) {
            Some(sliced) => {
                TensorInfo { shape: &self.slices.dims[sliced.dims.clone()], range: placement.range, ..tensor }
            }
            None => tensor,
        }
    }

    /// Returns how many bytes of a placement are in `start..end` of its file.
    pub(crate) fn bytes_within(&self, placement: usize, start: u64, end: u64) -> u64 {
        match self.strided(placement) {
            Some(strided) => strided.before(end).saturating_sub(strided.before(start)),
            None => {
                let range = self.placements[placement].range;
                range.end().min(end).saturating_sub(range.start().max(start))
            }
        }
    }

    /// Returns how to copy a chunk from its scratch buffer, or `None` if it is read in place.
    #[must_use]
    pub fn gather(&self, chunk: &Chunk) -> Option<Gather> {
        let extent = self.extents.get(chunk.extent.index())?;
        let strided = extent.strided.filter(|_| chunk.gathered)?;
        Some(Gather::new(chunk, extent, strided))
    }

    /// Returns the range of the arena, or of its extent's buffer, that a chunk alone fills,
    /// including what alignment adds.
    #[must_use]
    pub fn dest_range(&self, chunk: &Chunk) -> Range<usize> {
        self.gather(chunk).map_or(chunk.buffer_range.clone(), |gather| gather.dest_range())
    }

    /// Returns the number of selected bytes. Tied tensors in one place count once.
    #[must_use]
    pub fn selected_bytes(&self) -> u64 {
        self.selected_bytes
    }

    /// Returns the number of bytes to read: the selected ones and the gaps that are read along.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.payload_len as u64).sum()
    }
}

#[cfg(test)]
mod tests;
