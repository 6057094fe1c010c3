//! Reads strided slices and gathers their blocks.
//!
//! A slice of a dimension other than the slowest is a [`StridedRange`]: blocks of one length with
//! gaps of one length. There are two ways to read it ([`ReadMode`]):
//!
//! - **Per block**: one read for each block.
//! - **Spanning**: reads across blocks and gaps, from which the blocks are copied.
//!
//! A spanning read costs the bytes of the gaps. Per-block reads cost one more request per block,
//! which takes as long as reading [`PlanOptions::max_read_gap`] bytes. So spanning reads are used
//! for gaps up to that length, and per-block reads for longer ones.
//!
//! The blocks in the order of the file are the slice in the order of memory. So the bytes of a
//! slice that one read fetches go to one contiguous range of memory. Chunks stay disjoint, and no
//! two touch the same bytes.
//!
//! A buffered read without gaps goes to its final address, as any other read does. All other reads
//! go to a separate buffer, from which [`Gather`] copies. This includes all direct reads: blocks of
//! any length follow one another in memory, so their addresses are not aligned.
//!
//! [`PlanOptions::max_read_gap`]: super::PlanOptions::max_read_gap

use super::{Chunk, Extent, Method, ReadMode};
use crate::seeded_bug::seeded_bug;
use crate::strided_range::StridedRange;
use crate::units::{Alignment, ByteRange, ExtentId, to_usize};
use crate::write_only::WriteOnly;
use alloc::vec::Vec;
use core::ops::Range;

/// Gathers the bytes of a chunk that was read into a separate buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    strided: StridedRange,
    /// The file offset of the buffer's first byte.
    offset: u64,
    /// The start and the end of the chunk's bytes, counted in the slice.
    from: u64,
    to: u64,
    dest_range: Range<usize>,
}

impl Gather {
    /// Creates the gather of a strided extent's chunk.
    pub(super) fn new(chunk: &Chunk, extent: &Extent, strided: StridedRange) -> Self {
        let from = strided.before(chunk.offset + u64::from(chunk.align_prefix));
        let to = strided.before(chunk.offset + chunk.payload_len as u64);
        let start = extent.buffer_offset + to_usize(from - strided.before(extent.range.start()));
        Self { strided, offset: chunk.offset, from, to, dest_range: start..start + to_usize(to - from) }
    }

    /// Returns the destination: the range of the arena, or of the extent's buffer, that this chunk
    /// alone fills.
    #[must_use]
    pub fn dest_range(&self) -> Range<usize> {
        self.dest_range.clone()
    }

    /// Returns the copies: a range of the buffer, and the offset of its first byte in the
    /// destination. They fill the destination without a gap.
    pub fn copies(&self) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        let mut at = self.from;
        core::iter::from_fn(move || {
            (at < self.to).then(|| {
                let end = self.strided.end_of_block(at).min(self.to);
                let source = to_usize(self.strided.offset_of(at) - self.offset);
                let target = to_usize(at - self.from);
                let len = to_usize(end - at);
                at = end;
                (source..source + len, target)
            })
        })
    }

    /// Copies from the buffer to the destination.
    ///
    /// # Panics
    /// Panics if `buffer` or `dest_range` is shorter than the chunk's.
    pub fn copy(&self, buffer: &[u8], dest_range: &mut WriteOnly<'_>) {
        for (source, target) in self.copies() {
            let source =
                if seeded_bug!(GatherShifted) && target > 0 { source.start - 1..source.end - 1 } else { source };
            dest_range.write(target, &buffer[source]);
        }
    }
}

/// Divides a strided extent into reads of at most `size` file bytes, in the order of the slice.
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
        // Not shorter than the alignment, so that it extends past `start`.
        let mut to = strided.before(aligned.saturating_add(size.max(extent.alignment.as_u64()))).min(end);
        if extent.read_mode == ReadMode::PerBlock {
            to = to.min(strided.end_of_block(at));
        }
        let range = strided.file_range(at, to);
        let direct = extent.method == Method::Direct && !covers(cached, aligned, range.end());
        let (offset, alignment) = if direct { (aligned, extent.alignment) } else { (start, Alignment::ONE) };
        let payload_len = to_usize(range.end() - offset);
        let len = alignment.up(range.end()).map_or(payload_len, |up| to_usize(up - offset));
        let place = extent.buffer_offset + to_usize(at - first);
        let in_place = !direct && range.len() == to - at;
        chunks.push(Chunk {
            extent: id,
            file: extent.file,
            offset,
            payload_len,
            buffer_range: if in_place { place..place + payload_len } else { 0..len },
            align_prefix: prefix_len(start - offset),
            gathered: !in_place,
            method: if direct { Method::Direct } else { Method::Buffered },
            alignment,
            tensors: sliced.clone(),
        });
        at = to;
    }
}

/// Returns true if one of the ascending ranges contains all bytes from `start` to `end`.
fn covers(ranges: &[ByteRange], start: u64, end: u64) -> bool {
    let after = ranges.partition_point(|range| range.start() <= start);
    after.checked_sub(1).is_some_and(|at| ranges[at].end() >= end)
}

/// Returns the length of what alignment adds before the selected bytes.
#[expect(clippy::cast_possible_truncation, reason = "the prefix is shorter than an alignment of direct reads")]
pub(super) fn prefix_len(bytes: u64) -> u32 {
    bytes as u32
}
