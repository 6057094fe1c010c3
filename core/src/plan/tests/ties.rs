//! Tied tensors: read once, to one place, and delivered under each of their names.

use super::slices::{any_tensor, carried_out, content, slow_slice};
use super::*;
use crate::{DType, ElementType, Extent};

/// A file of groups of tied tensors, given by type and shape.
fn tied(groups: &[Vec<(ElementType, Vec<u64>)>], residue: u64) -> Catalog {
    let mut builder = CatalogBuilder::new(crate::format::SERVERLESSLLM);
    let file = builder.add_file("f", 1 << 60).expect("adds");
    let mut at = 8 + residue;
    for (i, group) in groups.iter().enumerate() {
        let mut end = at;
        for (j, (dtype, shape)) in group.iter().enumerate() {
            let elements = shape.iter().map(|&size| u128::from(size)).product();
            end = at + dtype.bytes_of(elements).expect("whole blocks") as u64;
            let range = ByteRange::new(at, end).expect("forwards");
            builder.add_tensor(file, &format!("t{i}.{j}"), *dtype, shape, range).expect("adds");
        }
        at = end;
    }
    builder.finish().expect("unique names")
}

fn flat(dtype: DType, elements: u64) -> (ElementType, Vec<u64>) {
    (dtype.into(), vec![elements])
}

/// The bytes of each placement in a stream, from parts that must ascend without gaps.
fn delivered(plan: &Plan) -> Vec<Vec<u8>> {
    let memory = carried_out(plan);
    let mut bytes = vec![Vec::new(); plan.placements().len()];
    if plan.is_streamed() {
        let mut parts: Vec<_> = (0..plan.extents().len() as u32)
            .flat_map(|extent| {
                plan.parts(ExtentId(extent)).map(move |part| (part.placement, part.offset, extent, part))
            })
            .collect();
        parts.sort_by_key(|(placement, offset, ..)| (*placement, *offset));
        for (placement, offset, extent, part) in parts {
            assert_eq!(bytes[placement].len() as u64, offset, "without a gap");
            bytes[placement].extend_from_slice(&memory[extent as usize][part.buffer_range]);
        }
        return bytes;
    }
    for (index, placement) in plan.placements().iter().enumerate() {
        bytes[index] = match placement.location {
            Location::Arena(place) if plan.byte_len(index) > 0 => {
                memory[0][place..place + plan.byte_len(index) as usize].to_vec()
            }
            Location::Mapped => (placement.range.start()..placement.range.end()).map(content).collect(),
            _ => Vec::new(),
        };
    }
    bytes
}

/// The location of a placement's bytes.
fn places(plan: &Plan, placement: usize) -> Vec<(usize, usize)> {
    match plan.placements()[placement].location {
        Location::Arena(place) => vec![(usize::MAX, place)],
        Location::Mapped => vec![(usize::MAX, usize::MAX)],
        Location::Streamed => (0..plan.extents().len())
            .flat_map(|extent| plan.parts(ExtentId(extent as u32)).map(move |part| (extent, part)))
            .filter(|(_, part)| part.placement == placement && !part.buffer_range.is_empty())
            .map(|(extent, part)| (extent, part.buffer_range.start))
            .collect(),
    }
}

#[test]
fn tied_tensors_are_read_once_to_one_place() {
    let catalog =
        tied(&[vec![flat(DType::BF16, 1000)], vec![flat(DType::F32, 1 << 20); 3], vec![flat(DType::U8, 9)]], 0);
    assert!(catalog.has_ties() && !tied(&[vec![flat(DType::U8, 0); 2], vec![flat(DType::U8, 1)]], 0).has_ties());
    assert_eq!(catalog.tensor_bytes(), 2000 + (4 << 20) + 9);
    let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!((plan.selected_bytes(), plan.read_bytes(), plan.extents().len()), (4_196_313, 4_196_313, 1));
    assert_eq!(plan.placements()[1].location, plan.placements()[3].location);
    assert_eq!(plan.arena_bytes(), 4_196_313);
    // A single tied tensor is like any other.
    let second = [TensorSlice::whole(TensorId(2))];
    let alone = Planner::default().plan(&catalog, &second).expect("plans");
    assert_eq!((alone.selected_bytes(), alone.read_bytes()), (4 << 20, 4 << 20));
    // In a mapping they exist once too.
    let options = PlanOptions { access: Access::Map { resident: true }, ..PlanOptions::default() };
    let mapped = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!(mapped.mapped().iter().map(|(_, range)| range.len()).sum::<u64>(), 4_196_313);
}

