//! What every plan promises, checked from its public parts alone.

use floodtide_core::{
    Access, Alignment, Buffers, Catalog, ExtentId, Location, Method, Order, Plan, PlanOptions, TensorId,
    tensor_alignment,
};
use std::collections::HashSet;

/// The most that is read along between tensors, whatever the checkpoint: the constant part.
const GAPS: u64 = 4 << 20;

/// Tensors that share a buffer of a stream may always have so much together, whatever is asked for.
const MIN_GATHER: u64 = 64 << 10;

/// Panics when the plan breaks a promise.
pub fn check(catalog: &Catalog, selected: &[TensorId], options: &PlanOptions, plan: &Plan) {
    assert!(plan.placements().iter().map(|placement| placement.tensor).eq(selected.iter().copied()));
    for placement in plan.placements() {
        assert_eq!(placement.range, catalog.tensor(placement.tensor).range);
    }
    let selected_bytes: u64 = plan.placements().iter().map(|placement| placement.range.len()).sum();
    assert_eq!(plan.selected_bytes(), selected_bytes);
    extents(catalog, options, plan);
    let along: u64 = plan.extents().iter().map(|extent| extent.range.len()).sum();
    assert!(along <= selected_bytes + selected_bytes / 128 + GAPS, "{along} bytes are read for {selected_bytes}");
    chunks(catalog, options, plan);
    match options.access {
        Access::Copy | Access::Map { .. } => whole(catalog, options, plan),
        Access::Stream(buffers) => streamed(catalog, options, buffers, plan),
    }
}

/// The memory that carrying out the plan takes.
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

/// Every chunk lies in its extent, keeps the alignment of direct reads, and they follow one another without a gap.
fn chunks(catalog: &Catalog, options: &PlanOptions, plan: &Plan) {
    let mut filled = vec![None; plan.extents().len()];
    let mut in_order: Vec<_> = plan.chunks().iter().collect();
    if !plan.is_streamed() {
        // What is cached of an extent, and what is not, are read side by side.
        in_order.sort_by_key(|chunk| (chunk.extent, chunk.offset));
    }
    for chunk in in_order {
        let extent = &plan.extents()[chunk.extent.index()];
        assert_eq!(chunk.file, extent.file);
        let cached = options.cached.get(chunk.file.index()).map_or(&[][..], Vec::as_slice);
        let end = chunk.offset + chunk.want as u64;
        let is_cached = cached.iter().any(|range| range.start() <= chunk.offset && range.end() >= end);
        let direct = extent.method == Method::Direct && !is_cached;
        assert_eq!(chunk.method, if direct { Method::Direct } else { Method::Buffered });
        assert!(chunk.want >= 1 && chunk.want <= chunk.slot.len());
        assert!(chunk.slot.len() <= (2 << 30) - 4096, "more than one read of Linux can bring");
        assert!(chunk.offset + chunk.want as u64 <= catalog.file(chunk.file).bytes, "past the end of the file");
        assert_eq!(
            i128::from(chunk.offset) - chunk.slot.start as i128,
            i128::from(extent.range.start()) - extent.place as i128,
            "the place of the extent"
        );
        if chunk.method == Method::Direct {
            assert_eq!(chunk.alignment, extent.alignment);
            assert!(chunk.alignment.divides(chunk.offset));
            assert!(chunk.alignment.divides(chunk.slot.start as u64));
            assert!(chunk.alignment.divides(chunk.slot.len() as u64));
        } else {
            assert_eq!(chunk.want, chunk.slot.len(), "a buffered read brings no more than is wanted");
        }
        let from = filled[chunk.extent.index()].unwrap_or(extent.alignment.down(extent.range.start()));
        assert_eq!(chunk.offset, from, "without a gap and without reading twice");
        filled[chunk.extent.index()] = Some(chunk.offset + chunk.want as u64);
    }
    for (extent, filled) in plan.extents().iter().zip(filled) {
        assert_eq!(filled, Some(extent.range.end()));
    }
}

