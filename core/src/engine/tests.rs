//! The engine with scripted and arbitrary outcomes, and a reference of the file's contents.

use super::*;
use crate::format::{SAFETENSORS, safetensors::Header};
use crate::plan::{Access, Buffers, Order, PlanOptions, Planner};
use crate::source::Fault;
use crate::units::{Alignment, DirectLimits, ExtentId, FileId};
use crate::{CatalogBuilder, Selection, TensorId};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

const ALIGNMENT: u64 = 512;

/// One file with two tensors of these sizes, planned in chunks of 64 KiB, and the file's bytes.
fn load(first: u64, second: u64, direct: bool) -> (Engine, Vec<u8>) {
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[{first}],"data_offsets":[0,{first}]}},"b":{{"dtype":"U8","shape":[{second}],"data_offsets":[{first},{}]}}}}"#,
        first + second
    );
    let len = 8 + json.len() as u64 + first + second;
    let header = Header::parse(json.as_bytes(), len).expect("valid");
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    header.add_to(&mut builder, "model", len).expect("adds");
    let catalog = builder.finish().expect("unique");
    let alignment = Alignment::new(ALIGNMENT).expect("a power of two");
    let limits = direct.then_some(DirectLimits { offset: alignment, memory: alignment });
    let options = PlanOptions { direct: vec![limits], chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let selected = Selection::All.resolve(&catalog).expect("all");
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    let bytes = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
    (Engine::new(Arc::new(catalog), Arc::new(plan), u64::MAX), bytes)
}

/// A device of one file that may be shorter than its header states.
struct Device<'a> {
    file: &'a [u8],
    arena: Vec<u8>,
}

impl Device<'_> {
    /// Reads like Linux: refuses unaligned direct reads, returns nothing past the end, and at most
    /// `limit` bytes.
    fn read(&mut self, engine: &Engine, op: &ReadOp, limit: usize) -> Outcome {
        let chunk = &engine.plan().chunks()[op.chunk.index()];
        if op.direct {
            let alignment = ALIGNMENT as usize;
            assert!(op.offset.is_multiple_of(ALIGNMENT), "the file offset");
            assert!(op.len.is_multiple_of(alignment), "the length");
            assert!((chunk.buffer_range.start + op.at).is_multiple_of(alignment), "the address");
        }
        assert!(op.at + op.len <= chunk.buffer_range.len(), "the read stays in its chunk");
        assert_eq!(op.offset, chunk.offset + op.at as u64, "congruent");
        let start = (op.offset as usize).min(self.file.len());
        let n = op.len.min(limit).min(self.file.len() - start);
        let to = chunk.buffer_range.start + op.at;
        self.arena[to..to + n].copy_from_slice(&self.file[start..start + n]);
        // Bytes that a read did not return may hold anything afterwards.
        self.arena[to + n..to + op.len].fill(0xa5);
        Outcome::Read(n)
    }

    fn new<'a>(engine: &Engine, file: &'a [u8]) -> Device<'a> {
        Device { file, arena: vec![0; engine.plan().arena_bytes()] }
    }
}

/// Runs a load with outcomes chosen by `choose`, one read in flight.
fn run(engine: &mut Engine, device: &mut Device<'_>, mut choose: impl FnMut(&ReadOp) -> Result<usize, Fault>) -> usize {
    let mut reads = 0;
    let mut next = engine.next_read(RouteId(0));
    while let Some(op) = next {
        reads += 1;
        assert!(reads < 1_000_000, "the load does not end");
        let outcome = match choose(&op) {
            Ok(limit) => device.read(engine, &op, limit),
            Err(fault) => Outcome::Failed(fault),
        };
        next = match engine.complete(op.id, outcome) {
            Disposition::Resubmit(op) => Some(op),
            Disposition::Complete(_) | Disposition::Abandoned => engine.next_read(RouteId(0)),
        };
    }
    assert!(engine.is_finished());
    reads
}

fn assert_whole(engine: &mut Engine, device: &Device<'_>, file: &[u8]) {
    engine.result().expect("loads");
    let progress = engine.progress();
    assert_eq!((progress.bytes_done, progress.tensors_done), (progress.bytes_total, progress.tensors_total));
    for placement in engine.plan().placements() {
        if let crate::plan::Location::Arena(place) = placement.location {
            let expected = &file[placement.range.start() as usize..placement.range.end() as usize];
            assert_eq!(&device.arena[place..place + expected.len()], expected);
        }
    }
    let mut ready: Vec<TensorId> = Vec::new();
    while let Some(event) = engine.poll_event() {
        if let Event::TensorReady(id) = event {
            ready.push(id);
        }
    }
    ready.sort();
    assert_eq!(ready, [TensorId(0), TensorId(1)], "each tensor is reported once");
}

