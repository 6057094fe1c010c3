//! The planner's contract on hand-made and arbitrary catalogs: every selected byte is covered once,
//! aligned, within the promised memory.

mod limits;
mod slices;
mod ties;

use super::*;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::{CatalogBuilder, DirectLimits, Error, TensorSlice};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// A file of tensors of several dtypes with these sizes. The data starts at an offset with this
/// residue modulo 8.
fn add_file(builder: &mut CatalogBuilder, file: usize, sizes: &[u64], residue: u64) {
    let mut json = "{".to_string();
    let mut at = 0;
    for (i, &bytes) in sizes.iter().enumerate() {
        let (dtype, elements) = match i % 6 {
            4 if bytes % 8 == 0 => ("F64", bytes / 8),
            5 if bytes % 3 == 0 => ("F6_E2M3", bytes / 3 * 4),
            _ if bytes % 4 == 0 => ("F32", bytes / 4),
            _ => ("U8", bytes),
        };
        let comma = if i == 0 { "" } else { "," };
        json += &format!(
            r#"{comma}"f{file}.t{i}":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[{at},{}]}}"#,
            at + bytes
        );
        at += bytes;
    }
    json.push('}');
    while (8 + json.len() as u64) % 8 != residue {
        json.push(' ');
    }
    let file_len = 8 + json.len() as u64 + at;
    let header = Header::parse(json.as_bytes(), file_len).expect("valid");
    header.add_to(builder, &format!("file{file}"), file_len).expect("adds");
}

fn catalog(files: &[(Vec<u64>, u64)]) -> Catalog {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    for (i, (sizes, residue)) in files.iter().enumerate() {
        add_file(&mut builder, i, sizes, *residue);
    }
    builder.finish().expect("unique names")
}

fn all(catalog: &Catalog) -> Vec<TensorSlice> {
    catalog.tensors().map(|tensor| tensor.id.into()).collect()
}

fn limits(bytes: u64) -> Option<DirectLimits> {
    let alignment = Alignment::new(bytes).expect("a power of two");
    Some(DirectLimits { offset: alignment, memory: alignment })
}

