//! The plan of a load: every read and the final address of every byte, fixed before the first read.
//!
//! Planning has three steps:
//!
//! 1. [`extents`] groups the selected tensors into runs of file bytes, and places each run in the
//!    arena.
//! 2. [`chunks`] divides the runs into reads, and orders them over all files.
//! 3. The [`Planner`] drives both, and rejects a plan that does not fit.
//!
//! [`buffers`] adds what a stream needs, [`gather`] what strided slices need. [`ties`] finds
//! tensors with the same bytes.
//!
//! An arena's base is aligned to a huge page. The address of a direct run is congruent to its file
//! offset, modulo the alignments of direct I/O and of the tensors. A direct read therefore goes to
//! the final address. A tensor that is misaligned in its file starts a new run, which is shifted to
//! an aligned address and read through the page cache. Only such tensors cost a copy by the kernel.

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

/// The alignment that direct reads of a file need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectLimits {
    /// The alignment of offsets and lengths.
    pub offset: Alignment,
    /// The alignment of addresses.
    pub memory: Alignment,
}

impl DirectLimits {
    /// Returns the alignment that satisfies both.
    #[must_use]
    pub fn both(self) -> Alignment {
        self.offset.max(self.memory)
    }
}

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
    /// As copies in buffers that each hold a part: every [`Extent`] has its own buffer.
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

/// The options of a [`Planner`].
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
    /// The maximum number of gather reads in flight. Each uses a separate buffer.
    ///
    /// All of them together use about a stream's limit or the remaining memory, at most 128 MiB.
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
    fn chunk_bytes_of(&self, file: FileId) -> u64 {
        chunks::chunk_bytes(self.file_chunk_bytes.get(file.index()).copied().unwrap_or(self.chunk_bytes))
    }

    /// Returns the size of the shortest reads of any file.
    fn shortest_chunk(&self) -> u64 {
        chunks::chunk_bytes(self.file_chunk_bytes.iter().copied().min().unwrap_or(self.chunk_bytes))
    }
}

/// A run of file bytes that is contiguous in the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The file.
    pub file: FileId,
    /// The selected range, from the first tensor's first byte to the last one's last.
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
    /// The range of the arena, or of the extent's own buffer, that belongs to this chunk.
    ///
    /// It is at least `payload_len` long, up to the alignment. For a [gathered](Self::gathered)
    /// chunk it is the range of the separate buffer, from 0.
    pub buffer_range: Range<usize>,
    /// Whether it is read into a separate buffer, from which [`Plan::gather`] copies. The buffer's
    /// address is aligned to [`alignment`](Self::alignment).
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
    /// The selected bytes in the file. For a strided slice, from the first to the last.
    pub range: ByteRange,
    /// The location.
    pub location: Location,
    /// The number of its slice in the plan, from 1.
    slice: Option<NonZeroU32>,
}

/// A tensor with a selected slice.
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
        NonZeroU32::new(self.list.len() as u32)
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

    /// Returns the slice of a placement, or `None` for a whole tensor.
    ///
    /// # Panics
    /// Panics if there is no such placement. The same applies to the next three methods.
    #[must_use]
    pub fn slice(&self, placement: usize) -> Option<Slice> {
        self.slices.get(&self.placements[placement]).map(|sliced| sliced.slice)
    }

    /// Returns the blocks of a placement, if it has more than one in the file.
    #[must_use]
    pub fn strided(&self, placement: usize) -> Option<StridedRange> {
        self.slices.get(&self.placements[placement])?.strided
    }

    /// Returns the length of a placement in bytes.
    #[must_use]
    pub fn byte_len(&self, placement: usize) -> u64 {
        self.strided(placement).map_or(self.placements[placement].range.len(), StridedRange::byte_len)
    }

    /// Returns the selected part of a placement's tensor, with the shape and the range of its
    /// slice. `catalog` is the plan's.
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

    /// Returns how to gather the bytes of a chunk, or `None` if it is read to its final address.
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