#[test]
fn a_load_without_faults_takes_one_read_a_chunk() {
    let (mut engine, file) = load(200_000, 100, true);
    let mut device = Device::new(&engine, &file);
    let reads = run(&mut engine, &mut device, |_| Ok(usize::MAX));
    assert_eq!(reads, engine.plan().chunks().len());
    assert_whole(&mut engine, &device, &file);
}

#[test]
fn a_short_direct_read_goes_on_from_the_aligned_down_offset() {
    let (mut engine, file) = load(200_000, 100, true);
    let mut device = Device::new(&engine, &file);
    let mut ops = Vec::new();
    run(&mut engine, &mut device, |op| {
        ops.push(*op);
        Ok(if ops.len() == 1 { 1000 } else { usize::MAX })
    });
    assert_eq!((ops[1].at, ops[1].direct), (512, true));
    assert_whole(&mut engine, &device, &file);
}

#[test]
fn a_refused_direct_read_demotes_the_file_once_and_for_all() {
    for fault in [Fault::Invalid, Fault::NotSupported] {
        let (mut engine, file) = load(200_000, 100, true);
        let mut device = Device::new(&engine, &file);
        let mut direct = 0;
        run(&mut engine, &mut device, |op| {
            direct += usize::from(op.direct);
            if op.direct { Err(fault) } else { Ok(usize::MAX) }
        });
        assert_eq!(direct, 1, "one refusal is enough");
        assert_eq!(engine.events.iter().filter(|e| **e == Event::DirectRefused(FileId(0))).count(), 1);
        assert_whole(&mut engine, &device, &file);
    }
}

#[test]
fn a_refusal_after_progress_keeps_what_is_there() {
    let (mut engine, file) = load(200_000, 100, true);
    let mut device = Device::new(&engine, &file);
    let mut ops = Vec::new();
    run(&mut engine, &mut device, |op| {
        ops.push(*op);
        match ops.len() {
            1 => Ok(1000),
            2 => Err(Fault::Invalid),
            _ => Ok(usize::MAX),
        }
    });
    assert_eq!(
        (ops[2].at, ops[2].direct, ops[2].len),
        (512, false, 64 * 1024 - 512),
        "from where the refused read began, within the chunk"
    );
    assert_whole(&mut engine, &device, &file);
}

#[test]
fn a_file_cut_off_by_a_byte_is_truncated_not_short() {
    for direct in [true, false] {
        for cut in [1, 100, 101, 70_000, 200_100] {
            let (mut engine, file) = load(200_000, 100, direct);
            let short = &file[..file.len() - cut];
            let mut device = Device::new(&engine, short);
            run(&mut engine, &mut device, |_| Ok(usize::MAX));
            let error = engine.result().expect_err("truncated");
            let tensor = if cut <= 100 { "b" } else { "a" };
            assert!(
                matches!(&error, Error::Truncated { tensor: t, found, .. } if t == tensor && *found == short.len() as u64),
                "direct {direct}, cut {cut}: {error}"
            );
        }
    }
}

#[test]
fn faults_that_pass_are_retried_and_those_that_do_not_end_the_load() {
    for (fault, tries) in [(Fault::Interrupted, 1000), (Fault::Again, 1000), (Fault::NoMemory, 1000), (Fault::Io, 2)] {
        let (mut engine, file) = load(1000, 100, false);
        let mut device = Device::new(&engine, &file);
        let mut left = tries;
        run(&mut engine, &mut device, |_| {
            left -= 1;
            if left >= 0 { Err(fault) } else { Ok(usize::MAX) }
        });
        assert_whole(&mut engine, &device, &file);

        let (mut engine, file) = load(1000, 100, false);
        let mut device = Device::new(&engine, &file);
        assert_eq!(run(&mut engine, &mut device, |_| Err(fault)), tries as usize + 1);
        let error = engine.result().expect_err("fails").to_string();
        assert!(error.contains("model") && error.contains("\"a\""), "{error}");
    }
}

