//! The plan of a load: every read and the final place of every byte, fixed before the first read.
//!
//! Three steps, one file each ([`buffers`] holds what a stream adds, [`gather`] what slices add that lie in a file in blocks, [`ties`] which
//! tensors are one). [`extents`] groups the selected tensors into runs of file bytes and gives each run its place
//! in the arena; [`chunks`] cuts the runs into reads and orders them over all files; [`planner`] drives
//! the two and refuses what does not fit; this file holds what comes out.
//!
//! An arena's base is aligned to a huge page. A run that is read directly is placed at an address congruent to its file
//! offset, modulo the direct-I/O alignment and the tensors' alignment, so that a direct read lands at the final address. A
//! tensor whose file offset does not have the alignment that is asked for starts a run of its own, shifted to where it
//! is aligned and read through the page cache, which takes any address; only such tensors pay.

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

/// How a run of bytes is brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Past the page cache (O_DIRECT).
    Direct,
    /// Through the page cache.
    Buffered,
}

/// How the blocks of a strided extent are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Each block by itself.
    PerBlock,
    /// Several blocks by one read, across the gaps between them.
    Spanning,
}

/// A run of a file's bytes that lies contiguously in the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The file.
    pub file: FileId,
    /// From the first tensor's first byte to the last one's last, as far as they are selected.
    pub range: ByteRange,
    /// Where its bytes are in `range`, when it holds a strided slice; all blocks of the slice, also where it is cut into several extents.
    pub strided: Option<StridedRange>,
    /// How its blocks are read, when it is strided.
    pub read_mode: ReadMode,
    /// How it is read.
    pub method: Method,
    /// Where the first byte of `range` lies in the arena, or in the extent's own buffer when the checkpoint is streamed.
    pub buffer_offset: usize,
    /// The size of its own buffer; 0 when all extents lie in one arena.
    pub buffer_bytes: usize,
    /// The alignment that its reads keep; one byte for buffered reads.
    pub alignment: Alignment,
    /// The placements in it.
    pub tensors: Range<usize>,
}

/// A part of an extent, filled by one read when all goes well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The extent that it is a part of.
    pub extent: ExtentId,
    /// The file.
    pub file: FileId,
    /// Its first byte in the file, aligned for a direct read.
    pub offset: u64,
    /// How many bytes must land.
    pub payload_len: usize,
    /// The bytes of the arena, or of the extent's own buffer, that are its own; at least `payload_len` long, up to the alignment. When it is
    /// [gathered](Self::gathered), it is read to a scratch buffer, and these are that one's bytes, from 0 on.
    pub buffer_range: Range<usize>,
    /// Whether it is read to a scratch buffer, from where [`Plan::gather`] says what to copy. That
    /// buffer has an address that is aligned to [`alignment`](Self::alignment).
    pub gathered: bool,
    /// How many of its first bytes alignment brought along: they are of no extent, or of a chunk before.
    pub align_prefix: u32,
    /// How it is read.
    pub method: Method,
    /// The alignment that a resumed direct read keeps.
    pub alignment: Alignment,
    /// The placements that have bytes in it.
    pub tensors: Range<usize>,
}

/// Where a tensor's bytes are after the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the arena from that byte on.
    Arena(usize),
    /// In its file's mapping, at its own offset.
    Mapped,
    /// In the buffers of the extents that hold its parts: see [`Plan::parts`].
    Streamed,
}

/// A selected tensor and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The tensor.
    pub tensor: TensorId,
    /// Its bytes in the file, as far as they are selected: of a strided slice, from the first to the last.
    pub range: ByteRange,
    /// Where they go.
    pub location: Location,
    /// Its number among the slices of the plan, from 1.
    slice: Option<NonZeroU32>,
}

/// A tensor of which a slice is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sliced {
    slice: Slice,
    strided: Option<StridedRange>,
    /// Its shape, in the plan's dimensions.
    dims: Range<usize>,
}

/// The slices of a plan. Few or none, as a rule; so whole tensors do not pay for them.
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
        // Not more than tensors, which are numbered in 32 bits.
        NonZeroU32::new(self.list.len() as u32)
    }

    fn get(&self, placement: &Placement) -> Option<&Sliced> {
        self.list.get(placement.slice?.get() as usize - 1)
    }
}

/// A whole load, decided.
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
    /// The selected tensors in the order of file and offset; those of a stream in [`Order::Selection`] as they are listed.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The runs that are read, by [`ExtentId`], in the order of file and offset; those of a stream in the order in which
    /// they are read.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The reads in the order of issue, by [`ChunkId`](crate::ChunkId).
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The runs of file bytes that are mapped, ascending by file and offset and disjoint.
    #[must_use]
    pub fn mapped(&self) -> &[(FileId, ByteRange)] {
        &self.mapped
    }

    /// Whether every extent has a buffer of its own: [`Access::Stream`].
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// The arena's length in bytes; 0 for a stream.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// The selected slice of a placement, by its number; `None` for all of a tensor.
    ///
    /// # Panics
    /// When there is no such placement; so do the next three.
    #[must_use]
    pub fn slice(&self, placement: usize) -> Option<Slice> {
        self.slices.get(&self.placements[placement]).map(|sliced| sliced.slice)
    }

    /// The blocks of a placement, if its bytes lie in the file in more than one.
    #[must_use]
    pub fn strided(&self, placement: usize) -> Option<StridedRange> {
        self.slices.get(&self.placements[placement])?.strided
    }

    /// How many bytes a placement has.
    #[must_use]
    pub fn byte_len(&self, placement: usize) -> u64 {
        self.strided(placement).map_or(self.placements[placement].range.len(), StridedRange::byte_len)
    }

    /// The tensor of a placement as far as it is selected: of a slice, its shape and its part of
    /// the file. `catalog` is that of the plan.
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

    /// How many bytes of a placement lie in the part `start..end` of its file.
    pub(crate) fn bytes_within(&self, placement: usize, start: u64, end: u64) -> u64 {
        match self.strided(placement) {
            Some(strided) => strided.before(end).saturating_sub(strided.before(start)),
            None => {
                let range = self.placements[placement].range;
                range.end().min(end).saturating_sub(range.start().max(start))
            }
        }
    }

    /// How the bytes of a chunk come together that is read to a scratch buffer; `None` for one that
    /// is read to where its bytes stay.
    #[must_use]
    pub fn gather(&self, chunk: &Chunk) -> Option<Gather> {
        let extent = self.extents.get(chunk.extent.index())?;
        let strided = extent.strided.filter(|_| chunk.gathered)?;
        Some(Gather::new(chunk, extent, strided))
    }

    /// The bytes of the arena, or of its extent's own buffer, that a chunk fills, with what alignment adds: no other chunk has them.
    #[must_use]
    pub fn dest_range(&self, chunk: &Chunk) -> Range<usize> {
        self.gather(chunk).map_or(chunk.buffer_range.clone(), |gather| gather.dest_range())
    }

    /// The bytes of the selected tensors; those of tensors that are the same bytes and have one place are counted once.
    #[must_use]
    pub fn selected_bytes(&self) -> u64 {
        self.selected_bytes
    }

    /// The bytes that must land for the load to be done: the selected ones, and those read along between them.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.payload_len as u64).sum()
    }
}

#[cfg(test)]
mod tests;