/// A plan with an arena: slots are disjoint, each byte of a tensor comes from one chunk, to its place.
fn whole(catalog: &Catalog, options: &PlanOptions, plan: &Plan) {
    let mut slots: Vec<_> = plan.chunks().iter().map(|chunk| chunk.slot.clone()).collect();
    slots.sort_unstable_by_key(|slot| slot.start);
    assert!(slots.windows(2).all(|pair| pair[0].end <= pair[1].start), "slots overlap");
    assert!(slots.last().is_none_or(|slot| slot.end <= plan.arena_bytes()));
    assert!(!plan.is_streamed() && plan.extents().iter().all(|extent| extent.buffer_bytes == 0));

    let mut covered = vec![0_u64; plan.placements().len()];
    for chunk in plan.chunks() {
        for index in chunk.tensors.clone() {
            let placement = &plan.placements()[index];
            let tensor = catalog.tensor(placement.tensor);
            let start = chunk.offset.max(tensor.range.start());
            let end = (chunk.offset + chunk.want as u64).min(tensor.range.end());
            if start >= end {
                continue;
            }
            let Location::Arena(place) = placement.location else { continue };
            assert_eq!(chunk.file, tensor.file);
            let from = chunk.slot.start as u64 + (start - chunk.offset);
            assert_eq!(from, place as u64 + (start - tensor.range.start()), "at its place");
            covered[index] += end - start;
        }
    }
    let mut mapped = plan.mapped().iter();
    let mut run = mapped.next();
    for (placement, covered) in plan.placements().iter().zip(covered) {
        let tensor = catalog.tensor(placement.tensor);
        let alignment = tensor_alignment(&tensor, options.tensor_alignment);
        match placement.location {
            Location::Arena(place) => {
                assert!(alignment.divides(place as u64));
                assert_eq!(covered, tensor.range.len(), "every byte once");
            }
            Location::Mapped => {
                assert!(matches!(options.access, Access::Map { .. }));
                assert!(alignment.divides(tensor.range.start()));
                let holds = |&(file, range): &(_, floodtide_core::ByteRange)| {
                    file == tensor.file && range.start() <= tensor.range.start() && tensor.range.end() <= range.end()
                };
                while !tensor.range.is_empty() && !run.is_some_and(holds) {
                    assert!(run.is_some(), "a mapped tensor that is in no mapped run");
                    run = mapped.next();
                }
            }
            Location::Streamed => panic!("it is no stream"),
        }
    }
}

/// A stream: buffers within their limits, parts that ascend without a gap, whole where they must be.
fn streamed(catalog: &Catalog, options: &PlanOptions, buffers: Buffers, plan: &Plan) {
    assert!(plan.is_streamed() && plan.arena_bytes() == 0 && plan.mapped().is_empty());
    for chunk in plan.chunks() {
        assert!(chunk.slot.end <= plan.extents()[chunk.extent.index()].buffer_bytes, "a slot past its buffer");
    }
    let in_order = plan.chunks().windows(2).all(|pair| pair[0].extent <= pair[1].extent);
    assert!(in_order, "buffers are filled one after another");

    let mut next = vec![0_u64; plan.placements().len()];
    let mut seen = HashSet::new();
    let mut last = 0;
    for (number, extent) in plan.extents().iter().enumerate() {
        assert!(extent.buffer_bytes as u64 <= buffers.limit.max(MIN_GATHER), "a buffer over the limit");
        let mut parts = 0;
        for part in plan.parts(ExtentId(number as u32)) {
            let placement = &plan.placements()[part.placement];
            assert_eq!(placement.location, Location::Streamed);
            let tensor = catalog.tensor(placement.tensor);
            let bytes = part.bytes.len() as u64;
            assert!(part.bytes.end <= extent.buffer_bytes);
            assert!(buffers.order == Order::Arrival || part.placement >= last, "the order that was asked for");
            last = part.placement;
            if tensor.range.is_empty() {
                assert!(bytes == 0 && seen.insert(part.placement), "what is empty comes once");
                continue;
            }
            assert!(bytes > 0 && (buffers.split || bytes == tensor.range.len()), "whole unless it may be split");
            parts += 1;
            // What comes in parts is no tensor in memory: only its elements must be aligned.
            let whole = bytes == tensor.range.len();
            let least = if whole { options.tensor_alignment } else { Alignment::ONE };
            let alignment = tensor_alignment(&tensor, least).bytes();
            assert_eq!(extent.file, tensor.file);
            assert_eq!(part.bytes.start as u64 % alignment, part.offset % alignment, "aligned");
            assert_eq!(part.offset % tensor.dtype.whole_bytes(), 0, "whole elements");
            assert_eq!(bytes % tensor.dtype.whole_bytes(), 0, "whole elements");
            let in_buffer = part.bytes.start as u64 - extent.place as u64;
            assert_eq!(in_buffer, tensor.range.start() + part.offset - extent.range.start(), "at its place");
            assert_eq!(next[part.placement], part.offset, "parts ascend without a gap");
            next[part.placement] += bytes;
        }
        assert!(parts > 0, "a buffer without a byte of a tensor");
        assert!(
            parts == 1 || extent.buffer_bytes as u64 <= buffers.gather.max(MIN_GATHER),
            "a shared buffer that is too large"
        );
    }
    for (index, (next, placement)) in next.iter().zip(plan.placements()).enumerate() {
        assert_eq!(*next, placement.range.len(), "every byte comes");
        if placement.range.is_empty() {
            assert!(seen.contains(&index) != plan.without_extent().contains(&index), "what is empty comes once");
        }
    }
}
