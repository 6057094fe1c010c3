//! The planner's contract on hand-made and on arbitrary catalogs: every selected byte is covered once, at an address that
//! keeps every alignment, within the memory that is promised.

use super::*;
use crate::CatalogBuilder;
use crate::format::{Format, safetensors::Header};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// A file of tensors of several dtypes of these byte sizes, whose data starts at an offset of the given residue modulo 8.
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
    builder.add_safetensors(&format!("file{file}"), file_len, &header).expect("adds");
}

fn catalog(files: &[(Vec<u64>, u64)]) -> Catalog {
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    for (i, (sizes, residue)) in files.iter().enumerate() {
        add_file(&mut builder, i, sizes, *residue);
    }
    builder.finish().expect("unique names")
}

fn all(catalog: &Catalog) -> Vec<Wanted> {
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
fn only_the_tensor_that_would_be_misaligned_goes_another_way() {
    // An odd U8 tensor between two F32 ones pushes the second off its alignment.
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
    let selected: Vec<Wanted> = all(&catalog).into_iter().step_by(2).collect();
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
        assert_eq!(buffered, chunk.offset + chunk.want as u64 <= 40 << 20, "{chunk:?}");
    }
    // Neither waits for the other.
    let first = &buffered[..buffered.len() / 4];
    assert!(first.contains(&true) && first.contains(&false), "{buffered:?}");
}

proptest! {
    #[test]
    fn every_selected_byte_is_covered_once_at_its_aligned_place(
        files in prop::collection::vec((prop::collection::vec(prop_oneof![0_u64..64, 0_u64..3_000_000], 0..12), 0_u64..8), 1..4),
        picks in prop::collection::vec(any::<bool>(), 48),
        direct in prop::collection::vec(prop_oneof![Just(None), Just(limits(512)), Just(limits(4096))], 4),
        tensor_alignment in prop_oneof![Just(1_u64), Just(64), Just(4096)],
        chunk_bytes in prop_oneof![Just(1_u64 << 16), Just(1 << 20), Just(4 << 20)],
        merge_gap in prop_oneof![Just(0_u64), Just(4096), Just(1 << 20)],
        cached in prop::collection::vec((0_u64..4_000_000, 0_u64..4_000_000), 0..4),
    ) {
        let catalog = catalog(&files);
        let cached = vec![cached.iter().filter_map(|&(start, bytes)| ByteRange::new(start, start + bytes)).take(1).collect(); 2];
        let selected: Vec<Wanted> =
            all(&catalog).into_iter().filter(|wanted| picks[wanted.tensor().index() % picks.len()]).collect();
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        let options =
            PlanOptions { direct, cached, tensor_alignment: alignment, chunk_bytes, merge_gap, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("no limit is set");

        // Slots are disjoint and inside the arena, and chunks keep the alignment of direct reads.
        let mut slots: Vec<_> = plan.chunks().iter().map(|chunk| chunk.slot.clone()).collect();
        slots.sort_by_key(|slot| slot.start);
        prop_assert!(slots.windows(2).all(|pair| pair[0].end <= pair[1].start));
        prop_assert!(slots.iter().all(|slot| slot.start < slot.end && slot.end <= plan.arena_bytes()));
        for chunk in plan.chunks() {
            prop_assert!(chunk.want >= 1 && chunk.want <= chunk.slot.len());
            if chunk.method == Method::Direct {
                prop_assert!(chunk.alignment.divides(chunk.offset));
                prop_assert!(chunk.alignment.divides(chunk.slot.start as u64));
                prop_assert!(chunk.alignment.divides(chunk.slot.len() as u64));
            }
        }
        // Each tensor's bytes come from its own place in the file, each byte from exactly one chunk.
        prop_assert_eq!(plan.placements().len(), selected.len());
        for (index, placement) in plan.placements().iter().enumerate() {
            let tensor = catalog.tensor(placement.tensor);
            let Location::Arena(place) = placement.location else { panic!("nothing is mapped") };
            prop_assert_eq!(place as u64 % tensor.dtype.alignment().max(tensor_alignment), 0);
            let mut covered = 0;
            for chunk in plan.chunks().iter().filter(|chunk| chunk.file == tensor.file) {
                let start = chunk.offset.max(tensor.range.start());
                let end = (chunk.offset + chunk.want as u64).min(tensor.range.end());
                if start < end && chunk.tensors.contains(&index) {
                    covered += end - start;
                    prop_assert_eq!(
                        chunk.slot.start as u64 + (start - chunk.offset),
                        place as u64 + (start - tensor.range.start())
                    );
                }
            }
            prop_assert_eq!(covered, tensor.range.len());
        }
        // What is read along stays small.
        if tensor_alignment == 1 {
            prop_assert!(plan.arena_bytes() as u64 <= plan.selected_bytes() * 102 / 100 + (5 << 20));
        }
    }
}

fn streamed(gather: u64, limit: u64, split: bool, order: Order) -> Access {
    Access::Stream(Buffers { gather, limit, split, order })
}

#[test]
fn a_tensor_that_no_buffer_holds_is_named_or_cut() {
    let catalog = catalog(&[(vec![1000, 8 << 20, 1000], 0)]);
    let plan = |limit, split| {
        let access = streamed(1 << 20, limit, split, Order::Arrival);
        let options = PlanOptions { access, direct: vec![limits(512)], ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &all(&catalog))
    };
    let error = plan(8 << 20, false).expect_err("too small");
    let Error::BufferTooSmall { tensor, needed, limit } = &error else { panic!("{error}") };
    assert_eq!((tensor.as_str(), *limit), ("f0.t1", 8 << 20));
    assert!(error.to_string().contains("for_each_chunk"), "{error}");
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
    // Behind a tensor of one byte, so that elements and alignments do not go together.
    let bytes = 3 * 1_000_003_u64;
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"b":{{"dtype":"F6_E2M3","shape":[{}],"data_offsets":[1,{}]}}}}"#,
        bytes * 8 / 6,
        bytes + 1
    );
    let file_len = 8 + json.len() as u64 + bytes + 1;
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    builder.add_safetensors("six", file_len, &Header::parse(json.as_bytes(), file_len).expect("valid")).expect("adds");
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
            assert_eq!((part.offset % 3, part.bytes.len() % 3), (0, 0));
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
    // In parts no alignment but the elements' own is kept, so that none is too much.
    let access = streamed(1 << 16, 1 << 20, true, Order::File);
    let options = PlanOptions { access, tensor_alignment: Alignment::HUGE_PAGE, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("in parts");
    assert!(plan.extents().iter().all(|extent| extent.buffer_bytes <= 1 << 16 && !extent.range.is_empty()));
}

