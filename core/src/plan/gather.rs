//! Slices that lie in a file in blocks: how they are read, and how the blocks come together.
//!
//! A slice of a dimension other than the slowest is [`StridedRange`]: many blocks with a gap of always the same length between
//! them. There are two ways to read it ([`ReadMode`]). **Per block**: a read for each block. **Spanning**: reads across blocks and gaps, of
//! which the blocks are then taken. A spanning read costs the gaps, in bytes; a read per block costs one request more, which takes
//! as long as reading [`PlanOptions::max_read_gap`] bytes. So the blocks of a slice are read by spanning reads if the gap is at most
//! that long, and one by one if it is longer.
//!
//! The blocks in the order of the file are the slice in the order of memory. So the bytes that one read brings of a slice,
//! whatever lies between them in the file, go to one range of its memory: chunks stay disjoint, and no two touch the same
//! bytes. What is read through the page cache and has no gap in it is read to where it stays, as everything else is. The
//! rest goes to a buffer of its own, from where
//! [`Gather`] says what to copy: blocks with gaps between them, and direct reads, whose addresses these blocks cannot have, as they follow
//! one another at any length.
//!
//! [`PlanOptions::max_read_gap`]: super::PlanOptions::max_read_gap

use super::chunks::covers;
use super::{Chunk, Extent, Method, ReadMode};
use crate::seeded_bug::seeded_bug;
use crate::strided_range::StridedRange;
use crate::units::{Alignment, ByteRange, ExtentId};
use crate::write_only::WriteOnly;
use alloc::vec::Vec;
use core::ops::Range;

/// How to bring the bytes of a chunk together that were read to a buffer of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    strided: StridedRange,
    /// The file's byte that is the first in the buffer.
    offset: u64,
    /// The first of the blocks' bytes that the chunk brings, and one past the last, counted by the blocks.
    from: u64,
    to: u64,
    dest_range: Range<usize>,
}

impl Gather {
    /// What a chunk of a strided extent brings.
    pub(super) fn new(chunk: &Chunk, extent: &Extent, strided: StridedRange) -> Self {
        let from = strided.before(chunk.offset + u64::from(chunk.align_prefix));
        let to = strided.before(chunk.offset + chunk.payload_len as u64);
        // All of it lies behind the extent's first byte, in memory whose length is a usize.
        let start = extent.buffer_offset + (from - strided.before(extent.range.start())) as usize;
        Self { strided, offset: chunk.offset, from, to, dest_range: start..start + (to - from) as usize }
    }

    /// Where it goes: the bytes of the arena, or of the extent's own buffer, that are filled by it alone.
    #[must_use]
    pub fn dest_range(&self) -> Range<usize> {
        self.dest_range.clone()
    }

    /// What to copy: bytes of the buffer, and where the first of them goes, counted from the start of the landing. They fill it without a gap.
    pub fn copies(&self) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        let mut at = self.from;
        core::iter::from_fn(move || {
            (at < self.to).then(|| {
                let end = self.strided.end_of_block(at).min(self.to);
                // Both are within the buffer, whose length is a usize.
                let source = (self.strided.offset_of(at) - self.offset) as usize;
                let target = (at - self.from) as usize;
                let len = (end - at) as usize;
                at = end;
                (source..source + len, target)
            })
        })
    }

    /// Copies from the buffer to the landing's memory.
    ///
    /// # Panics
    /// When `buffer` or `dest_range` is shorter than the chunk's.
    pub fn copy(&self, buffer: &[u8], dest_range: &mut WriteOnly<'_>) {
        for (source, target) in self.copies() {
            let source =
                if seeded_bug!(GatherShifted) && target > 0 { source.start - 1..source.end - 1 } else { source };
            dest_range.write(target, &buffer[source]);
        }
    }
}

/// Cuts a strided extent into reads of up to `size` bytes of the file, which bring the slice in its order.
pub(super) fn cut(
    extent: &Extent,
    id: ExtentId,
    strided: StridedRange,
    sliced: &Range<usize>,
    size: u64,
    cached: &[ByteRange],
    chunks: &mut Vec<Chunk>,
) {
    let first = strided.before(extent.range.start());
    let end = strided.before(extent.range.end());
    let mut at = first;
    while at < end {
        let start = strided.offset_of(at);
        let aligned = extent.alignment.down(start);
        // No shorter than the alignment, so that it reaches past `start`.
        let mut to = strided.before(aligned.saturating_add(size.max(extent.alignment.as_u64()))).min(end);
        if extent.read_mode == ReadMode::PerBlock {
            to = to.min(strided.end_of_block(at));
        }
        let range = strided.file_range(at, to);
        let direct = extent.method == Method::Direct && !covers(cached, aligned, range.end());
        let (offset, alignment) = if direct { (aligned, extent.alignment) } else { (start, Alignment::ONE) };
        let payload_len = (range.end() - offset) as usize;
        let len = alignment.up(range.end()).map_or(payload_len, |up| (up - offset) as usize);
        let place = extent.buffer_offset + (at - first) as usize;
        let in_place = !direct && range.len() == to - at;
        chunks.push(Chunk {
            extent: id,
            file: extent.file,
            offset,
            payload_len,
            buffer_range: if in_place { place..place + payload_len } else { 0..len },
            align_prefix: (start - offset) as u32,
            gathered: !in_place,
            method: if direct { Method::Direct } else { Method::Buffered },
            alignment,
            tensors: sliced.clone(),
        });
        at = to;
    }
}
