//! Slices arrive complete and in order, however they are cut and read.

use super::*;
use crate::ElementType;

/// A file of tensors with these types and shapes. The data starts at an offset with this residue
/// modulo 8.
pub(super) fn shaped<E: Copy + Into<ElementType>>(tensors: &[(E, Vec<u64>)], residue: u64) -> Catalog {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    let file = builder.add_file("f", 1 << 60).expect("adds");
    let mut at = 8 + residue;
    for (i, (dtype, shape)) in tensors.iter().enumerate() {
        let dtype: ElementType = (*dtype).into();
        let elements = shape.iter().map(|&size| u128::from(size)).product();
        let end = at + dtype.bytes_of(elements).expect("whole blocks") as u64;
        let range = ByteRange::new(at, end).expect("forwards");
        builder.add_tensor(file, &format!("t{i:02}"), dtype, shape, range).expect("adds");
        at = end;
    }
    builder.finish().expect("unique names")
}

/// The file offsets of a slice's bytes in order, computed from every group of elements.
pub(super) fn slow_slice(tensor: &TensorInfo<'_>, slice: Option<Slice>) -> Vec<u64> {
    let group = tensor.dtype.block_bytes();
    let elements = tensor.dtype.block_elements();
    let selected = |index: u64| {
        let Some(slice) = slice else { return true };
        let inner: u64 = tensor.shape[slice.dim as usize + 1..].iter().product();
        (slice.start..slice.end).contains(&(index / inner % tensor.shape[slice.dim as usize]))
    };
    let groups = (0..tensor.range.len() / group).filter(|number| selected(number * elements));
    groups.flat_map(|number| (0..group).map(move |byte| tensor.range.start() + number * group + byte)).collect()
}