#[test]
fn contract_breaks_fail_the_load_and_never_panic() {
    let (mut engine, _) = load(1000, 100, false);
    let op = engine.next_read(RouteId(0)).expect("a read");
    assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
    assert_eq!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Abandoned);
    assert!(matches!(engine.result(), Err(Error::Contract { .. })), "a completion that comes twice");

    let (mut engine, _) = load(1000, 100, false);
    let op = engine.next_read(RouteId(0)).expect("a read");
    assert_eq!(engine.complete(op.id, Outcome::Read(op.len + 1)), Disposition::Abandoned);
    assert!(matches!(engine.result(), Err(Error::Contract { .. })), "more bytes than asked for");
}

#[test]
fn a_cancelled_load_issues_nothing_more_and_waits_for_what_is_in_flight() {
    let (mut engine, _) = load(500_000, 100, true);
    let first = engine.next_read(RouteId(0)).expect("a read");
    engine.cancel();
    assert!(engine.next_read(RouteId(0)).is_none());
    assert!(!engine.is_finished());
    assert_eq!(engine.complete(first.id, Outcome::Read(first.len)), Disposition::Abandoned);
    assert!(engine.is_finished());
    assert_eq!(engine.result(), Err(Error::Cancelled));
}

#[test]
fn bytes_in_flight_stay_below_the_limit() {
    let (engine, _) = load(1_000_000, 100, true);
    let mut engine = Engine::new(Arc::clone(&engine.catalog), Arc::clone(&engine.plan), 200 << 10);
    let ops: Vec<ReadOp> = core::iter::from_fn(|| engine.next_read(RouteId(0))).collect();
    assert!(!engine.is_exhausted());
    let bytes: usize = ops.iter().map(|op| op.len).sum();
    assert!(ops.len() == 3 && bytes <= 200 << 10, "{} reads of {bytes} bytes", ops.len());
    let mut none = Engine::new(Arc::clone(&engine.catalog), Arc::clone(&engine.plan), 0);
    assert!(none.next_read(RouteId(0)).is_some(), "one read is always let through");
    assert!(none.next_read(RouteId(0)).is_none());
}

proptest! {
    /// Whatever the device does within its contract, the load ends complete and right, or with an
    /// error.
    #[test]
    fn any_sequence_of_outcomes_ends_in_all_or_an_error(
        sizes in (1_u64..300_000, 1_u64..3000),
        direct in any::<bool>(),
        cut in prop_oneof![4 => Just(0_usize), 1 => 1_usize..2000],
        script in prop::collection::vec(prop_oneof![
            6 => (1_usize..200_000).prop_map(Ok),
            1 => Just(Err(Fault::Interrupted)),
            1 => Just(Err(Fault::Again)),
            1 => Just(Err(Fault::Io)),
            1 => Just(Err(Fault::Invalid)),
            1 => Just(Err(Fault::Os(5000))),
        ], 0..40),
        depth in 1_usize..6,
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let (mut engine, file) = load(sizes.0, sizes.1, direct);
        let short = &file[..file.len() - cut.min(file.len())];
        let mut device = Device::new(&engine, short);
        let (mut script, mut order) = (script.into_iter(), order.into_iter().cycle());
        let mut in_flight: Vec<ReadOp> = Vec::new();
        let mut steps = 0;
        while !engine.is_finished() {
            steps += 1;
            prop_assert!(steps < 100_000, "the load does not end");
            while in_flight.len() < depth && let Some(op) = engine.next_read(RouteId(0)) {
                in_flight.push(op);
            }
            let at = order.next().expect("cycles").index(in_flight.len());
            let op = in_flight.swap_remove(at);
            let outcome = match script.next().unwrap_or(Ok(usize::MAX)) {
                Ok(limit) => device.read(&engine, &op, limit),
                Err(fault) => Outcome::Failed(fault),
            };
            if let Disposition::Resubmit(op) = engine.complete(op.id, outcome) {
                in_flight.push(op);
            }
        }
        prop_assert!(in_flight.is_empty());
        if engine.result().is_ok() {
            prop_assert_eq!(cut, 0, "a file that was cut off cannot load");
            assert_whole(&mut engine, &device, &file);
        }
    }
}

