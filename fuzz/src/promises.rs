//! Checks the promises of every plan, from its public parts only.

use floodtide_core::{
    Access, Alignment, Buffers, ByteRange, Catalog, Chunk, Extent, ExtentId, FileId, Location, Method, Order, Plan,
    PlanOptions, ReadMode, StridedRange, TensorSlice, tensor_alignment,
};
use std::collections::HashSet;

/// The constant part of the maximum gap bytes that are read along.
const GAPS: u64 = 4 << 20;

/// The minimum size of a stream's buffer that tensors share.
const MIN_BUFFER_BYTES: u64 = 64 << 10;

/// Panics if the plan breaks a promise.
pub fn check(catalog: &Catalog, selected: &[TensorSlice], options: &PlanOptions, plan: &Plan) {
    assert_eq!(plan.placements().len(), selected.len());
    for (index, (placement, slice)) in plan.placements().iter().zip(selected).enumerate() {
        let tensor = catalog.tensor(slice.tensor());
        assert_eq!((placement.tensor, placement.range), (slice.tensor(), slice.range(&tensor)));
        assert_eq!((plan.slice(index), plan.strided(index)), (slice.as_slice(), slice.strided(&tensor)));
        assert_eq!(
            (plan.byte_len(index), plan.tensor(catalog, index).byte_len()),
            (slice.byte_len(&tensor), plan.byte_len(index))
        );
    }
    let (selected_bytes, distinct) = (plan.selected_bytes(), distinct_bytes(catalog, plan));
    let all: u64 = (0..selected.len()).map(|index| plan.byte_len(index)).sum();
    assert!((distinct..=all).contains(&selected_bytes), "{selected_bytes} of {distinct} to {all}");
    if !may_read_again(catalog, options, selected) {
        assert_eq!(selected_bytes, distinct, "tensors that are the same bytes count once");
    }
    extents(catalog, options, plan);
    // The gaps between the blocks of a slice do not stay in memory.
    let runs = plan.extents().iter().filter(|extent| extent.strided.is_none());
    let along: u64 = runs.map(|extent| extent.range.len()).sum();
    assert!(along <= selected_bytes + selected_bytes / 128 + GAPS, "{along} bytes are read for {selected_bytes}");
    chunks(catalog, options, plan);
    match options.access {
        Access::Copy | Access::Map { .. } => whole(catalog, options, plan),
        Access::Stream(buffers) => streamed(catalog, options, buffers, plan),
    }
}

/// Returns the number of bytes of all placements. Tied ones count once.
fn distinct_bytes(catalog: &Catalog, plan: &Plan) -> u64 {
    let mut seen = HashSet::new();
    let place = |index: usize| (plan.tensor(catalog, index).file, plan.placements()[index].range, plan.strided(index));
    (0..plan.placements().len()).filter(|&index| seen.insert(place(index))).map(|index| plan.byte_len(index)).sum()
}

/// Returns true if tied tensors may be read separately.
///
/// This holds if they are listed, arrive in parts and in order, or have blocks that no common cut
/// suits, or if another slice is selected between them.
fn may_read_again(catalog: &Catalog, options: &PlanOptions, selected: &[TensorSlice]) -> bool {
    let in_order =
        |buffers: Buffers| buffers.order == Order::Selection || (buffers.split && buffers.order == Order::File);
    let odd = |slice: &TensorSlice| !catalog.tensor(slice.tensor()).dtype.block_bytes().is_power_of_two();
    matches!(options.access, Access::Stream(buffers) if in_order(buffers))
        || selected.iter().any(odd)
        || selected.iter().any(|slice| slice.as_slice().is_some())
}

/// Returns the memory that executing the plan needs.
pub fn needed(options: &PlanOptions, plan: &Plan) -> u64 {
    let buffers = || plan.extents().iter().map(|extent| extent.buffer_bytes as u64).sum::<u64>();
    plan.arena_bytes() as u64
        + match options.access {
            Access::Map { resident: true } => plan.mapped().iter().map(|(_, range)| range.len()).sum(),
            Access::Stream(Buffers { limit, .. }) => buffers().min(limit),
            _ => 0,
        }
}

