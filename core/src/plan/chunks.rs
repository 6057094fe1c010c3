//! Cuts runs into reads, and orders the reads so that all files progress together.

use super::extents::filled;
use super::{Access, Buffers, Chunk, Extent, Method, Placement, PlanOptions, gather};
use crate::seeded_bug::seeded_bug;
use crate::units::{Alignment, ByteRange, ExtentId};
use alloc::vec::Vec;

/// Below this a read's fixed cost shows; above 1 GiB one read would pass the kernel's limit of 2^31 − 4096 bytes.
const CHUNK_RANGE: (u64, u64) = (64 << 10, 1 << 30);

/// What all reads in flight of a whole load that slices are gathered from may take together, beside what stays.
const MAX_GATHER_BYTES: u64 = 128 << 20;

/// The size of a read that is asked for, as a power of two within the range.
pub(super) fn chunk_bytes(asked: u64) -> u64 {
    asked.clamp(CHUNK_RANGE.0, CHUNK_RANGE.1).next_power_of_two()
}

/// Of what is in the page cache, less than this is not worth a read for itself; it is read along past the cache.
const CACHED_PART: u64 = 64 << 10;

/// The largest read that a strided slice is gathered from. Its buffer comes on top of a stream's limit, or of the `needed` bytes that a load
/// keeps; so all of them should be little beside that, and fit in what is left.
pub(super) fn max_gather_read(options: &PlanOptions, needed: u64) -> u64 {
    let reads = options.max_gather_reads.max(1);
    let together = match options.access {
        Access::Stream(Buffers { limit, .. }) => limit,
        _ => {
            let left = options.memory.as_ref().map_or(u64::MAX, |memory| memory.available.saturating_sub(needed));
            left.min(MAX_GATHER_BYTES)
        }
    };
    // A power of two that is not above the share of each.
    let max = chunk_bytes((together / reads).checked_ilog2().map_or(0, |log| 1 << log));
    max.min(options.shortest_chunk())
}

/// Cuts every extent where its place in the arena passes a multiple of the chunk size: no two reads then fault the same
/// huge page inside an extent, and as places are congruent to offsets, every cut is aligned for a direct read. A direct extent is also cut
/// where what is in the page cache begins and ends, so that nothing of that is read from the device. `gathered`: how long reads that slices
/// are gathered from may be.
pub(super) fn cut(extents: &[Extent], placements: &[Placement], options: &PlanOptions, gathered: u64) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (index, extent) in extents.iter().enumerate() {
        let cached = options.cached.get(extent.file.index()).map_or(&[][..], Vec::as_slice);
        let size = if extent.strided.is_some() { gathered } else { options.chunk_bytes_of(extent.file) };
        cut_one(extent, ExtentId(index as u32), placements, size as usize, cached, &mut chunks);
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
        // The slice, perhaps with tensors without a byte around it.
        let sliced = filled(placements, extent.tensors.clone());
        return gather::cut(extent, id, strided, &sliced, size as u64, cached, chunks);
    }
    let size = size.max(extent.alignment.as_u64() as usize);
    let align_prefix = (extent.range.start() - extent.alignment.down(extent.range.start())) as usize;
    let tail = extent.alignment.up(extent.range.end()).unwrap_or(u64::MAX) - extent.range.end();
    let slot_start = extent.buffer_offset - align_prefix;
    let payload_end = extent.buffer_offset + extent.range.len() as usize;
    let slot_end = payload_end + tail as usize;
    let mut at = slot_start;
    let mut first = extent.tensors.start;
    while at < payload_end {
        let boundary = (at / size + 1) * size;
        // What lies past the last cut belongs to the last chunk, also when only the alignment's tail does.
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
                payload_len = (part - offset) as usize;
                end = at + payload_len;
            }
            direct = !is_cached;
        }
        let file_end = offset + payload_len as u64;
        // Tensors without a byte may lie anywhere; between the others of an extent the order is that of the file.
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
            // Less than an alignment.
            align_prefix: extent.range.start().saturating_sub(offset) as u32,
            method: if direct { Method::Direct } else { Method::Buffered },
            alignment: if direct { extent.alignment } else { Alignment::ONE },
            tensors: first..first + past,
        });
        at = end;
    }
}

/// Where a read from `offset` on, up to `end`, is to stop, as what is cached begins or ends there; and whether its bytes are cached. Both
/// `offset` and the answer, unless that is `end`, are aligned for direct reads.
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

/// Whether one of the ascending ranges holds all bytes from `start` to `end`.
pub(super) fn covers(ranges: &[ByteRange], start: u64, end: u64) -> bool {
    let after = ranges.partition_point(|range| range.start() <= start);
    after.checked_sub(1).is_some_and(|at| ranges[at].end() >= end)
}

/// Reads of one file through the page cache and past it are two lanes, so that the device is busy while the processor copies.
pub(super) fn lane(chunk: &Chunk) -> usize {
    2 * chunk.file.index() + usize::from(chunk.method == Method::Buffered)
}

/// Orders items by how far into its lane each lies, so that lanes of any length start and end together: several devices are
/// kept busy, and no shard waits for another.
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
        // The fraction (2 i + 1) / (2 n) of the lane, in 32 bits after the point: exact enough, and the same everywhere.
        order.push((((2 * seen[lane] + 1) << 31) / total[lane], index));
        seen[lane] += 1;
    }
    order.sort_unstable();
    let mut taken: Vec<Option<T>> = items.into_iter().map(Some).collect();
    order.into_iter().filter_map(|(_, index)| taken[index].take()).collect()
}