#[test]
fn a_whole_file_is_one_direct_extent_in_place() {
    let catalog = catalog(&[(vec![4 << 20, 1000, 8 << 20], 0)]);
    let options = PlanOptions { direct: vec![limits(512)], ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!(plan.extents().len(), 1);
    assert_eq!(plan.extents()[0].method, Method::Direct);
    assert_eq!(plan.chunks().len(), 4);
    assert!(plan.arena_bytes() as u64 - plan.selected_bytes() < 3 * 512);
}

#[test]
fn a_file_with_data_at_an_odd_offset_is_shifted_as_one_run() {
    let catalog = catalog(&[(vec![4 << 20, 1000, 8 << 20], 3)]);
    let options = PlanOptions { direct: vec![limits(512)], ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!(plan.extents().len(), 1, "the tensors lie right to one another");
    assert_eq!(plan.extents()[0].method, Method::Buffered);
}

#[test]
fn only_the_tensor_that_would_be_misaligned_is_read_buffered() {
    // An odd U8 tensor between two F32 ones misaligns the second.
    let catalog = catalog(&[(vec![4 << 20, 1001, 8 << 20], 0)]);
    let options = PlanOptions { direct: vec![limits(512)], ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    let methods: Vec<Method> = plan.extents().iter().map(|extent| extent.method).collect();
    assert_eq!(methods, [Method::Direct, Method::Buffered]);
    let mapped = PlanOptions { access: Access::Map { resident: false }, ..PlanOptions::default() };
    let plan = Planner::new(mapped).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!((plan.extents().len(), plan.mapped().len()), (1, 1));
    assert_eq!(plan.extents()[0].range.len(), 8 << 20);
}

#[test]
fn what_does_not_fit_is_refused() {
    let catalog = catalog(&[(vec![4 << 20], 0)]);
    let memory = Some(MemoryLimit { available: 1 << 20, limit: "a test".to_string() });
    let options = PlanOptions { memory, ..PlanOptions::default() };
    let error = Planner::new(options.clone()).plan(&catalog, &all(&catalog)).expect_err("too little");
    assert!(matches!(&error, Error::NotEnoughMemory { available, .. } if *available == 1 << 20), "{error}");
    let resident = PlanOptions { access: Access::Map { resident: true }, ..options.clone() };
    assert!(Planner::new(resident).plan(&catalog, &all(&catalog)).is_err());
    let lazy = PlanOptions { access: Access::Map { resident: false }, ..options };
    assert!(Planner::new(lazy).plan(&catalog, &all(&catalog)).is_ok());
}

#[test]
fn all_files_progress_together() {
    let catalog = catalog(&[(vec![64 << 20], 0), (vec![16 << 20], 0), (vec![64 << 20], 0)]);
    let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
    let half: Vec<u32> = plan.chunks()[..plan.chunks().len() / 2].iter().map(|chunk| chunk.file.0).collect();
    for (file, share) in [(0, 8), (1, 2), (2, 8)] {
        let count = half.iter().filter(|&&f| f == file).count();
        assert!(count.abs_diff(share) <= 1, "file {file} has {count} of its chunks in the first half");
    }
}

#[test]
fn scattered_small_tensors_take_no_more_memory_than_they_need() {
    let catalog = catalog(&[(vec![256 << 10; 2000], 0)]);
    let selected: Vec<TensorSlice> = all(&catalog).into_iter().step_by(2).collect();
    let options = PlanOptions { direct: vec![limits(4096)], ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    assert!(plan.arena_bytes() as u64 <= plan.selected_bytes() * 102 / 100 + (4 << 20));
}

#[test]
fn what_is_cached_is_copied_beside_the_direct_reads_of_the_rest() {
    let catalog = catalog(&[(vec![64 << 20], 0)]);
    let cached = vec![vec![ByteRange::new(0, 40 << 20).expect("forwards")]];
    let options = PlanOptions { direct: vec![limits(512)], cached, chunk_bytes: 2 << 20, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!(plan.extents().len(), 1);
    let buffered: Vec<bool> = plan.chunks().iter().map(|chunk| chunk.method == Method::Buffered).collect();
    for (chunk, &buffered) in plan.chunks().iter().zip(&buffered) {
        assert_eq!(buffered, chunk.offset + chunk.payload_len as u64 <= 40 << 20, "{chunk:?}");
    }
    // Neither waits for the other.
    let first = &buffered[..buffered.len() / 4];
    assert!(first.contains(&true) && first.contains(&false), "{buffered:?}");
}

#[test]
fn a_hole_in_what_is_cached_is_all_that_is_read_past_it() {
    const MIB: u64 = 1 << 20;
    let catalog = catalog(&[(vec![32 * MIB], 0)]);
    // A hole of 64 KiB in every 2 MiB, and one small cached range in the last of 8 MiB.
    let mut cached: Vec<ByteRange> = (0..12)
        .map(|i| ByteRange::new(i * 2 * MIB + 512 * 1024, (i + 1) * 2 * MIB + 448 * 1024).expect("forwards"))
        .collect();
    cached.push(ByteRange::new(28 * MIB, 28 * MIB + 32 * 1024).expect("forwards"));
    let options =
        PlanOptions { direct: vec![limits(512)], cached: vec![cached], chunk_bytes: 4 * MIB, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    let direct = || plan.chunks().iter().filter(|chunk| chunk.method == Method::Direct);
    let holes: Vec<usize> = direct().filter(|chunk| chunk.offset < 24 * MIB).map(|chunk| chunk.payload_len).collect();
    assert_eq!(holes, [vec![512 << 10], vec![64 << 10; 11]].concat());
    // The small one is not worth two more reads.
    assert_eq!(direct().filter(|chunk| (24 * MIB..32 * MIB).contains(&chunk.offset)).count(), 2, "{:?}", plan.chunks());
}

proptest! {
    #[test]
    fn every_selected_byte_is_covered_once_at_its_aligned_place(
        files in prop::collection::vec((prop::collection::vec(prop_oneof![0_u64..64, 0_u64..3_000_000], 0..12), 0_u64..8), 1..4),
        picks in prop::collection::vec(any::<bool>(), 48),
        direct in prop::collection::vec(prop_oneof![Just(None), Just(limits(512)), Just(limits(4096))], 4),
        tensor_alignment in prop_oneof![Just(1_u64), Just(64), Just(4096)],
        chunk_bytes in prop_oneof![Just(1_u64 << 16), Just(1 << 20), Just(4 << 20)],
        max_merge_gap in prop_oneof![Just(0_u64), Just(4096), Just(1 << 20)],
        bounds in prop::collection::btree_set(0_u64..10_000_000, 0..12),
    ) {
        let catalog = catalog(&files);
        let bounds: Vec<u64> = bounds.into_iter().collect();
        let cached: Vec<ByteRange> =
            bounds.chunks_exact(2).map(|pair| ByteRange::new(pair[0], pair[1]).expect("ascending")).collect();
        let cached = vec![cached; 2];
        let selected: Vec<TensorSlice> =
            all(&catalog).into_iter().filter(|selected_slice| picks[selected_slice.tensor().index() % picks.len()]).collect();
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        let options =
            PlanOptions { direct, cached: cached.clone(), tensor_alignment: alignment, chunk_bytes, max_merge_gap, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("no limit is set");

        // Ranges are disjoint and in the arena, and chunks are aligned for direct reads.
        let mut slots: Vec<_> = plan.chunks().iter().map(|chunk| chunk.buffer_range.clone()).collect();
        slots.sort_by_key(|slot| slot.start);
        prop_assert!(slots.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert!(slots.iter().all(|slot| slot.start < slot.end && slot.end <= plan.arena_bytes()));
        for chunk in plan.chunks() {
            prop_assert!(chunk.payload_len >= 1 && chunk.payload_len <= chunk.buffer_range.len());
            if chunk.method == Method::Direct {
                prop_assert!(chunk.alignment.divides(chunk.offset));
                prop_assert!(chunk.alignment.divides(chunk.buffer_range.start as u64));
                prop_assert!(chunk.alignment.divides(chunk.buffer_range.len() as u64));
            }
            // Cached bytes are not read from the device, and others are, where there is a choice.
            let Some(cached) = cached.get(chunk.file.index()) else { continue };
            let end = chunk.offset + chunk.payload_len as u64;
            let parts = cached.iter().map(|part| end.min(part.end()).saturating_sub(chunk.offset.max(part.start())));
            if chunk.method == Method::Direct {
                prop_assert!(parts.max().unwrap_or(0) < (64 << 10) + 2 * 4096, "{:?}", chunk);
            } else if plan.extents()[chunk.extent.index()].method == Method::Direct {
                prop_assert_eq!(parts.max(), Some(chunk.payload_len as u64));
            }
        }
        // Each byte of a tensor comes from its own offset in the file and from exactly one chunk.
        prop_assert_eq!(plan.placements().len(), selected.len());
        for (index, placement) in plan.placements().iter().enumerate() {
            let tensor = catalog.tensor(placement.tensor);
            let Location::Arena(place) = placement.location else { panic!("nothing is mapped") };
            prop_assert_eq!(place as u64 % tensor.dtype.alignment().max(tensor_alignment), 0);
            let mut covered = 0;
            for chunk in plan.chunks().iter().filter(|chunk| chunk.file == tensor.file) {
                let start = chunk.offset.max(tensor.range.start());
                let end = (chunk.offset + chunk.payload_len as u64).min(tensor.range.end());
                if start < end && chunk.tensors.contains(&index) {
                    covered += end - start;
                    prop_assert_eq!(
                        chunk.buffer_range.start as u64 + (start - chunk.offset),
                        place as u64 + (start - tensor.range.start())
                    );
                }
            }
            prop_assert_eq!(covered, tensor.range.len());
        }
        // The gaps that are read along stay small.
        if tensor_alignment == 1 {
            prop_assert!(plan.arena_bytes() as u64 <= plan.selected_bytes() * 102 / 100 + (5 << 20));
        }
    }
}

fn streamed(buffer_bytes: u64, limit: u64, split: bool, order: Order) -> Access {
    Access::Stream(Buffers { buffer_bytes, limit, split, order })
}

#[test]
fn a_tensor_that_no_buffer_holds_is_named_or_cut() {
    let catalog = catalog(&[(vec![1000, 8 << 20, 1000], 0)]);
    let plan = |limit, split| {
        let access = streamed(1 << 20, limit, split, Order::Completion);
        let options = PlanOptions { access, direct: vec![limits(512)], ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &all(&catalog))
    };
    let error = plan(8 << 20, false).expect_err("too small");
    let Error::BufferTooSmall { tensor, needed, limit } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), *limit), ("f0.t1", 8 << 20));
    assert!(error.to_string().contains("for_each_part"), "{error}");
    assert_eq!(plan(*needed, false).expect("what the message asks for").extents().len(), 3);
    assert!(plan(8 << 20, true).expect("in parts").extents().len() >= 9);
}

#[test]
fn the_tensor_that_is_named_is_the_long_one() {
    let catalog = catalog(&[(vec![0, 0, 8 << 20], 0)]);
    let options = PlanOptions { access: streamed(1 << 20, 2 << 20, false, Order::File), ..PlanOptions::default() };
    let error = Planner::new(options).plan(&catalog, &all(&catalog)).expect_err("too small");
    assert!(matches!(&error, Error::BufferTooSmall { tensor, .. } if tensor == "f0.t2"), "{error}");
}

#[test]
fn parts_hold_whole_elements_also_of_six_bits() {
    // After a tensor of one byte, so that elements and alignments differ.
    let bytes = 3 * 1_000_003_u64;
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"b":{{"dtype":"F6_E2M3","shape":[{}],"data_offsets":[1,{}]}}}}"#,
        bytes * 8 / 6,
        bytes + 1
    );
    let file_len = 8 + json.len() as u64 + bytes + 1;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), file_len).expect("valid").add_to(&mut builder, "six", file_len).expect("adds");
    let catalog = builder.finish().expect("unique names");
    let options = PlanOptions {
        access: streamed(1 << 17, 1 << 20, true, Order::File),
        direct: vec![limits(512)],
        ..PlanOptions::default()
    };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().filter(|extent| extent.method == Method::Direct).count() > 20);
    for extent in 0..plan.extents().len() {
        for part in plan.parts(ExtentId(extent as u32)).filter(|part| part.placement == 1) {
            assert_eq!((part.offset % 3, part.buffer_range.len() % 3), (0, 0));
        }
    }
}