fn extents(catalog: &Catalog, options: &PlanOptions, plan: &Plan) {
    for extent in plan.extents() {
        assert!(!extent.range.is_empty() && extent.range.end() <= catalog.file(extent.file).bytes);
        if extent.method == Method::Direct {
            let limits = options.direct[extent.file.index()].expect("direct reads were allowed");
            assert_eq!(extent.alignment, limits.both());
        } else {
            assert_eq!(extent.alignment, Alignment::ONE);
        }
    }
}

/// Checks that a chunk of a strided slice continues the previous one, and starts and ends with
/// bytes of blocks.
fn strided_chunk(plan: &Plan, chunk: &Chunk, extent: &Extent, strided: StridedRange, filled: &mut Option<u64>) {
    let (start, end) = (chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
    let (from, to) = (strided.before(start), strided.before(end));
    assert_eq!(from, filled.unwrap_or(strided.before(extent.range.start())), "without a gap and without reading twice");
    assert!(from < to && strided.offset_of(from) == start && strided.offset_of(to - 1) + 1 == end);
    assert!(extent.read_mode != ReadMode::PerBlock || to <= strided.end_of_block(from), "each block by itself");
    let dest_range = plan.dest_range(chunk);
    let place = extent.buffer_offset as u64 + (from - strided.before(extent.range.start()));
    assert_eq!((dest_range.start as u64, dest_range.len() as u64), (place, to - from), "to its place");
    assert_eq!(chunk.gathered, chunk.method == Method::Direct || to - from < end - start);
    if let Some(gather) = plan.gather(chunk) {
        assert_eq!(chunk.buffer_range.start, 0);
        let mut copied = 0;
        for (source, target) in gather.copies() {
            assert!(target == copied && source.start >= chunk.align_prefix as usize && source.end <= chunk.payload_len);
            let at = strided.before(chunk.offset + source.start as u64);
            assert_eq!((at, strided.offset_of(at)), (from + copied as u64, chunk.offset + source.start as u64));
            copied += source.len();
        }
        assert_eq!(copied, dest_range.len());
    }
    *filled = Some(to);
}

/// Checks that chunks are in their extents, aligned for direct reads, and contiguous.
fn chunks(catalog: &Catalog, options: &PlanOptions, plan: &Plan) {
    let mut filled = vec![None; plan.extents().len()];
    let mut in_order: Vec<_> = plan.chunks().iter().collect();
    if !plan.is_streamed() {
        // Cached and uncached parts of an extent are read in parallel.
        in_order.sort_by_key(|chunk| (chunk.extent, chunk.offset));
    }
    for chunk in in_order {
        let extent = &plan.extents()[chunk.extent.index()];
        assert_eq!(chunk.file, extent.file);
        let cached = options.cached.get(chunk.file.index()).map_or(&[][..], Vec::as_slice);
        let end = chunk.offset + chunk.payload_len as u64;
        let is_cached = cached.iter().any(|range| range.start() <= chunk.offset && range.end() >= end);
        let direct = extent.method == Method::Direct && !is_cached;
        assert_eq!(chunk.method, if direct { Method::Direct } else { Method::Buffered });
        assert!(chunk.payload_len >= 1 && chunk.payload_len <= chunk.buffer_range.len());
        assert!(chunk.buffer_range.len() <= (2 << 30) - 4096, "more than one read of Linux can bring");
        assert!(chunk.offset + chunk.payload_len as u64 <= catalog.file(chunk.file).bytes, "past the end of the file");
        assert!(
            extent.strided.is_some()
                || i128::from(chunk.offset) - chunk.buffer_range.start as i128
                    == i128::from(extent.range.start()) - extent.buffer_offset as i128,
            "the place of the extent"
        );
        if chunk.method == Method::Direct {
            assert_eq!(chunk.alignment, extent.alignment);
            assert!(chunk.alignment.divides(chunk.offset));
            assert!(chunk.alignment.divides(chunk.buffer_range.start as u64));
            assert!(chunk.alignment.divides(chunk.buffer_range.len() as u64));
        } else {
            assert_eq!(chunk.payload_len, chunk.buffer_range.len(), "a buffered read brings no more than is wanted");
        }
        if let Some(strided) = extent.strided {
            strided_chunk(plan, chunk, extent, strided, &mut filled[chunk.extent.index()]);
            continue;
        }
        assert!(!chunk.gathered && u64::from(chunk.align_prefix) == extent.range.start().saturating_sub(chunk.offset));
        let from = filled[chunk.extent.index()].unwrap_or(extent.alignment.down(extent.range.start()));
        assert_eq!(chunk.offset, from, "without a gap and without reading twice");
        filled[chunk.extent.index()] = Some(chunk.offset + chunk.payload_len as u64);
    }
    for (extent, filled) in plan.extents().iter().zip(filled) {
        let end = extent.range.end();
        assert_eq!(filled, Some(extent.strided.map_or(end, |strided| strided.before(end))));
    }
}

/// Checks a plan with an arena: ranges are disjoint, and each byte of a tensor comes from one
/// chunk, to its place.
fn whole(catalog: &Catalog, options: &PlanOptions, plan: &Plan) {
    let mut slots: Vec<_> = plan.chunks().iter().map(|chunk| plan.dest_range(chunk)).collect();
    slots.sort_unstable_by_key(|slot| slot.start);
    assert!(slots.windows(2).all(|pair| pair[0].end <= pair[1].start), "slots overlap");
    assert!(slots.last().is_none_or(|slot| slot.end <= plan.arena_bytes()));
    assert!(!plan.is_streamed() && plan.extents().iter().all(|extent| extent.buffer_bytes == 0));

    let mut covered = vec![0_u64; plan.placements().len()];
    for chunk in plan.chunks() {
        for index in chunk.tensors.clone() {
            let placement = &plan.placements()[index];
            let tensor = plan.tensor(catalog, index);
            if let Some(strided) = plan.strided(index) {
                let (start, end) =
                    (chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
                let Location::Arena(place) = placement.location else { panic!("blocks are in no mapping") };
                assert_eq!(plan.dest_range(chunk).start as u64, place as u64 + strided.before(start), "at its place");
                covered[index] += strided.before(end) - strided.before(start);
                continue;
            }
            let start = chunk.offset.max(tensor.range.start());
            let end = (chunk.offset + chunk.payload_len as u64).min(tensor.range.end());
            if start >= end {
                continue;
            }
            let Location::Arena(place) = placement.location else { continue };
            assert_eq!(chunk.file, tensor.file);
            let from = chunk.buffer_range.start as u64 + (start - chunk.offset);
            assert_eq!(from, place as u64 + (start - tensor.range.start()), "at its place");
            covered[index] += end - start;
        }
    }
    let ascend = |pair: &[(FileId, ByteRange)]| (pair[0].0, pair[0].1.end()) < (pair[1].0, pair[1].1.start());
    assert!(plan.mapped().windows(2).all(ascend), "mapped runs ascend, and are apart");
    for (index, (placement, covered)) in plan.placements().iter().zip(covered).enumerate() {
        let tensor = plan.tensor(catalog, index);
        let alignment = tensor_alignment(&tensor, options.tensor_alignment);
        match placement.location {
            Location::Arena(place) => {
                assert!(alignment.divides(place as u64));
                assert_eq!(covered, plan.byte_len(index), "every byte once");
            }
            Location::Mapped => {
                assert!(matches!(options.access, Access::Map { .. }));
                assert!(alignment <= Alignment::PAGE && alignment.divides(tensor.range.start()));
                let holds = |&(file, range): &(FileId, ByteRange)| {
                    file == tensor.file && range.start() <= tensor.range.start() && tensor.range.end() <= range.end()
                };
                // The last run that starts at or before it.
                let place = (tensor.file, tensor.range.start());
                let after = plan.mapped().partition_point(|&(file, range)| (file, range.start()) <= place);
                let run = after.checked_sub(1).map(|at| &plan.mapped()[at]);
                assert!(tensor.range.is_empty() || run.is_some_and(holds), "a mapped tensor that is in no mapped run");
            }
            Location::Streamed => panic!("it is no stream"),
        }
    }
}

/// Checks a stream: buffers are within limits, and parts ascend without gaps, whole where required.
fn streamed(catalog: &Catalog, options: &PlanOptions, buffers: Buffers, plan: &Plan) {
    assert!(plan.is_streamed() && plan.arena_bytes() == 0 && plan.mapped().is_empty());
    for chunk in plan.chunks() {
        assert!(
            plan.dest_range(chunk).end <= plan.extents()[chunk.extent.index()].buffer_bytes,
            "a slot past its buffer"
        );
    }
    let in_order = plan.chunks().windows(2).all(|pair| pair[0].extent <= pair[1].extent);
    assert!(in_order, "buffers are filled one after another");

    let mut next = vec![0_u64; plan.placements().len()];
    let mut seen = HashSet::new();
    let mut last = 0;
    for (number, extent) in plan.extents().iter().enumerate() {
        assert!(extent.buffer_bytes as u64 <= buffers.limit.max(MIN_BUFFER_BYTES), "a buffer over the limit");
        let mut parts = HashSet::new();
        for part in plan.parts(ExtentId(number as u32)) {
            let placement = &plan.placements()[part.placement];
            assert_eq!(placement.location, Location::Streamed);
            let tensor = plan.tensor(catalog, part.placement);
            let bytes = part.buffer_range.len() as u64;
            assert!(part.buffer_range.end <= extent.buffer_bytes);
            assert!(buffers.order == Order::Completion || part.placement >= last, "the order that was asked for");
            last = part.placement;
            if tensor.range.is_empty() {
                assert!(bytes == 0 && seen.insert(part.placement), "what is empty comes once");
                continue;
            }
            assert!(bytes > 0 && (buffers.split || bytes == tensor.byte_len()), "whole unless it may be split");
            // Tied tensors count as one.
            parts.insert((part.buffer_range.start, part.buffer_range.end));
            // A tensor in parts is never contiguous in memory, so only its elements must be
            // aligned.
            let whole = bytes == tensor.byte_len();
            let min = if whole { options.tensor_alignment } else { Alignment::ONE };
            let alignment = tensor_alignment(&tensor, min).as_u64();
            assert_eq!(extent.file, tensor.file);
            assert_eq!(part.buffer_range.start as u64 % alignment, part.offset % alignment, "aligned");
            assert_eq!(part.offset % tensor.dtype.block_bytes(), 0, "whole elements");
            assert_eq!(bytes % tensor.dtype.block_bytes(), 0, "whole elements");
            let in_buffer = part.buffer_range.start as u64 - extent.buffer_offset as u64;
            let before = match extent.strided {
                Some(strided) => strided.before(extent.range.start()),
                None => extent.range.start() - tensor.range.start().min(extent.range.start()),
            };
            let behind = tensor.range.start().saturating_sub(extent.range.start());
            assert_eq!(in_buffer, behind + part.offset - before, "at its place");
            assert_eq!(next[part.placement], part.offset, "parts ascend without a gap");
            next[part.placement] += bytes;
        }
        assert!(!parts.is_empty(), "a buffer without a byte of a tensor");
        assert!(
            parts.len() == 1 || extent.buffer_bytes as u64 <= buffers.buffer_bytes.max(MIN_BUFFER_BYTES),
            "a shared buffer that is too large"
        );
    }
    for (index, (next, placement)) in next.iter().zip(plan.placements()).enumerate() {
        assert_eq!(*next, plan.byte_len(index), "every byte comes");
        if placement.range.is_empty() {
            assert!(seen.contains(&index) != plan.without_extent().contains(&index), "what is empty comes once");
        }
    }
}