#[test]
fn a_plan_that_would_outgrow_its_stream_is_refused_at_once() {
    let catalog = catalog(&[(vec![64 << 40], 0)]);
    let plan = |limit: u64, split| {
        let access = streamed(limit / 8, limit, split, Order::Arrival);
        Planner::new(PlanOptions { access, ..PlanOptions::default() }).plan(&catalog, &all(&catalog))
    };
    let error = plan(1 << 20, true).expect_err("half a billion buffers");
    assert!(matches!(error, Error::TooManyBuffers { .. }) && error.to_string().contains("raise the limit"), "{error}");
    // Whole, it would be one buffer, and it is the buffer that is too small.
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
        gather in prop_oneof![Just(1_u64 << 16), Just(1 << 18), Just(1 << 20)],
        split in any::<bool>(),
        order in prop_oneof![Just(Order::Arrival), Just(Order::File), Just(Order::Listed)],
    ) {
        let catalog = catalog(&files);
        let mut selected: Vec<Wanted> =
            all(&catalog).into_iter().filter(|wanted| picks[wanted.tensor().index() % picks.len()]).collect();
        if order == Order::Listed {
            selected.sort_by_key(|wanted| u64::from(wanted.tensor().0).wrapping_mul(shuffle | 1) >> 7);
        }
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        // A tensor and what alignment adds.
        let limit = 3_000_000 + 2 * 4096;
        let options = PlanOptions {
            access: streamed(gather, limit, split, order),
            direct,
            tensor_alignment: alignment,
            chunk_bytes: 1 << 16,
            ..PlanOptions::default()
        };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("every tensor fits in the limit");
        prop_assert!(plan.is_streamed() && plan.arena_bytes() == 0);
        prop_assert!(plan.placements().iter().map(|placement| placement.tensor).eq(selected.iter().map(Wanted::tensor)));

        // The chunks of an extent lie side by side in its buffer, in the order of the extents.
        let mut chunks = plan.chunks().iter().peekable();
        for (index, extent) in plan.extents().iter().enumerate() {
            let whole = plan.parts(ExtentId(index as u32)).filter(|part| !part.bytes.is_empty()).count() == 1;
            let most = if split || !whole { gather } else { limit };
            prop_assert!(extent.buffer_bytes as u64 <= most);
            let mut filled = None;
            while let Some(chunk) = chunks.next_if(|chunk| chunk.extent.index() == index) {
                prop_assert!(filled.is_none_or(|filled| filled == chunk.slot.start) && chunk.want <= chunk.slot.len());
                prop_assert_eq!(chunk.offset as i64 - chunk.slot.start as i64, extent.range.start() as i64 - extent.place as i64);
                if chunk.method == Method::Direct {
                    prop_assert!(chunk.alignment.divides(chunk.offset));
                    prop_assert!(chunk.alignment.divides(chunk.slot.start as u64));
                    prop_assert!(chunk.alignment.divides(chunk.slot.len() as u64));
                }
                filled = Some(chunk.slot.end);
            }
            prop_assert!(filled.is_some_and(|filled| filled <= extent.buffer_bytes));
        }
        prop_assert!(chunks.next().is_none());

        // Every tensor's bytes come once, whole unless they may be split, aligned, and in the order that was asked for.
        let mut next = vec![0_u64; selected.len()];
        let mut last = 0;
        for index in 0..plan.extents().len() {
            let extent = &plan.extents()[index];
            for part in plan.parts(ExtentId(index as u32)) {
                let tensor = catalog.tensor(plan.placements()[part.placement].tensor);
                let bytes = part.bytes.len() as u64;
                prop_assert!(part.bytes.end <= extent.buffer_bytes);
                prop_assert!(split || bytes == tensor.range.len(), "whole");
                let element = tensor.dtype.whole_bytes();
                prop_assert!(part.offset.is_multiple_of(element) && bytes.is_multiple_of(element), "whole elements");
                if bytes > 0 {
                    prop_assert_eq!(extent.file, tensor.file);
                    let whole = bytes == tensor.range.len();
                    let wanted = tensor.dtype.alignment().max(if whole { tensor_alignment } else { 1 });
                    prop_assert_eq!(part.bytes.start as u64 % wanted, part.offset % wanted);
                    prop_assert_eq!(part.bytes.start - extent.place, (tensor.range.start() + part.offset - extent.range.start()) as usize);
                }
                prop_assert_eq!(next[part.placement], part.offset, "parts ascend without a gap");
                next[part.placement] = if bytes == 0 { u64::MAX } else { part.offset + bytes };
                prop_assert!(order == Order::Arrival || part.placement >= last);
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

#[test]
fn reads_are_a_power_of_two_of_64_kib_to_1_gib() {
    let catalog = catalog(&[(vec![(1 << 30) + (1 << 20)], 0)]);
    for (asked, bytes) in [(0, 64 << 10), ((64 << 10) + 1, 128 << 10), (3 << 20, 4 << 20), (u64::MAX, 1 << 30)] {
        let options = PlanOptions { chunk_bytes: asked, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
        assert_eq!(plan.chunks().iter().map(|chunk| chunk.want).max(), Some(bytes), "{asked}");
    }
}

#[test]
fn more_reads_than_can_be_numbered_are_refused() {
    // One more read than these, as each extent may have one more than its bytes ask for.
    let bytes = u64::from(u32::MAX / 2) * (64 << 10);
    let catalog = catalog(&[(vec![bytes], 0)]);
    let options = PlanOptions { chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let error = Planner::new(options).plan(&catalog, &all(&catalog)).expect_err("too many");
    assert_eq!(error, Error::TooMany { what: "reads" });
}

#[test]
fn a_read_lists_the_tensors_that_have_bytes_in_it() {
    let catalog = catalog(&[(vec![64 << 10, 32 << 10, 96 << 10, 64 << 10], 0)]);
    let options = PlanOptions { chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    let tensors: Vec<_> = plan.chunks().iter().map(|chunk| chunk.tensors.clone()).collect();
    assert_eq!(tensors, [0..1, 1..3, 2..3, 3..4]);
}

#[test]
fn two_files_take_turns() {
    let catalog = catalog(&[(vec![12 << 20], 0), (vec![12 << 20], 0)]);
    let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.chunks().iter().map(|chunk| chunk.file.0).eq([0, 1, 0, 1, 0, 1]));
}

#[test]
fn a_small_file_is_read_amid_a_large_one() {
    let catalog = catalog(&[(vec![4 << 20], 0), (vec![12 << 20], 0)]);
    let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.chunks().iter().map(|chunk| chunk.file.0).eq([1, 0, 1, 1]));
}

#[test]
fn gaps_are_read_until_they_are_no_longer_few() {
    let catalog = catalog(&[(vec![64 << 10; 2000], 0)]);
    let selected: Vec<Wanted> = all(&catalog).into_iter().step_by(2).collect();
    let plan = Planner::default().plan(&catalog, &selected).expect("plans");
    let most = plan.selected_bytes() / 128 + (4 << 20);
    assert_eq!(plan.read_bytes() - plan.selected_bytes(), most - most % (64 << 10), "as many whole gaps as that holds");
}

#[test]
fn only_long_runs_are_read_directly() {
    let method = |bytes| {
        // Behind another tensor, as what counts is not how far into the file a run lies.
        let catalog = catalog(&[(vec![8 << 20, bytes], 0)]);
        let options = PlanOptions { direct: vec![limits(512)], ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &[TensorId(1).into()]).expect("plans").extents()[0].method
    };
    assert_eq!([method(128 * 512 - 4), method(128 * 512)], [Method::Buffered, Method::Direct]);
}

#[test]
fn tensors_stay_aligned_behind_one_that_need_not_be() {
    // A byte tensor at offsets that a float may not have, and a float tensor right behind it.
    for (residue, bytes) in [(5, 3), (6, 2), (7, 1)] {
        let catalog = catalog(&[(vec![bytes, 4], residue)]);
        let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
        let Location::Arena(place) = plan.placements()[1].location else { panic!("nothing is mapped") };
        assert_eq!((plan.extents().len(), place % 4), (1, 0));
    }
}

#[test]
fn tensors_share_64_kib_however_little_is_asked_for() {
    let catalog = catalog(&[(vec![32 << 10, 32 << 10, 1000], 0)]);
    let options = PlanOptions { access: streamed(1, 1 << 20, false, Order::File), ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().map(|extent| extent.tensors.clone()).eq([0..2, 2..3]));
}

#[test]
fn what_a_buffer_reads_along_at_its_edges_stays_little_of_it() {
    let catalog = catalog(&[(vec![4 << 20], 0)]);
    let method = |alignment| {
        let access = streamed(64 << 10, 8 << 20, false, Order::File);
        let options = PlanOptions { access, direct: vec![limits(alignment)], ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans").extents()[0].method
    };
    assert_eq!([method(4096), method(8192)], [Method::Direct, Method::Buffered]);
}

#[test]
fn a_shared_buffer_has_room_for_what_alignment_adds() {
    // Three bytes before the float tensor's alignment, and two more than the tensors' own.
    let catalog = catalog(&[(vec![1, 64 << 10], 3)]);
    let gather = (64 << 10) + 2;
    let options = PlanOptions { access: streamed(gather, 1 << 20, false, Order::File), ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().all(|extent| extent.buffer_bytes as u64 <= gather));
}

#[test]
fn what_is_far_into_its_file_takes_no_more_buffers() {
    let catalog = catalog(&[(vec![64 << 40, 1000, 64 << 40], 0)]);
    let plan = |tensor| {
        let access = streamed(128 << 10, 1 << 20, true, Order::File);
        Planner::new(PlanOptions { access, ..PlanOptions::default() }).plan(&catalog, &[TensorId(tensor).into()])
    };
    assert_eq!(plan(1).expect("it is small").extents().len(), 1);
    assert!(matches!(plan(2), Err(Error::TooManyBuffers { .. })));
}

#[test]
fn parts_are_cut_where_direct_reads_may_begin() {
    let catalog = catalog(&[(vec![15 << 19], 0)]);
    let options = PlanOptions {
        access: streamed(1 << 20, 4 << 20, true, Order::File),
        direct: vec![limits(512)],
        // Which the tensor does not have in the file, and does not need in parts.
        tensor_alignment: Alignment::PAGE,
        ..PlanOptions::default()
    };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().all(|extent| extent.method == Method::Direct));
    assert!(plan.extents()[1..].iter().all(|extent| extent.range.start().is_multiple_of(512)));
}

#[test]
fn as_many_buffers_are_planned_as_are_little_to_describe() {
    // For a limit of 1 MiB, what a hundred bytes each of an eighth of it and of 16 MiB describe.
    let most = (1 << 20) / 800 + 160_000;
    // A buffer counts as filled to seven eighths; one more as anything is, and 17 reads of 1 GiB.
    let bytes = (most - 1 - 17) * (128 << 10) / 8 * 7;
    let plan = |sizes: Vec<u64>| {
        let catalog = catalog(&[(sizes, 0)]);
        let access = streamed(128 << 10, 1 << 20, true, Order::File);
        let options = PlanOptions { access, chunk_bytes: 1 << 30, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &all(&catalog))
    };
    assert!(plan(vec![bytes]).expect("just few enough").extents().len() as u64 <= most);
    let error = plan(vec![bytes, 1000]).expect_err("one too many");
    assert!(matches!(error, Error::TooManyBuffers { bytes: all, .. } if all == bytes + 1000), "{error}");
}

/// A file of these tensors, given by dtype and shape, whose data starts at an offset of the given residue modulo 8.
fn shaped(tensors: &[(crate::DType, Vec<u64>)], residue: u64) -> Catalog {
    let (mut json, mut at) = ("{".to_string(), 0);
    for (i, (dtype, shape)) in tensors.iter().enumerate() {
        let bytes = shape.iter().product::<u64>() * dtype.bits() / 8;
        let comma = if i == 0 { "" } else { "," };
        json += &format!(
            r#"{comma}"t{i:02}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{}]}}"#,
            at + bytes
        );
        at += bytes;
    }
    json.push('}');
    while (8 + json.len() as u64) % 8 != residue {
        json.push(' ');
    }
    let bytes = 8 + json.len() as u64 + at;
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    builder.add_safetensors("f", bytes, &Header::parse(json.as_bytes(), bytes).expect("valid")).expect("adds");
    builder.finish().expect("unique names")
}

/// The offsets in the file of the bytes of a slice, in its order, found by looking at every group of elements.
fn slow_slice(tensor: &TensorInfo<'_>, slice: Option<Slice>) -> Vec<u64> {
    let group = tensor.dtype.whole_bytes();
    let elements = 8 * group / tensor.dtype.bits();
    let wanted = |index: u64| {
        let Some(slice) = slice else { return true };
        let inner: u64 = tensor.shape[slice.dim as usize + 1..].iter().product();
        (slice.start..slice.end).contains(&(index / inner % tensor.shape[slice.dim as usize]))
    };
    let groups = (0..tensor.range.len() / group).filter(|number| wanted(number * elements));
    groups.flat_map(|number| (0..group).map(move |byte| tensor.range.start() + number * group + byte)).collect()
}

/// A byte of a file, without a period.
fn content(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The memory of a plan, by extent where it is streamed, after every read has been carried out as the plan says.
fn carried_out(plan: &Plan) -> Vec<Vec<u8>> {
    let mut memory: Vec<Vec<u8>> = if plan.is_streamed() {
        plan.extents().iter().map(|extent| vec![0xee; extent.buffer_bytes]).collect()
    } else {
        vec![vec![0xee; plan.arena_bytes()]]
    };
    for chunk in plan.chunks() {
        let home = &mut memory[if plan.is_streamed() { chunk.extent.index() } else { 0 }];
        let read: Vec<u8> = (chunk.offset..chunk.offset + chunk.want as u64).map(content).collect();
        match plan.gather(chunk) {
            None => home[chunk.slot.start..chunk.slot.start + chunk.want].copy_from_slice(&read),
            Some(gather) => {
                assert!(chunk.slot.start == 0 && chunk.want <= chunk.slot.len());
                let mut filled = 0;
                for (source, target) in gather.copies() {
                    assert!(source.start >= chunk.lead as usize && target == filled);
                    filled += source.len();
                }
                assert_eq!(filled, gather.landing().len());
                gather.copy(&read, &mut crate::WriteOnly::new(&mut home[gather.landing()]));
            }
        }
        if chunk.method == Method::Direct {
            assert!(chunk.alignment.divides(chunk.offset) && chunk.alignment.divides(chunk.slot.start as u64));
            assert!(chunk.alignment.divides(chunk.slot.len() as u64));
        }
    }
    memory
}

#[test]
fn a_slice_of_rows_reads_its_rows_and_one_of_columns_what_is_cheaper() {
    use crate::DType::{BF16, U8};
    // Rows of 2 KiB, and rows of 1 MiB.
    let catalog = shaped(&[(BF16, vec![4096, 1024]), (U8, vec![16, 1 << 20])], 0);
    let plan = |tensor: u32, dim, range, gather_gap| {
        let wanted = [Wanted::slice(&catalog.tensor(TensorId(tensor)), dim, range).expect("a slice")];
        let options = PlanOptions { direct: vec![limits(512)], gather_gap, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &wanted).expect("plans")
    };
    let rows = plan(0, 0, 1024..2048, 128 << 10);
    assert!(rows.selected_bytes() == 2 << 20 && rows.read_bytes() < (2 << 20) + 512);
    assert!(rows.chunks().iter().all(|chunk| !chunk.gathered && chunk.method == Method::Direct));
    assert_eq!(rows.tensor(&catalog, 0).shape, [1024, 1024]);
    let along = plan(0, 1, 256..512, 128 << 10);
    assert!(along.read_bytes() > 7 << 20 && along.chunks().iter().all(|chunk| chunk.gathered));
    assert_eq!((along.selected_bytes(), along.arena_bytes()), (2 << 20, 2 << 20), "what is read along does not stay");
    assert_eq!(along.tensor(&catalog, 0).shape, [4096, 256]);
    let apart = plan(1, 1, 0..256 << 10, 128 << 10);
    assert_eq!((apart.chunks().len(), apart.selected_bytes()), (16, 4 << 20));
    assert!(apart.read_bytes() < (4 << 20) + 16 * 512);
    let along = plan(1, 1, 0..256 << 10, 1 << 20);
    assert!(along.read_bytes() > 12 << 20 && along.chunks().len() == 4);
}

#[test]
fn pieces_that_are_read_through_the_page_cache_are_read_to_where_they_stay() {
    let catalog = shaped(&[(crate::DType::U8, vec![8, 1 << 20])], 3);
    let wanted = [Wanted::slice(&catalog.tensor(TensorId(0)), 1, 0..300_000).expect("a slice")];
    let options = PlanOptions { gather_gap: 0, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &wanted).expect("plans");
    assert!(plan.chunks().len() == 8 && plan.chunks().iter().all(|chunk| !chunk.gathered));
}

#[test]
fn of_a_slice_that_is_partly_cached_that_part_is_read_through_the_page_cache() {
    let catalog = shaped(&[(crate::DType::U8, vec![64, 1 << 18])], 0);
    let tensor = catalog.tensor(TensorId(0));
    let wanted = [Wanted::slice(&tensor, 1, 0..1 << 17).expect("a slice")];
    let end = tensor.range.start() + (8 << 20);
    let plan = |gather_gap| {
        let cached = vec![vec![ByteRange::new(0, end).expect("forwards")]];
        let options = PlanOptions { direct: vec![limits(512)], cached, gather_gap, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &wanted).expect("plans")
    };
    let ways = |plan: &Plan| -> Vec<(Method, bool)> {
        let mut chunks: Vec<&Chunk> = plan.chunks().iter().collect();
        chunks.sort_by_key(|chunk| chunk.offset);
        assert!(
            chunks.iter().all(|chunk| (chunk.method == Method::Buffered) == (chunk.offset + chunk.want as u64 <= end))
        );
        let mut ways: Vec<_> = chunks.iter().map(|chunk| (chunk.method, chunk.gathered)).collect();
        ways.dedup();
        ways
    };
    let along = plan(1 << 18);
    assert_eq!(ways(&along), [(Method::Buffered, true), (Method::Direct, true)]);
    let lanes: Vec<Method> = along.chunks().iter().map(|chunk| chunk.method).collect();
    assert!(lanes.windows(2).all(|pair| pair[0] != pair[1]), "they take turns: {lanes:?}");
    assert_eq!(
        ways(&plan(0)),
        [(Method::Buffered, false), (Method::Direct, true)],
        "a cached piece needs no gathering"
    );
}

#[test]
fn a_slice_that_no_buffer_holds_is_refused_for_that_and_one_in_too_many_parts_for_those() {
    let catalog = shaped(&[(crate::DType::U8, vec![2, 64 << 40])], 0);
    let plan = |end, split| {
        let wanted = [Wanted::slice(&catalog.tensor(TensorId(0)), 1, 0..end).expect("a slice")];
        let access = streamed(128 << 10, 1 << 20, split, Order::File);
        Planner::new(PlanOptions { access, ..PlanOptions::default() }).plan(&catalog, &wanted)
    };
    let error = plan(32 << 40, false).expect_err("too long");
    assert!(matches!(error, Error::BufferTooSmall { needed, .. } if needed == 64 << 40), "{error}");
    assert!(matches!(plan(32 << 40, true), Err(Error::TooManyBuffers { .. })));
    let parts = plan(96 << 10, true).expect("what lies between is not read").extents().len();
    assert_eq!((parts, plan(96 << 10, false).expect("fits").extents().len()), (2, 1));
}

fn any_tensor() -> impl Strategy<Value = (crate::DType, Vec<u64>)> {
    let shape = prop_oneof![
        6 => prop::collection::vec(0_u64..7, 0..5),
        2 => prop::collection::vec(1_u64..90, 2..4),
        1 => (1_u64..9, 1_u64..70_000).prop_map(|(a, b)| vec![a, b]),
        1 => (1_u64..5, 1_u64..9, 1_u64..9000).prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    (prop::sample::select(crate::DType::ALL), shape).prop_map(|(dtype, mut shape)| {
        // Packed elements fill whole bytes.
        if dtype.bits() < 8 {
            shape.push(4);
        }
        (dtype, shape)
    })
}

proptest! {
    #[test]
    fn every_slice_comes_whole_and_in_order_however_it_is_read(
        tensors in prop::collection::vec(any_tensor(), 1..5),
        cuts in prop::collection::vec(prop::option::weighted(0.8, (any::<u32>(), any::<u64>(), any::<u64>())), 5),
        residue in 0_u64..8,
        direct in prop_oneof![Just(None), Just(limits(1)), Just(limits(512)), Just(limits(4096))],
        chunk_bytes in prop_oneof![Just(1_u64 << 16), Just(1 << 20)],
        gather_gap in prop_oneof![Just(0_u64), Just(100), Just(5000), Just(u64::MAX)],
        tensor_alignment in prop_oneof![Just(1_u64), Just(64)],
        cached in prop::collection::vec((1_u64..60_000, 1_u64..120_000), 0..4),
        access in prop_oneof![
            2 => Just(Access::Copy),
            1 => Just(Access::Map { resident: false }),
            1 => Just(streamed(1 << 16, 8 << 20, true, Order::File)),
            1 => Just(streamed(1 << 17, 8 << 20, false, Order::Arrival)),
        ],
    ) {
        let catalog = shaped(&tensors, residue);
        let wanted: Vec<Wanted> = catalog.tensors().zip(&cuts).filter_map(|(tensor, cut)| {
            let Some((dim, a, b)) = cut else { return Some(Wanted::whole(tensor.id)) };
            let dim = dim.checked_rem(tensor.shape.len() as u32)?;
            let (a, b) = (a % (tensor.shape[dim as usize] + 1), b % (tensor.shape[dim as usize] + 1));
            Wanted::slice(&tensor, dim, a.min(b)..a.max(b)).ok()
        }).collect();
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        let mut end = 0;
        let cached: Vec<ByteRange> = cached.iter().filter_map(|&(gap, bytes)| {
            let start = end + gap;
            end = start + bytes;
            ByteRange::new(start, end)
        }).collect();
        let options = PlanOptions { access, direct: vec![direct], cached: vec![cached.clone()], tensor_alignment: alignment, chunk_bytes, gather_gap, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &wanted).expect("plans");

        let mut landings: Vec<_> = plan.chunks().iter().map(|chunk| (chunk.extent, plan.landing(chunk))).collect();
        if !plan.is_streamed() {
            landings.iter_mut().for_each(|(extent, _)| *extent = ExtentId(0));
        }
        landings.sort_by_key(|(extent, landing)| (*extent, landing.start));
        prop_assert!(landings.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].1.end <= pair[1].1.start));
        for chunk in plan.chunks() {
            let extent = &plan.extents()[chunk.extent.index()];
            let (start, end) = (extent.alignment.down(chunk.offset + u64::from(chunk.lead)), chunk.offset + chunk.want as u64);
            let is_cached = cached.iter().any(|range| range.start() <= start && end <= range.end());
            prop_assert_eq!(chunk.method == Method::Direct, extent.method == Method::Direct && !is_cached);
        }
        let memory = carried_out(&plan);
        let mut booked = vec![0; wanted.len()];
        for chunk in plan.chunks() {
            for index in chunk.tensors.clone() {
                booked[index] += plan.bytes_within(index, chunk.offset + u64::from(chunk.lead), chunk.offset + chunk.want as u64);
            }
        }
        let mut parts = vec![Vec::new(); wanted.len()];
        if plan.is_streamed() {
            for (number, buffer) in memory.iter().enumerate() {
                for part in plan.parts(ExtentId(number as u32)) {
                    parts[part.placement].push((part.offset, buffer[part.bytes].to_vec()));
                }
            }
        }
        for (index, wanted) in wanted.iter().enumerate() {
            let tensor = catalog.tensor(wanted.tensor());
            let expected: Vec<u8> = slow_slice(&tensor, wanted.as_slice()).into_iter().map(content).collect();
            let sliced = plan.tensor(&catalog, index);
            prop_assert_eq!((sliced.bytes(), plan.bytes(index)), (expected.len() as u64, expected.len() as u64));
            prop_assert_eq!(plan.slice(index), wanted.as_slice());
            let placement = &plan.placements()[index];
            let found = match placement.location {
                Location::Mapped => (placement.range.start()..placement.range.end()).map(content).collect(),
                Location::Arena(_) if expected.is_empty() => vec![],
                Location::Arena(place) => {
                    prop_assert_eq!(place as u64 % tensor_alignment.max(tensor.dtype.alignment()), 0);
                    memory[0][place..place + expected.len()].to_vec()
                }
                Location::Streamed => {
                    parts[index].sort();
                    prop_assert_eq!(parts[index].is_empty(), plan.without_extent().contains(&index));
                    let mut next = 0;
                    for (offset, bytes) in &parts[index] {
                        prop_assert!(*offset == next && offset.is_multiple_of(tensor.dtype.whole_bytes()));
                        next += bytes.len() as u64;
                    }
                    parts[index].iter().flat_map(|(_, bytes)| bytes.clone()).collect()
                }
            };
            prop_assert!(found == expected, "tensor {} differs", index);
            let missing = if placement.location == Location::Mapped { 0 } else { expected.len() as u64 };
            if placement.location != Location::Mapped {
                prop_assert_eq!(booked[index], missing, "each byte is booked once");
            }
        }
    }
}
