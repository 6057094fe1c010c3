//! The planner's thresholds: the length of a read, direct or buffered, shared buffers, refusals.

use super::slices::shaped;
use super::*;

#[test]
fn reads_are_a_power_of_two_of_64_kib_to_1_gib() {
    let catalog = catalog(&[(vec![(1 << 30) + (1 << 20)], 0)]);
    for (asked, bytes) in [(0, 64 << 10), ((64 << 10) + 1, 128 << 10), (3 << 20, 4 << 20), (u64::MAX, 1 << 30)] {
        let options = PlanOptions { chunk_bytes: asked, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
        assert_eq!(plan.chunks().iter().map(|chunk| chunk.payload_len).max(), Some(bytes), "{asked}");
    }
}

#[test]
fn more_reads_than_can_be_numbered_are_refused() {
    // One more than these, because each extent may add one read.
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
    let selected: Vec<TensorSlice> = all(&catalog).into_iter().step_by(2).collect();
    let plan = Planner::default().plan(&catalog, &selected).expect("plans");
    let max = plan.selected_bytes() / 128 + (4 << 20);
    assert_eq!(plan.read_bytes() - plan.selected_bytes(), max - max % (64 << 10), "as many whole gaps as that holds");
}

#[test]
fn only_long_runs_are_read_directly() {
    let method = |bytes| {
        // After another tensor, because the position in the file does not matter.
        let catalog = catalog(&[(vec![8 << 20, bytes], 0)]);
        let options = PlanOptions { direct: vec![limits(512)], ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &[TensorId(1).into()]).expect("plans").extents()[0].method
    };
    assert_eq!([method(128 * 512 - 4), method(128 * 512)], [Method::Buffered, Method::Direct]);
}

#[test]
fn tensors_stay_aligned_behind_one_that_need_not_be() {
    // A byte tensor at offsets that misalign a float tensor directly after it.
    for (residue, bytes) in [(5, 3), (6, 2), (7, 1)] {
        let catalog = catalog(&[(vec![bytes, 4], residue)]);
        let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
        let Location::Arena(place) = plan.placements()[1].location else { panic!("nothing is mapped") };
        assert_eq!((plan.extents().len(), place % 4), (1, 0));
    }
}

#[test]
fn tensors_share_64_kib_even_if_less_is_requested() {
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
    let buffer_bytes = (64 << 10) + 2;
    let options = PlanOptions { access: streamed(buffer_bytes, 1 << 20, false, Order::File), ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().all(|extent| extent.buffer_bytes as u64 <= buffer_bytes));
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
        // The tensor is misaligned in the file, and parts do not need the alignment.
        tensor_alignment: Alignment::PAGE,
        ..PlanOptions::default()
    };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert!(plan.extents().iter().all(|extent| extent.method == Method::Direct));
    assert!(plan.extents()[1..].iter().all(|extent| extent.range.start().is_multiple_of(512)));
}

#[test]
fn as_many_buffers_are_planned_as_are_little_to_describe() {
    // For a limit of 1 MiB: an eighth of it and 16 MiB, at a hundred bytes per entry.
    let max = (1 << 20) / 800 + 160_000;
    // A buffer counts as seven eighths full. Add one for the rest, and 17 reads of 1 GiB.
    let bytes = (max - 1 - 17) * (128 << 10) / 8 * 7;
    let plan = |sizes: Vec<u64>| {
        let catalog = catalog(&[(sizes, 0)]);
        let access = streamed(128 << 10, 1 << 20, true, Order::File);
        let options = PlanOptions { access, chunk_bytes: 1 << 30, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &all(&catalog))
    };
    assert!(plan(vec![bytes]).expect("just few enough").extents().len() as u64 <= max);
    let error = plan(vec![bytes, 1000]).expect_err("one too many");
    assert!(matches!(error, Error::TooManyBuffers { bytes: all, .. } if all == bytes + 1000), "{error}");
}

#[test]
fn what_is_aligned_to_more_than_a_page_is_not_mapped() {
    let catalog = shaped(&[(crate::DType::U8, vec![64 << 10])], (64 << 10) - 8);
    assert_eq!(catalog.tensor(TensorId(0)).range.start(), 64 << 10);
    for (alignment, location) in [(4096, Location::Mapped), (8192, Location::Arena(0)), (64 << 10, Location::Arena(0))]
    {
        let tensor_alignment = Alignment::new(alignment).expect("a power of two");
        let options =
            PlanOptions { access: Access::Map { resident: false }, tensor_alignment, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
        assert_eq!(plan.placements()[0].location, location, "{alignment}");
    }
}

#[test]
fn no_memory_is_longer_than_an_object_may_be() {
    use super::super::extents::in_memory;
    assert_eq!(in_memory(isize::MAX as u64), Ok(isize::MAX as usize));
    let needed = isize::MAX as u64 + 1;
    assert_eq!(in_memory(needed), Err(Error::AddressSpace { needed }));
}