/// Creates a [`Plan`] from a catalog and a selection, as a pure function.
///
/// ```
/// use floodtide_core::format::SAFETENSORS;
/// use floodtide_core::{
///     ByteRange, CatalogBuilder, DType, Location, PlanOptions, Planner, Selection,
/// };
///
/// let mut builder = CatalogBuilder::new(SAFETENSORS);
/// let file = builder.add_file("model.safetensors", 4096)?;
/// for (name, start, end) in [("a", 1000, 2000), ("b", 2000, 4000)] {
///     let range = ByteRange::new(start, end).expect("ascending");
///     builder.add_tensor(file, name, DType::U8.into(), &[end - start], range)?;
/// }
/// let catalog = builder.finish()?;
/// let selected = Selection::All.resolve(&catalog)?;
/// let plan = Planner::new(PlanOptions::default()).plan(&catalog, &selected)?;
/// assert_eq!((plan.selected_bytes(), plan.read_bytes()), (3000, 3000));
/// // Neighbours are read together, into one arena.
/// assert_eq!(plan.chunks().len(), 1);
/// assert!(matches!(plan.placements()[1].location, Location::Arena(_)));
/// # Ok::<(), floodtide_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Planner {
    options: PlanOptions,
}

impl Planner {
    /// Creates a planner with these options.
    #[must_use]
    pub fn new(options: PlanOptions) -> Self {
        Self { options }
    }

    /// Plans the load of `selected`.
    ///
    /// The tensors must be of this catalog and ascending, as
    /// [`Selection::resolve`](crate::Selection::resolve) returns them. A stream in
    /// [`Order::Selection`] accepts any order.
    ///
    /// # Errors
    /// - [`Error::BufferTooSmall`] if a tensor does not fit in a buffer of a stream.
    /// - [`Error::NotEnoughMemory`] if the tensors exceed the available memory.
    /// - [`Error::AddressSpace`] if they exceed the address space of this target.
    pub fn plan(&self, catalog: &Catalog, selected: &[TensorSlice]) -> Result<Plan, Error> {
        let selected_bytes = ties::distinct_bytes(catalog, selected, &self.options);
        let laid_out = extents::lay_out(catalog, selected, selected_bytes, &self.options)?;
        let mapped_bytes = laid_out.mapped.iter().fold(0_u64, |sum, (_, range)| sum.saturating_add(range.len()));
        let resident = if self.options.access == (Access::Map { resident: true }) { mapped_bytes } else { 0 };
        let buffered = match self.options.access {
            // All buffers together, up to the limit.
            Access::Stream(Buffers { limit, .. }) => laid_out
                .extents
                .iter()
                .fold(0_u64, |sum, extent| sum.saturating_add(extent.buffer_bytes as u64))
                .min(limit),
            _ => 0,
        };
        let needed = laid_out.arena_bytes.saturating_add(resident).saturating_add(buffered);
        if let Some(memory) = self.options.memory.as_ref().filter(|memory| needed > memory.available) {
            let MemoryLimit { available, limit } = memory.clone();
            let file = catalog.files().first().map_or_else(String::new, |file| file.path.clone());
            return Err(Error::NotEnoughMemory { file, needed, available, limit });
        }
        // Reads are numbered in 32 bits. Each extent may add one to what its bytes need.
        let gathered = chunks::max_gather_read(&self.options, needed);
        let reads = laid_out.arena_bytes / self.options.shortest_chunk()
            + laid_out.strided_span / gathered
            + laid_out.extents.len() as u64;
        if reads > u64::from(u32::MAX / 2) {
            return Err(Error::TooMany { what: "reads" });
        }
        let arena_bytes = extents::in_memory(laid_out.arena_bytes)?;
        let (mut extents, placements) = (laid_out.extents, laid_out.placements);
        let chunks = match self.options.access {
            Access::Stream(buffers) => {
                if buffers.order == Order::Completion {
                    extents = chunks::interleave(extents, |extent| extent.file.index());
                }
                // In stream order each buffer is completed as early as possible, so that few are
                // partly filled.
                chunks::cut(&extents, &placements, &self.options, gathered)
            }
            _ => chunks::interleave(chunks::cut(&extents, &placements, &self.options, gathered), chunks::lane),
        };
        Ok(Plan {
            placements,
            extents,
            chunks,
            mapped: laid_out.mapped,
            arena_bytes,
            selected_bytes,
            streamed: matches!(self.options.access, Access::Stream(_)),
            slices: laid_out.slices,
        })
    }
}

#[cfg(test)]
mod tests;