#[test]
fn a_realigned_read_that_stops_earlier_than_the_one_before_loses_nothing() {
    let (mut engine, file) = load(200_000, 100, true);
    let mut device = Device::new(&engine, &file);
    // Lengths that end unaligned. The read that resumes at the aligned byte then returns one byte.
    let mut lengths = [10_000, 1, 700, 1, usize::MAX].into_iter().cycle();
    run(&mut engine, &mut device, |_| Ok(lengths.next().unwrap_or(usize::MAX)));
    assert_whole(&mut engine, &device, &file);
    assert!(engine.retry_stats().realigned > 0 && engine.retry_stats().buffered > 0);
}

#[test]
fn reads_become_buffered_in_the_middle_and_direct_again() {
    let (mut engine, _) = load(300_000, 1000, true);
    let begun = engine.next_read(RouteId(0)).expect("a read");
    engine.set_buffered(RouteId(0), true);
    let through = engine.next_read(RouteId(0)).expect("a read");
    engine.set_buffered(RouteId(0), false);
    let past = engine.next_read(RouteId(0)).expect("a read");
    assert_eq!([begun.direct, through.direct, past.direct], [true, false, true]);
    for op in [begun, through, past] {
        assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
    }
    while let Some(op) = engine.next_read(RouteId(0)) {
        assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
    }
    engine.result().expect("every tensor is in");
}

#[test]
fn what_is_missing_between_tensors_is_missing_for_the_next_one() {
    // Three tensors, of which the first and the last are selected; the middle chunk lies in the one
    // between.
    let json = r#"{"a":{"dtype":"U8","shape":[65536],"data_offsets":[0,65536]},"b":{"dtype":"U8","shape":[131072],"data_offsets":[65536,196608]},"c":{"dtype":"U8","shape":[65536],"data_offsets":[196608,262144]}}"#;
    let len = 8 + json.len() as u64 + 262_144;
    for outcome in [Outcome::Failed(Fault::Os(5000)), Outcome::Read(0)] {
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
        let catalog = builder.finish().expect("unique");
        let selected = Selection::names(["a", "c"]).resolve(&catalog).expect("there");
        let options = PlanOptions { chunk_bytes: 64 << 10, ..PlanOptions::default() };
        let plan = Arc::new(Planner::new(options).plan(&catalog, &selected).expect("plans"));
        let gap = plan.chunks().iter().position(|chunk| chunk.tensors.is_empty()).expect("a chunk between tensors");
        let mut engine = Engine::new(Arc::new(catalog), Arc::clone(&plan), u64::MAX);
        while let Some(op) = engine.next_read(RouteId(0)) {
            if op.chunk.index() == gap {
                let _ = engine.complete(op.id, outcome);
            }
        }
        let error = engine.result().expect_err("failed");
        let (Error::Truncated { tensor, .. } | Error::Read { tensor, .. }) = &error else { panic!("{error}") };
        assert_eq!(tensor, "c", "{error}");
    }
}

#[test]
fn a_stream_whose_buffers_overlap_in_the_file_books_each_byte_once() {
    // Elements of six bits are not split, so a buffer starts before the aligned byte at which the
    // previous one ends.
    let bytes = 3 * 100_001_u64;
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"b":{{"dtype":"F6_E3M2","shape":[{}],"data_offsets":[1,{}]}}}}"#,
        bytes * 8 / 6,
        bytes + 1
    );
    let len = 8 + json.len() as u64 + bytes + 1;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "six", len).expect("adds");
    let catalog = builder.finish().expect("unique");
    let alignment = Alignment::new(ALIGNMENT).expect("a power of two");
    let buffers = Buffers { buffer_bytes: 80_000, limit: 1 << 20, split: true, order: Order::File };
    let options = PlanOptions {
        access: Access::Stream(buffers),
        direct: vec![Some(DirectLimits { offset: alignment, memory: alignment })],
        ..PlanOptions::default()
    };
    let selected = Selection::All.resolve(&catalog).expect("all");
    let plan = Arc::new(Planner::new(options).plan(&catalog, &selected).expect("plans"));
    let overlaps = plan.chunks().windows(2).any(|pair| pair[0].offset + pair[0].payload_len as u64 > pair[1].offset);
    assert!(overlaps, "or this test shows nothing");
    let mut engine = Engine::new(Arc::new(catalog), Arc::clone(&plan), u64::MAX);
    for index in 0..plan.extents().len() {
        engine.admit(ExtentId(index as u32));
    }
    while let Some(op) = engine.next_read(RouteId(0)) {
        assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
    }
    engine.result().expect("every tensor is in");
}

mod ledger;
mod worker;
