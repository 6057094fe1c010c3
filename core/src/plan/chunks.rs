//! Divides runs into reads, and orders the reads so that all files progress together.

use super::extents::filled;
use super::{Chunk, Extent, Method, Placement, PlanOptions, gather};
use crate::seeded_bug::seeded_bug;
use crate::units::{Alignment, ByteRange, ExtentId, to_usize};
use alloc::vec::Vec;

/// The minimum size of a cached range that is read from the cache. Smaller ones are read along by
/// direct reads.
const CACHED_PART: u64 = 64 << 10;

/// Divides every extent at multiples of the chunk size in the arena.
///
/// No two reads of an extent then fault the same huge page. Addresses are congruent to offsets, so
/// every cut is aligned for a direct read. A direct extent is also divided at the edges of cached
/// ranges, so that no cached byte is read from the device. `gathered` is the maximum size of a
/// gather read.
pub(super) fn cut(extents: &[Extent], placements: &[Placement], options: &PlanOptions, gathered: u64) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (index, extent) in extents.iter().enumerate() {
        let cached = options.cached.get(extent.file.index()).map_or(&[][..], Vec::as_slice);
        let size = if extent.strided.is_some() { gathered } else { options.chunk_bytes_of(extent.file) };
        cut_one(extent, ExtentId::from_index(index), placements, to_usize(size), cached, &mut chunks);
    }
    chunks
}

fn cut_one(
    extent: &Extent,
    id: ExtentId,
    placements: &[Placement],
    size: usize,
    cached: &[ByteRange],
    chunks: &mut Vec<Chunk>,
) {
    if let Some(strided) = extent.strided {
        // The slice, perhaps next to tensors without bytes.
        let sliced = filled(placements, extent.tensors.clone());
        return gather::cut(extent, id, strided, &sliced, size as u64, cached, chunks);
    }
    let size = size.max(extent.alignment.as_usize());
    let align_prefix = to_usize(extent.range.start() - extent.alignment.down(extent.range.start()));
    let tail = extent.alignment.up(extent.range.end()).unwrap_or(u64::MAX) - extent.range.end();
    let slot_start = extent.buffer_offset - align_prefix;
    let payload_end = extent.buffer_offset + to_usize(extent.range.len());
    let slot_end = payload_end + to_usize(tail);
    let mut at = slot_start;
    let mut first = extent.tensors.start;
    while at < payload_end {
        let boundary = (at / size + 1) * size;
        // Bytes after the last boundary belong to the last chunk, even if only alignment adds them.
        let mut end = if boundary >= payload_end { slot_end } else { boundary };
        let mut offset = extent.range.start() + at as u64 - extent.buffer_offset as u64;
        if seeded_bug!(OffsetCutTo32Bits) {
            offset &= u64::from(u32::MAX);
        }
        let mut payload_len = end.min(payload_end) - at;
        let mut direct = extent.method == Method::Direct;
        if direct {
            let (part, is_cached) = cached_part(cached, offset, offset + payload_len as u64, extent.alignment);
            if part < offset + payload_len as u64 {
                payload_len = to_usize(part - offset);
                end = at + payload_len;
            }
            direct = !is_cached;
        }
        let file_end = offset + payload_len as u64;
        // Tensors without bytes may be anywhere. The others of an extent are in the order of the
        // file.
        let ends_before = |p: &Placement| p.range.is_empty() || p.range.end() <= offset;
        while first < extent.tensors.end && ends_before(&placements[first]) {
            first += 1;
        }
        let rest = &placements[first..extent.tensors.end];
        let past = rest.iter().take_while(|p| p.range.is_empty() || p.range.start() < file_end).count();
        chunks.push(Chunk {
            extent: id,
            file: extent.file,
            offset,
            payload_len,
            buffer_range: at..if direct { end } else { at + payload_len },
            gathered: false,
            align_prefix: gather::prefix_len(extent.range.start().saturating_sub(offset)),
            method: if direct { Method::Direct } else { Method::Buffered },
            alignment: if direct { extent.alignment } else { Alignment::ONE },
            tensors: first..first + past,
        });
        at = end;
    }
}

/// Returns where a read at `offset` must end, at most `end`, because a cached range starts or ends
/// there, and whether its bytes are cached.
///
/// `offset` and the result are aligned for direct reads, unless the result is `end`.
fn cached_part(cached: &[ByteRange], offset: u64, end: u64, alignment: Alignment) -> (u64, bool) {
    let first = cached.partition_point(|range| range.end() <= offset);
    for range in &cached[first..] {
        let start = alignment.up(range.start().max(offset)).unwrap_or(u64::MAX);
        if start >= end {
            break;
        }
        let stop = if range.end() >= end { end } else { alignment.down(range.end()) };
        if start == offset && (stop == end || stop - start >= CACHED_PART) {
            return (stop, true);
        }
        if stop.saturating_sub(start) >= CACHED_PART {
            return (start, false);
        }
    }
    (end, false)
}

/// Returns the lane of a chunk. Buffered and direct reads of a file are two lanes, so that the
/// device works while the processor copies.
pub(super) fn lane(chunk: &Chunk) -> usize {
    2 * chunk.file.index() + usize::from(chunk.method == Method::Buffered)
}

/// Orders items by their relative position in their lanes, so that all lanes start and end
/// together.
///
/// This keeps all devices busy, and no shard waits for another.
pub(super) fn interleave<T>(items: Vec<T>, lane_of: impl Fn(&T) -> usize) -> Vec<T> {
    let lanes = items.iter().map(|item| lane_of(item) + 1).max().unwrap_or(0);
    let mut total = alloc::vec![0_u64; lanes];
    for item in &items {
        total[lane_of(item)] += 1;
    }
    if total.iter().filter(|&&n| n > 0).count() < 2 {
        return items;
    }
    let mut seen = alloc::vec![0_u64; lanes];
    let mut order: Vec<(u64, usize)> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let lane = lane_of(item);
        // The fraction (2 i + 1) / (2 n) of the lane as a fixed-point number, which is the same on
        // every target.
        order.push((((2 * seen[lane] + 1) << 31) / total[lane], index));
        seen[lane] += 1;
    }
    order.sort_unstable();
    let mut taken: Vec<Option<T>> = items.into_iter().map(Some).collect();
    order.into_iter().filter_map(|(_, index)| taken[index].take()).collect()
}