#[test]
fn the_place_of_tied_tensors_suits_the_one_that_asks_for_most() {
    // At an odd offset of the file, so that all are misaligned.
    let catalog =
        tied(&[vec![flat(DType::U8, 3)], vec![flat(DType::U8, 800), flat(DType::F64, 100), flat(DType::I16, 400)]], 0);
    let plan = Planner::default().plan(&catalog, &all(&catalog)).expect("plans");
    let Location::Arena(place) = plan.placements()[1].location else { panic!("in the arena") };
    assert!(place.is_multiple_of(8) && plan.placements()[1..].iter().all(|p| p.location == Location::Arena(place)));
}

#[test]
fn blocks_that_no_cut_suits_are_read_for_each() {
    // Three bytes are whole elements of 6 bits, four of 32. A cut that suits both is not a power of
    // two.
    let group = vec![flat(DType::F6_E2M3, 4_000_000), flat(DType::F32, 750_000)];
    let catalog = tied(&[group], 0);
    let options = PlanOptions { access: streamed(1 << 17, 1 << 20, true, Order::Completion), ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
    assert_eq!(plan.read_bytes(), 6_000_000);
    let bytes = delivered(&plan);
    assert!(bytes[0].len() == 3_000_000 && bytes[0] == bytes[1]);
}

#[test]
fn of_a_stream_every_part_is_of_both() {
    let catalog =
        tied(&[vec![flat(DType::U8, 100)], vec![flat(DType::F32, 1 << 18); 2], vec![flat(DType::U8, 100)]], 0);
    for direct in [None, limits(512)] {
        let access = |order| streamed(1 << 17, 1 << 20, true, order);
        let options = |order| PlanOptions { access: access(order), direct: vec![direct], ..PlanOptions::default() };
        let plan = Planner::new(options(Order::Completion)).plan(&catalog, &all(&catalog)).expect("plans");
        assert!(places(&plan, 1).len() > 8 && places(&plan, 1) == places(&plan, 2));
        assert_eq!(plan.selected_bytes(), (1 << 20) + 200);
        let bytes = delivered(&plan);
        assert!(bytes[1].len() == 1 << 20 && bytes[1] == bytes[2]);
        // In order, the first ends before the second starts.
        let plan = Planner::new(options(Order::File)).plan(&catalog, &all(&catalog)).expect("plans");
        let order = (0..plan.extents().len() as u32).flat_map(|extent| plan.parts(ExtentId(extent)));
        assert!(order.map(|part| part.placement).is_sorted());
        assert_eq!(plan.selected_bytes(), (2 << 20) + 200);
        assert!(delivered(&plan) == bytes);
    }
    // Whole, they share a buffer. The first one reports that it is too small.
    let access = |limit| streamed(1 << 17, limit, false, Order::File);
    let plan = |limit| {
        Planner::new(PlanOptions { access: access(limit), ..PlanOptions::default() }).plan(&catalog, &all(&catalog))
    };
    let whole = plan(2 << 20).expect("plans");
    assert_eq!(places(&whole, 1), places(&whole, 2));
    assert!(matches!(plan(1 << 19), Err(Error::BufferTooSmall { tensor, .. }) if tensor == "t1.0"));
}

#[test]
fn blocks_that_no_cut_suits_are_one_where_nothing_is_cut() {
    let catalog = tied(&[vec![flat(DType::F6_E2M3, 4000), flat(DType::U8, 3000)]], 0);
    for access in [Access::Copy, Access::Map { resident: true }, streamed(1 << 17, 1 << 20, false, Order::Completion)] {
        let options = PlanOptions { access, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &all(&catalog)).expect("plans");
        let mapped: u64 = plan.mapped().iter().map(|(_, range)| range.len()).sum();
        assert_eq!((plan.selected_bytes(), plan.read_bytes() + mapped), (3000, 3000), "{access:?}");
    }
}

#[test]
fn what_is_mapped_for_several_is_mapped_once() {
    let catalog = tied(&[vec![flat(DType::U8, 1 << 20); 3]], 0);
    let slice = |tensor, range| TensorSlice::slice(&catalog.tensor(TensorId(tensor)), 0, range).expect("a slice");
    let ranges = |slice: &[TensorSlice]| {
        let memory = Some(MemoryLimit { available: 1 << 20, limit: "a test".to_string() });
        let options = PlanOptions { access: Access::Map { resident: true }, memory, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, slice).expect("fits");
        plan.mapped().iter().map(|(_, range)| (range.start() - 8, range.end() - 8)).collect::<Vec<_>>()
    };
    assert_eq!(ranges(&[TensorSlice::whole(TensorId(0)), slice(1, 100..1000)]), [(0, 1 << 20)], "nested");
    let descending = [slice(0, 5000..9000), slice(1, 0..1000), slice(2, 800..2000)];
    assert_eq!(ranges(&descending), [(0, 2000), (5000, 9000)]);
}

#[test]
fn tied_tensors_that_are_not_adjacent_are_read_again() {
    let catalog = tied(&[vec![flat(DType::U8, 1 << 20); 2], vec![flat(DType::U8, 1 << 20)]], 0);
    let listed = [0, 2, 1].map(|tensor| TensorSlice::whole(TensorId(tensor)));
    let options = PlanOptions { access: streamed(1 << 21, 1 << 22, false, Order::Selection), ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &listed).expect("plans");
    assert_eq!((plan.read_bytes(), plan.selected_bytes()), (3 << 20, 3 << 20));
    let bytes = delivered(&plan);
    assert!(bytes[0] == bytes[2] && bytes[0] != bytes[1]);
}

#[test]
fn what_is_mapped_between_others_keeps_them_apart_unless_it_is_in_order() {
    // The first and the third row are misaligned everywhere, the second is aligned further on.
    let catalog = tied(&[vec![flat(DType::U8, 1000); 3], vec![flat(DType::U8, 1000); 3]], 0);
    let slice = |tensor, range| {
        TensorSlice::slice(&catalog.tensor(TensorId(tensor)), 0, range).expect("a slice of a dimension")
    };
    let options = PlanOptions {
        access: Access::Map { resident: false },
        tensor_alignment: Alignment::new(8).expect("a power of two"),
        ..PlanOptions::default()
    };
    let planner = Planner::new(options);
    for (second, third, extents) in [(800..900, 401..500, 2), (400..409, 417..500, 1), (400..500, 417..450, 1)] {
        let slice = [slice(0, 1..9), slice(1, second.clone()), slice(2, third.clone())];
        let plan = planner.plan(&catalog, &slice).expect("plans");
        assert_eq!(plan.placements()[1].location, Location::Mapped);
        assert_eq!(plan.extents().len(), extents, "{second:?}, {third:?}");
        assert!(plan.chunks().iter().any(|chunk| chunk.tensors.contains(&2)), "{second:?}, {third:?}");
    }
}

proptest! {
    #[test]
    fn every_name_has_its_bytes_and_equal_ones_have_one_place(
        groups in prop::collection::vec((any_tensor(), prop::collection::vec(0_u8..3, 0..3)), 1..4),
        cuts in prop::collection::vec(prop::option::weighted(0.5, (any::<u32>(), any::<u64>(), any::<u64>())), 4),
        apart in any::<u16>(),
        left_out in any::<u16>(),
        each in any::<u16>(),
        residue in 0_u64..8,
        direct in prop_oneof![Just(None), Just(limits(512))],
        max_read_gap in prop_oneof![Just(0_u64), Just(u64::MAX)],
        access in prop_oneof![
            2 => Just(Access::Copy),
            1 => Just(Access::Map { resident: true }),
            1 => Just(streamed(1 << 16, 8 << 20, true, Order::File)),
            1 => Just(streamed(1 << 16, 8 << 20, true, Order::Completion)),
            1 => Just(streamed(1 << 17, 8 << 20, false, Order::Completion)),
        ],
    ) {
        let groups: Vec<Vec<_>> = groups.into_iter().map(|(first, more)| {
            let bytes = first.0.bytes_of(first.1.iter().map(|&n| u128::from(n)).product()).expect("whole blocks") as u64;
            let mut group = vec![first.clone()];
            group.extend(more.into_iter().map(|kind| match kind {
                0 => first.clone(),
                1 if bytes.is_multiple_of(8) => flat(DType::F64, bytes / 8),
                _ => flat(DType::U8, bytes),
            }));
            group
        }).collect();
        let catalog = tied(&groups, residue);
        let group_of = |tensor: &TensorInfo<'_>| tensor.name[1..2].parse::<usize>().expect("a digit");
        let slice: Vec<TensorSlice> = catalog.tensors().enumerate().filter_map(|(i, tensor)| {
            // Some are not selected, and some are whole while others of their group are sliced.
            if left_out >> (i % 16) & 3 == 3 {
                return None;
            }
            let whole = Some(TensorSlice::whole(tensor.id));
            let Some((dim, a, b)) = cuts[group_of(&tensor)].filter(|_| apart >> (i % 16) & 3 != 3) else { return whole };
            let Some(dim) = dim.checked_rem(tensor.shape.len() as u32) else { return whole };
            // Usually the same slice for a group, and sometimes not, so their ranges in the file
            // need not ascend.
            let turn = if each >> (i % 16) & 1 == 1 { 7 * i as u32 } else { 0 };
            let (a, b) = (a.rotate_left(turn), b.rotate_right(turn));
            let (a, b) = (a % (tensor.shape[dim as usize] + 1), b % (tensor.shape[dim as usize] + 1));
            TensorSlice::slice(&tensor, dim, a.min(b)..a.max(b)).ok().or(whole)
        }).collect();
        let options = PlanOptions { access, direct: vec![direct], max_read_gap, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &slice).expect("plans");
        let bytes = delivered(&plan);
        let mut counted = vec![0; slice.len()];
        for chunk in plan.chunks() {
            let (start, end) = (chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
            chunk.tensors.clone().for_each(|index| counted[index] += plan.bytes_within(index, start, end));
        }
        let mut distinct = 0;
        for (index, part) in slice.iter().enumerate() {
            let tensor = catalog.tensor(part.tensor());
            let expected: Vec<u8> = slow_slice(&tensor, part.as_slice()).into_iter().map(content).collect();
            prop_assert!(bytes[index] == expected, "{} differs", tensor.name);
            if plan.placements()[index].location != Location::Mapped {
                prop_assert_eq!(counted[index], expected.len() as u64, "{} is told of each of its bytes once", tensor.name);
            }
            if let Location::Arena(place) = plan.placements()[index].location {
                prop_assert!(expected.is_empty() || (place as u64).is_multiple_of(tensor.dtype.alignment()));
            }
            let block = |slice: &TensorSlice| catalog.tensor(slice.tensor()).dtype.block_bytes();
            let joins = index.checked_sub(1).is_some_and(|before| {
                let (a, b) = (block(&slice[before]), block(part));
                let in_parts = access == streamed(1 << 16, 8 << 20, true, Order::File) && expected.len() > 1 << 15;
                let is_cut = matches!(access, Access::Stream(Buffers { split: true, .. }));
                let alike = !is_cut || a == b || a.is_power_of_two() && b.is_power_of_two();
                slice[before].same_bytes(part, &catalog) && alike && !in_parts
            });
            if joins {
                prop_assert_eq!(places(&plan, index - 1), places(&plan, index));
            } else {
                distinct += expected.len() as u64;
            }
        }
        prop_assert_eq!(plan.selected_bytes(), distinct);
        let held = |extent: &Extent| extent.strided.map_or(extent.range.len(), |strided| {
            strided.before(extent.range.end()) - strided.before(extent.range.start())
        });
        let mapped: u64 = plan.mapped().iter().map(|(_, range)| range.len()).sum();
        let held = plan.extents().iter().map(held).sum::<u64>() + mapped;
        // Mapped bytes count once, even if slices overlap.
        let min = if plan.mapped().is_empty() { distinct } else { 0 };
        prop_assert!((min..=distinct + distinct / 128 + (4 << 20)).contains(&held), "{} for {}", held, distinct);
    }
}