#[test]
fn tensors_are_refused_for_what_they_really_need() {
    let catalog = catalog(&[(vec![1 << 20, 100], 0)]);
    let plan = |limit, alignment| {
        let access = streamed(1 << 16, limit, false, Order::File);
        let tensor_alignment = Alignment::new(alignment).expect("a power of two");
        Planner::new(PlanOptions { access, tensor_alignment, ..PlanOptions::default() }).plan(&catalog, &all(&catalog))
    };
    assert!(plan((1 << 20) + 8, 1).is_ok(), "the tensor and where it begins in an aligned buffer");
    assert!(plan((1 << 20) + 8, 2 << 20).is_ok(), "an alignment costs nothing at a buffer's start");
    assert!(plan((1 << 20) - 1, 1).is_err());
    // In parts only the elements' own alignment is kept, so none is too strict.
    let access = streamed(1 << 16, 1 << 20, true, Order::File);
    let options = PlanOptions { access, tensor_alignment: Alignment::HUGE_PAGE, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("in parts");
    assert!(plan.extents().iter().all(|extent| extent.buffer_bytes <= 1 << 16 && !extent.range.is_empty()));
}

#[test]
fn a_plan_that_would_outgrow_its_stream_is_refused_at_once() {
    let catalog = catalog(&[(vec![64 << 40], 0)]);
    let plan = |limit: u64, split| {
        let access = streamed(limit / 8, limit, split, Order::Completion);
        Planner::new(PlanOptions { access, ..PlanOptions::default() }).plan(&catalog, &all(&catalog))
    };
    let error = plan(1 << 20, true).expect_err("half a billion buffers");
    assert!(matches!(error, Error::TooManyBuffers { .. }) && error.to_string().contains("raise the limit"), "{error}");
    // Whole, it would need one buffer that is too large.
    let error = plan(1 << 20, false).expect_err("a buffer of 64 TiB");
    assert!(matches!(&error, Error::BufferTooSmall { tensor, .. } if tensor == "f0.t0"), "{error}");
}

#[test]
fn a_stream_that_does_not_fit_in_memory_is_refused() {
    let catalog = catalog(&[(vec![4 << 20; 4], 0)]);
    let plan = |available| {
        let memory = Some(MemoryLimit { available, limit: "a test".to_string() });
        let access = streamed(4 << 20, 8 << 20, true, Order::File);
        Planner::new(PlanOptions { access, memory, ..PlanOptions::default() }).plan(&catalog, &all(&catalog))
    };
    assert!(matches!(plan(7 << 20), Err(Error::NotEnoughMemory { needed, .. }) if needed == 8 << 20));
    assert!(plan(8 << 20).is_ok(), "only what there is at a time counts");
}

proptest! {
    #[test]
    fn a_stream_delivers_every_byte_once_in_buffers_that_are_not_too_large(
        files in prop::collection::vec((prop::collection::vec(prop_oneof![3 => 0_u64..64, 2 => Just(0_u64), 3 => 0_u64..3_000_000], 0..12), 0_u64..8), 1..4),
        picks in prop::collection::vec(any::<bool>(), 48),
        shuffle in any::<u64>(),
        direct in prop::collection::vec(prop_oneof![Just(None), Just(limits(512)), Just(limits(4096))], 4),
        tensor_alignment in prop_oneof![Just(1_u64), Just(64), Just(4096)],
        buffer_bytes in prop_oneof![Just(1_u64 << 16), Just(1 << 18), Just(1 << 20)],
        split in any::<bool>(),
        order in prop_oneof![Just(Order::Completion), Just(Order::File), Just(Order::Selection)],
    ) {
        let catalog = catalog(&files);
        let mut selected: Vec<TensorSlice> =
            all(&catalog).into_iter().filter(|selected_slice| picks[selected_slice.tensor().index() % picks.len()]).collect();
        if order == Order::Selection {
            selected.sort_by_key(|selected_slice| u64::from(selected_slice.tensor().0).wrapping_mul(shuffle | 1) >> 7);
        }
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        // A tensor and its alignment.
        let limit = 3_000_000 + 2 * 4096;
        let options = PlanOptions {
            access: streamed(buffer_bytes, limit, split, order),
            direct,
            tensor_alignment: alignment,
            chunk_bytes: 1 << 16,
            ..PlanOptions::default()
        };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("every tensor fits in the limit");
        prop_assert!(plan.is_streamed() && plan.arena_bytes() == 0);
        prop_assert!(plan.placements().iter().map(|placement| placement.tensor).eq(selected.iter().map(TensorSlice::tensor)));

        // The chunks of an extent are adjacent in its buffer, in the order of the extents.
        let mut chunks = plan.chunks().iter().peekable();
        for (index, extent) in plan.extents().iter().enumerate() {
            let whole = plan.parts(ExtentId(index as u32)).filter(|part| !part.buffer_range.is_empty()).count() == 1;
            let max = if split || !whole { buffer_bytes } else { limit };
            prop_assert!(extent.buffer_bytes as u64 <= max);
            let mut filled = None;
            while let Some(chunk) = chunks.next_if(|chunk| chunk.extent.index() == index) {
                prop_assert!(filled.is_none_or(|filled| filled == chunk.buffer_range.start) && chunk.payload_len <= chunk.buffer_range.len());
                prop_assert_eq!(chunk.offset as i64 - chunk.buffer_range.start as i64, extent.range.start() as i64 - extent.buffer_offset as i64);
                if chunk.method == Method::Direct {
                    prop_assert!(chunk.alignment.divides(chunk.offset));
                    prop_assert!(chunk.alignment.divides(chunk.buffer_range.start as u64));
                    prop_assert!(chunk.alignment.divides(chunk.buffer_range.len() as u64));
                }
                filled = Some(chunk.buffer_range.end);
            }
            prop_assert!(filled.is_some_and(|filled| filled <= extent.buffer_bytes));
        }
        prop_assert!(chunks.next().is_none());

        // Every tensor's bytes come once, whole unless they may be split, aligned, and in the
        // requested order.
        let mut next = vec![0_u64; selected.len()];
        let mut last = 0;
        for index in 0..plan.extents().len() {
            let extent = &plan.extents()[index];
            for part in plan.parts(ExtentId(index as u32)) {
                let tensor = catalog.tensor(plan.placements()[part.placement].tensor);
                let bytes = part.buffer_range.len() as u64;
                prop_assert!(part.buffer_range.end <= extent.buffer_bytes);
                prop_assert!(split || bytes == tensor.range.len(), "whole");
                let element = tensor.dtype.block_bytes();
                prop_assert!(part.offset.is_multiple_of(element) && bytes.is_multiple_of(element), "whole elements");
                if bytes > 0 {
                    prop_assert_eq!(extent.file, tensor.file);
                    let whole = bytes == tensor.range.len();
                    let selected_slice = tensor.dtype.alignment().max(if whole { tensor_alignment } else { 1 });
                    prop_assert_eq!(part.buffer_range.start as u64 % selected_slice, part.offset % selected_slice);
                    prop_assert_eq!(part.buffer_range.start - extent.buffer_offset, (tensor.range.start() + part.offset - extent.range.start()) as usize);
                }
                prop_assert_eq!(next[part.placement], part.offset, "parts ascend without a gap");
                next[part.placement] = if bytes == 0 { u64::MAX } else { part.offset + bytes };
                prop_assert!(order == Order::Completion || part.placement >= last);
                last = part.placement;
            }
        }
        for index in plan.without_extent() {
            next[index] = u64::MAX;
        }
        for (next, placement) in next.iter().zip(plan.placements()) {
            let expected = if placement.range.is_empty() { u64::MAX } else { placement.range.len() };
            prop_assert_eq!(*next, expected);
        }
    }
}