/// A byte of a file, without a period.
pub(super) fn content(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The memory of a plan after all reads, by extent if it is streamed.
pub(super) fn carried_out(plan: &Plan) -> Vec<Vec<u8>> {
    let mut memory: Vec<Vec<u8>> = if plan.is_streamed() {
        plan.extents().iter().map(|extent| vec![0xee; extent.buffer_bytes]).collect()
    } else {
        vec![vec![0xee; plan.arena_bytes()]]
    };
    for chunk in plan.chunks() {
        let home = &mut memory[if plan.is_streamed() { chunk.extent.index() } else { 0 }];
        let read: Vec<u8> = (chunk.offset..chunk.offset + chunk.payload_len as u64).map(content).collect();
        match plan.gather(chunk) {
            None => home[chunk.buffer_range.start..chunk.buffer_range.start + chunk.payload_len].copy_from_slice(&read),
            Some(gather) => {
                assert!(chunk.buffer_range.start == 0 && chunk.payload_len <= chunk.buffer_range.len());
                let mut filled = 0;
                for (source, target) in gather.copies() {
                    assert!(source.start >= chunk.align_prefix as usize && target == filled);
                    filled += source.len();
                }
                assert_eq!(filled, gather.dest_range().len());
                gather.copy(&read, &mut crate::WriteOnly::new(&mut home[gather.dest_range()]));
            }
        }
        if chunk.method == Method::Direct {
            assert!(chunk.alignment.divides(chunk.offset) && chunk.alignment.divides(chunk.buffer_range.start as u64));
            assert!(chunk.alignment.divides(chunk.buffer_range.len() as u64));
        }
    }
    memory
}

#[test]
fn a_slice_of_rows_reads_its_rows_and_one_of_columns_what_is_cheaper() {
    use crate::DType::{BF16, U8};
    // Rows of 2 KiB, and rows of 1 MiB.
    let catalog = shaped(&[(BF16, vec![4096, 1024]), (U8, vec![16, 1 << 20])], 0);
    let plan = |tensor: u32, dim, range, max_read_gap| {
        let selected = [TensorSlice::slice(&catalog.tensor(TensorId(tensor)), dim, range).expect("a slice")];
        let options = PlanOptions { direct: vec![limits(512)], max_read_gap, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &selected).expect("plans")
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
fn what_is_gathered_from_fits_beside_what_stays() {
    // Rows of 64 KiB, half of each selected: 128 MiB, out of reads of 64 MiB.
    let catalog = shaped(&[(crate::DType::U8, vec![4096, 64 << 10])], 0);
    let selected = [TensorSlice::slice(&catalog.tensor(TensorId(0)), 1, 0..32 << 10).expect("a slice")];
    let stays = 128_u64 << 20;
    let all = u64::MAX - stays;
    for (left, reads, max) in [
        (0, 32, 2),
        (1 << 20, 32, 2),
        (20 << 20, 32, 16),
        (64 << 20, 32, 64),
        (all, 32, 128),
        (all, 128, 128),
        (0, 64, 4),
    ] {
        let memory = Some(MemoryLimit { available: stays + left, limit: "a test".to_string() });
        let options =
            PlanOptions { direct: vec![limits(512)], chunk_bytes: 64 << 20, memory, ..PlanOptions::default() };
        let options = PlanOptions { max_gather_reads: reads as u64, ..options };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("fits");
        assert_eq!(plan.arena_bytes() as u64, stays);
        assert!(plan.chunks().iter().all(|chunk| chunk.gathered));
        let longest = plan.chunks().iter().map(|chunk| chunk.buffer_range.len()).max().expect("some");
        // As many as are in flight, each with the edges of a direct read.
        assert!(reads * (longest - 1024) <= max << 20, "{longest} with {left} left");
        assert!(2 * reads * longest >= max << 20, "{longest} with {left} left: no shorter than it must be");
    }
}

#[test]
fn a_streams_gathered_reads_share_its_limit_and_are_counted_as_long_as_they_are() {
    let plan = |rows, columns, selected, buffer_bytes, limit| {
        let catalog = shaped(&[(crate::DType::U8, vec![rows, columns])], 0);
        let slice = [TensorSlice::slice(&catalog.tensor(TensorId(0)), 1, 0..selected).expect("a slice")];
        let access = streamed(buffer_bytes, limit, true, Order::Completion);
        let options = PlanOptions { access, max_read_gap: 128 << 10, max_gather_reads: 32, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &slice)
    };
    let wide = plan(1 << 10, 1 << 20, (1 << 20) - 1024, 8 << 20, 65 << 20).expect("plans");
    let longest = wide.chunks().iter().map(|chunk| chunk.buffer_range.len()).max();
    assert_eq!(longest, Some(2 << 20), "32 of them take no more than the limit");
    // With so little memory, each read has 64 KiB of the 128 GiB that the blocks span.
    let error = plan(1 << 20, 129 << 10, 1024, 128 << 10, 1 << 20).expect_err("two million reads");
    assert!(matches!(error, Error::TooManyBuffers { .. }), "{error}");
}

#[test]
fn blocks_that_are_read_buffered_are_read_to_where_they_stay() {
    let catalog = shaped(&[(crate::DType::U8, vec![8, 1 << 20])], 3);
    let selected = [TensorSlice::slice(&catalog.tensor(TensorId(0)), 1, 0..300_000).expect("a slice")];
    let options = PlanOptions { max_read_gap: 0, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    assert!(plan.chunks().len() == 8 && plan.chunks().iter().all(|chunk| !chunk.gathered));
}

#[test]
fn of_a_slice_that_is_partly_cached_that_part_is_read_through_the_page_cache() {
    let catalog = shaped(&[(crate::DType::U8, vec![64, 1 << 18])], 0);
    let tensor = catalog.tensor(TensorId(0));
    let selected = [TensorSlice::slice(&tensor, 1, 0..1 << 17).expect("a slice")];
    let end = tensor.range.start() + (8 << 20);
    let plan = |max_read_gap| {
        let cached = vec![vec![ByteRange::new(0, end).expect("forwards")]];
        let options = PlanOptions { direct: vec![limits(512)], cached, max_read_gap, ..PlanOptions::default() };
        Planner::new(options).plan(&catalog, &selected).expect("plans")
    };
    let ways = |plan: &Plan| -> Vec<(Method, bool)> {
        let mut chunks: Vec<&Chunk> = plan.chunks().iter().collect();
        chunks.sort_by_key(|chunk| chunk.offset);
        assert!(
            chunks
                .iter()
                .all(|chunk| (chunk.method == Method::Buffered) == (chunk.offset + chunk.payload_len as u64 <= end))
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
        "a cached block needs no gathering"
    );
}

#[test]
fn a_slice_that_no_buffer_holds_is_refused_for_that_and_one_in_too_many_parts_for_those() {
    let catalog = shaped(&[(crate::DType::U8, vec![2, 64 << 40])], 0);
    let plan = |end, split| {
        let selected = [TensorSlice::slice(&catalog.tensor(TensorId(0)), 1, 0..end).expect("a slice")];
        let access = streamed(128 << 10, 1 << 20, split, Order::File);
        Planner::new(PlanOptions { access, ..PlanOptions::default() }).plan(&catalog, &selected)
    };
    let error = plan(32 << 40, false).expect_err("too long");
    assert!(matches!(error, Error::BufferTooSmall { needed, .. } if needed == 64 << 40), "{error}");
    assert!(matches!(plan(32 << 40, true), Err(Error::TooManyBuffers { .. })));
    let parts = plan(96 << 10, true).expect("what lies between is not read").extents().len();
    assert_eq!((parts, plan(96 << 10, false).expect("fits").extents().len()), (2, 1));
}

#[test]
fn a_slice_of_quantised_elements_is_one_of_whole_blocks() {
    use crate::GgmlType::{Q4_K, Q8_0};
    let catalog = shaped(&[(Q8_0, vec![3, 128]), (Q4_K, vec![512])], 0);
    let slice = |tensor, dim, range| TensorSlice::slice(&catalog.tensor(TensorId(tensor)), dim, range);
    // Rows of four blocks of 34 bytes.
    let rows = slice(0, 0, 1..3).expect("whole rows");
    let start = catalog.tensor(TensorId(0)).range.start();
    assert_eq!(rows.range(&catalog.tensor(TensorId(0))), ByteRange::new(start + 136, start + 408).expect("forwards"));
    let blocks = slice(0, 1, 32..96).expect("two blocks of each row");
    assert_eq!(blocks.byte_len(&catalog.tensor(TensorId(0))), 3 * 68);
    for (tensor, dim, range, inside) in [(0, 1, 16..96, "32"), (0, 1, 32..80, "32"), (1, 0, 0..128, "256")] {
        let error = slice(tensor, dim, range).expect_err("cuts a block");
        assert!(matches!(error, Error::SliceBlock { .. }), "{error}");
        assert!(error.to_string().contains(&format!("inside a block of {inside} elements")), "{error}");
    }
}

pub(super) fn any_tensor() -> impl Strategy<Value = (ElementType, Vec<u64>)> {
    let plain = prop::sample::select(crate::DType::ALL).prop_map(ElementType::Plain);
    let dtype = prop_oneof![3 => plain, 1 => prop::sample::select(crate::GgmlType::ALL).prop_map(ElementType::Ggml)];
    let shape = prop_oneof![
        6 => prop::collection::vec(0_u64..7, 0..5),
        2 => prop::collection::vec(1_u64..90, 2..4),
        1 => (1_u64..9, 1_u64..70_000).prop_map(|(a, b)| vec![a, b]),
        1 => (1_u64..5, 1_u64..9, 1_u64..9000).prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    (dtype, shape, 1_u64..3).prop_map(|(dtype, mut shape, blocks)| {
        // Packed elements fill whole bytes, quantised ones whole blocks.
        match dtype {
            ElementType::Ggml(ggml) if ggml.plain().is_none() => {
                // So that it does not grow by the length of a block.
                shape.iter_mut().for_each(|size| *size %= 9);
                shape.push(blocks * ggml.block_elements());
            }
            _ if dtype.block_elements() > 1 => shape.push(4),
            _ => {}
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
        max_read_gap in prop_oneof![Just(0_u64), Just(100), Just(5000), Just(u64::MAX)],
        tensor_alignment in prop_oneof![Just(1_u64), Just(64)],
        cached in prop::collection::vec((1_u64..60_000, 1_u64..120_000), 0..4),
        access in prop_oneof![
            2 => Just(Access::Copy),
            1 => Just(Access::Map { resident: false }),
            1 => Just(streamed(1 << 16, 8 << 20, true, Order::File)),
            1 => Just(streamed(1 << 17, 8 << 20, false, Order::Completion)),
        ],
    ) {
        let catalog = shaped(&tensors, residue);
        let selected: Vec<TensorSlice> = catalog.tensors().zip(&cuts).filter_map(|(tensor, cut)| {
            let Some((dim, a, b)) = cut else { return Some(TensorSlice::whole(tensor.id)) };
            let dim = dim.checked_rem(tensor.shape.len() as u32)?;
            let (a, b) = (a % (tensor.shape[dim as usize] + 1), b % (tensor.shape[dim as usize] + 1));
            TensorSlice::slice(&tensor, dim, a.min(b)..a.max(b)).ok()
        }).collect();
        let alignment = Alignment::new(tensor_alignment).expect("a power of two");
        let mut end = 0;
        let cached: Vec<ByteRange> = cached.iter().filter_map(|&(gap, bytes)| {
            let start = end + gap;
            end = start + bytes;
            ByteRange::new(start, end)
        }).collect();
        let options = PlanOptions { access, direct: vec![direct], cached: vec![cached.clone()], tensor_alignment: alignment, chunk_bytes, max_read_gap, ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");

        let mut dest_ranges: Vec<_> = plan.chunks().iter().map(|chunk| (chunk.extent, plan.dest_range(chunk))).collect();
        if !plan.is_streamed() {
            dest_ranges.iter_mut().for_each(|(extent, _)| *extent = ExtentId(0));
        }
        dest_ranges.sort_by_key(|(extent, dest_range)| (*extent, dest_range.start));
        prop_assert!(dest_ranges.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].1.end <= pair[1].1.start));
        for chunk in plan.chunks() {
            let extent = &plan.extents()[chunk.extent.index()];
            let (start, end) = (extent.alignment.down(chunk.offset + u64::from(chunk.align_prefix)), chunk.offset + chunk.payload_len as u64);
            let is_cached = cached.iter().any(|range| range.start() <= start && end <= range.end());
            prop_assert_eq!(chunk.method == Method::Direct, extent.method == Method::Direct && !is_cached);
        }
        let memory = carried_out(&plan);
        let mut booked = vec![0; selected.len()];
        for chunk in plan.chunks() {
            for index in chunk.tensors.clone() {
                booked[index] += plan.bytes_within(index, chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
            }
        }
        let mut parts = vec![Vec::new(); selected.len()];
        if plan.is_streamed() {
            for (number, buffer) in memory.iter().enumerate() {
                for part in plan.parts(ExtentId(number as u32)) {
                    parts[part.placement].push((part.offset, buffer[part.buffer_range].to_vec()));
                }
            }
        }
        for (index, selected) in selected.iter().enumerate() {
            let tensor = catalog.tensor(selected.tensor());
            let expected: Vec<u8> = slow_slice(&tensor, selected.as_slice()).into_iter().map(content).collect();
            let sliced = plan.tensor(&catalog, index);
            prop_assert_eq!((sliced.byte_len(), plan.byte_len(index)), (expected.len() as u64, expected.len() as u64));
            prop_assert_eq!(plan.slice(index), selected.as_slice());
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
                        prop_assert!(*offset == next && offset.is_multiple_of(tensor.dtype.block_bytes()));
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
