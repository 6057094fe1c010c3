//! The counters and answers of the engine.

use super::*;

/// An engine for tensors of these sizes, of which some are selected. The data starts after
/// `padding` spaces.
fn engine(sizes: &[u64], padding: usize, names: &[&str], options: PlanOptions) -> Engine {
    let mut json = "{".to_string();
    let mut at = 0;
    for (index, &bytes) in sizes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        json += &format!(
            r#"{comma}"t{index}":{{"dtype":"F32","shape":[{}],"data_offsets":[{at},{}]}}"#,
            bytes / 4,
            at + bytes
        );
        at += bytes;
    }
    json.push('}');
    while (8 + json.len()) % 8 != padding {
        json.push(' ');
    }
    let len = 8 + json.len() as u64 + at;
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
    let catalog = builder.finish().expect("unique");
    let selected = Selection::names(names).resolve(&catalog).expect("they are there");
    let plan = Planner::new(PlanOptions { chunk_bytes: 64 << 10, ..options }).plan(&catalog, &selected).expect("plans");
    Engine::new(Arc::new(catalog), Arc::new(plan), u64::MAX)
}

fn land(engine: &mut Engine) {
    let op = engine.next_read(RouteId(0)).expect("a read");
    assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
}

fn resubmitted(engine: &mut Engine, op: &ReadOp, outcome: Outcome) -> ReadOp {
    match engine.complete(op.id, outcome) {
        Disposition::Resubmit(op) => op,
        other => panic!("{other:?}"),
    }
}

fn ready(engine: &mut Engine) -> Vec<TensorId> {
    let events = core::iter::from_fn(|| engine.poll_event());
    events.filter_map(|event| if let Event::TensorReady(id) = event { Some(id) } else { None }).collect()
}

#[test]
fn what_is_in_flight_is_counted_off_however_it_ends() {
    let (mut engine, _) = load(500_000, 100, true);
    let ops: Vec<ReadOp> = (0..4).map(|_| engine.next_read(RouteId(0)).expect("a read")).collect();
    let plan = Arc::clone(engine.plan());
    let bytes = |ops: &[ReadOp]| ops.iter().map(|op| slot_bytes(&plan, op)).sum::<u64>();
    let (all, three, two, one) = (bytes(&ops), bytes(&ops[1..]), bytes(&ops[2..]), bytes(&ops[3..]));
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (4, all));
    assert!(matches!(engine.complete(ops[0].id, Outcome::Read(ops[0].len)), Disposition::Complete(_)));
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (3, three), "landed");
    let again = resubmitted(&mut engine, &ops[1], Outcome::Failed(Fault::Io));
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (3, three), "tried again");
    assert!(!engine.has_failed());
    assert_eq!(engine.complete(again.id, Outcome::Failed(Fault::Os(5000))), Disposition::Abandoned);
    assert!(engine.has_failed());
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (2, two), "failed");
    assert_eq!(engine.complete(ops[2].id, Outcome::Read(ops[2].len)), Disposition::Abandoned);
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (1, one), "abandoned");
    assert_eq!(engine.complete(ops[3].id, Outcome::Failed(Fault::Io)), Disposition::Abandoned);
    assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (0, 0));
}

fn slot_bytes(plan: &Plan, op: &ReadOp) -> u64 {
    plan.chunks()[op.chunk.index()].buffer_range.len() as u64
}

#[test]
fn a_cap_on_bytes_in_flight_may_be_reached() {
    let (engine, _) = load(1_000_000, 100, false);
    let two: usize = engine.plan().chunks()[..2].iter().map(|chunk| chunk.buffer_range.len()).sum();
    for (cap, reads) in [(two as u64, 2), (two as u64 - 1, 1)] {
        let mut engine = Engine::new(Arc::clone(&engine.catalog), Arc::clone(&engine.plan), cap);
        assert_eq!(core::iter::from_fn(|| engine.next_read(RouteId(0))).count(), reads);
        assert_eq!(engine.readiness(RouteId(0)), Readiness::Full);
    }
}

#[test]
fn progress_counts_the_bytes_of_complete_chunks() {
    let (mut engine, _) = load(150_000, 100, false);
    let total = 150_100;
    assert_eq!(engine.progress(), Progress { bytes_done: 0, bytes_total: total, tensors_done: 0, tensors_total: 2 });
    let first = engine.plan().chunks()[0].payload_len as u64;
    land(&mut engine);
    assert_eq!(engine.progress().bytes_done, first);
    while !engine.is_exhausted() {
        land(&mut engine);
    }
    assert_eq!(
        engine.progress(),
        Progress { bytes_done: total, bytes_total: total, tensors_done: 2, tensors_total: 2 }
    );
}

#[test]
fn a_load_that_has_everything_cannot_be_cancelled() {
    let (mut engine, _) = load(1000, 100, false);
    land(&mut engine);
    engine.cancel();
    assert_eq!(engine.result(), Ok(()));
}

#[test]
fn a_load_has_no_result_before_its_last_read() {
    // The middle chunk holds only a gap, so all tensors may be complete while it is in flight.
    let mut engine = engine(&[64 << 10, 128 << 10, 64 << 10], 0, &["t0", "t2"], PlanOptions::default());
    let plan = Arc::clone(engine.plan());
    let gap = plan.chunks().iter().position(|chunk| chunk.tensors.is_empty()).expect("or this test shows nothing");
    let ops: Vec<ReadOp> = core::iter::from_fn(|| engine.next_read(RouteId(0))).collect();
    for op in ops.iter().filter(|op| op.chunk.index() != gap) {
        assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
    }
    assert_eq!(engine.progress().tensors_done, 2);
    assert!(!engine.is_finished());
    assert!(matches!(engine.result(), Err(Error::Contract { .. })));
    assert!(matches!(engine.complete(ops[gap].id, Outcome::Read(ops[gap].len)), Disposition::Complete(_)));
    assert_eq!(engine.result(), Ok(()));
}

#[test]
fn an_empty_tensor_among_others_is_ready_once() {
    let mut engine = engine(&[1000, 0, 1000], 0, &["t0", "t1", "t2"], PlanOptions::default());
    land(&mut engine);
    assert_eq!(ready(&mut engine), [TensorId(1), TensorId(0), TensorId(2)]);
    assert_eq!((engine.progress().tensors_done, engine.result()), (3, Ok(())));
}

#[test]
fn a_mapped_tensor_among_copied_ones_is_ready_once() {
    // The second and the last are misaligned, and copied as one run with the gap between them.
    let options = PlanOptions {
        access: Access::Map { resident: false },
        tensor_alignment: Alignment::new(8).expect("a power of two"),
        ..PlanOptions::default()
    };
    let mut engine = engine(&[1004, 1004, 996, 1000], 0, &["t0", "t1", "t2", "t3"], options);
    assert_eq!(engine.plan().extents()[0].tensors, 1..4);
    assert_eq!(engine.plan().placements()[2].location, crate::plan::Location::Mapped);
    while !engine.is_exhausted() {
        land(&mut engine);
    }
    let mut ready = ready(&mut engine);
    ready.sort();
    assert_eq!(ready, [TensorId(0), TensorId(1), TensorId(2), TensorId(3)]);
    assert_eq!((engine.progress().tensors_done, engine.result()), (4, Ok(())));
}

#[test]
fn extents_are_admitted_up_to_the_last_that_was() {
    let buffers = Buffers { buffer_bytes: 64 << 10, limit: 1 << 20, split: true, order: Order::File };
    let options = PlanOptions { access: Access::Stream(buffers), ..PlanOptions::default() };
    let mut engine = engine(&[400_000], 0, &["t0"], options);
    assert_eq!((engine.admitted(), engine.readiness(RouteId(0))), (0, Readiness::NeedsBuffer(ExtentId(0))));
    assert!(engine.next_read(RouteId(0)).is_none());
    engine.admit(ExtentId(2));
    engine.admit(ExtentId(1));
    assert_eq!((engine.admitted(), engine.readiness(RouteId(0))), (3, Readiness::Ready));
    let ops: Vec<ReadOp> = core::iter::from_fn(|| engine.next_read(RouteId(0))).collect();
    assert!(ops.iter().all(|op| engine.plan().chunks()[op.chunk.index()].extent < ExtentId(3)));
    assert_eq!(engine.readiness(RouteId(0)), Readiness::NeedsBuffer(ExtentId(3)));
    assert_eq!(load(1000, 100, false).0.admitted(), u32::MAX, "where there are no buffers, all are");
}

#[test]
fn each_recovery_is_counted() {
    let (mut engine, _) = load(200_000, 100, true);
    let op = engine.next_read(RouteId(0)).expect("a read");
    let op = resubmitted(&mut engine, &op, Outcome::Read(1024));
    assert_eq!(engine.retry_stats(), RetryStats { resumed: 1, ..RetryStats::default() }, "on an aligned byte");
    let op = resubmitted(&mut engine, &op, Outcome::Read(1000));
    assert_eq!((op.at, op.direct), (1536, true));
    assert_eq!(engine.retry_stats(), RetryStats { resumed: 2, realigned: 1, ..RetryStats::default() });
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Io));
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Again));
    assert!(op.direct, "a fault that passes says nothing of direct reads");
    let counted = RetryStats { resumed: 2, realigned: 1, retried: 2, ..RetryStats::default() };
    assert_eq!(engine.retry_stats(), counted);
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Invalid));
    let counted = RetryStats { buffered: 1, direct_disabled: 1, ..counted };
    assert_eq!(engine.retry_stats(), counted);
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Interrupted));
    let counted = RetryStats { retried: 3, ..counted };
    assert_eq!(engine.retry_stats(), counted, "it goes through the page cache already");
    assert_eq!(engine.complete(op.id, Outcome::Read(0)), Disposition::Abandoned);
    assert_eq!(engine.retry_stats(), RetryStats { truncated: 1, ..counted });
}

#[test]
fn a_read_in_flight_learns_from_a_fault_that_direct_reads_are_disabled() {
    let (mut engine, _) = load(200_000, 100, true);
    let (first, second) =
        (engine.next_read(RouteId(0)).expect("a read"), engine.next_read(RouteId(0)).expect("a read"));
    assert!(!resubmitted(&mut engine, &first, Outcome::Failed(Fault::Invalid)).direct);
    assert!(!resubmitted(&mut engine, &second, Outcome::Failed(Fault::Again)).direct);
    assert_eq!(
        engine.retry_stats(),
        RetryStats { retried: 1, buffered: 2, direct_disabled: 1, ..RetryStats::default() }
    );
}

#[test]
fn tries_are_counted_since_the_last_progress() {
    let (mut engine, _) = load(200_000, 100, true);
    let op = engine.next_read(RouteId(0)).expect("a read");
    assert_eq!(op.attempt, 0);
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Io));
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Again));
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Again));
    assert_eq!(op.attempt, 3, "of every kind");
    let op = resubmitted(&mut engine, &op, Outcome::Read(1000));
    assert_eq!((op.attempt, op.at, op.direct), (0, 512, true), "a direct read that came further");
    let op = resubmitted(&mut engine, &op, Outcome::Failed(Fault::Io));
    let op = resubmitted(&mut engine, &op, Outcome::Read(1));
    assert_eq!((op.attempt, op.at, op.direct), (1, 513, false), "a direct read that came less far than before");
    let op = resubmitted(&mut engine, &op, Outcome::Read(100));
    assert_eq!((op.attempt, op.at), (0, 613), "every byte through the page cache is progress");
}

#[test]
fn an_error_names_the_byte_and_the_tensor_that_it_belongs_to() {
    for (brought, tensor) in [(600, "t0"), (1000, "t2"), (1600, "t2")] {
        let mut engine = engine(&[1000, 0, 1000], 0, &["t0", "t1", "t2"], PlanOptions::default());
        let op = engine.next_read(RouteId(0)).expect("a read");
        let start = op.offset;
        let op = resubmitted(&mut engine, &op, Outcome::Read(brought));
        assert_eq!((op.offset, op.at, op.len), (start + brought as u64, brought, 2000 - brought));
        assert_eq!(engine.complete(op.id, Outcome::Failed(Fault::Os(5000))), Disposition::Abandoned);
        let (file, tensor) = ("model".to_string(), tensor.to_string());
        let offset = start + brought as u64;
        assert_eq!(engine.result(), Err(Error::Read { file, tensor, offset, fault: Fault::Os(5000) }));
    }
}

#[test]
fn a_buffered_read_that_is_refused_fails() {
    for fault in [Fault::Invalid, Fault::NotSupported] {
        let (mut engine, _) = load(1000, 100, false);
        let op = engine.next_read(RouteId(0)).expect("a read");
        assert_eq!(engine.complete(op.id, Outcome::Failed(fault)), Disposition::Abandoned);
        assert!(matches!(engine.result(), Err(Error::Read { fault: f, .. }) if f == fault));
        assert!(engine.poll_event().is_none(), "nothing was asked of direct reads");
    }
}

#[test]
fn a_slice_of_several_blocks_is_ready_with_its_last_byte_and_counts_no_gap() {
    // Rows of 100,000 bytes, of each of which a third is selected, between two tensors that are
    // selected whole.
    let json = r#"{"a":{"dtype":"U8","shape":[10],"data_offsets":[0,10]},"b":{"dtype":"U8","shape":[5,100000],"data_offsets":[10,500010]},"c":{"dtype":"U8","shape":[10],"data_offsets":[500010,500020]}}"#;
    let len = 8 + json.len() as u64 + 500_020;
    let alignment = Alignment::new(512).expect("a power of two");
    let direct = Some(DirectLimits { offset: alignment, memory: alignment });
    for (max_read_gap, direct, gathered) in
        [(0, None, false), (0, direct, false), (1 << 20, None, true), (1 << 20, direct, true)]
    {
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        Header::parse(json.as_bytes(), len).expect("valid").add_to(&mut builder, "model", len).expect("adds");
        let catalog = builder.finish().expect("unique");
        let selection = Selection::names(["a", "c"]).and(Selection::slice("b", 1, 1000..34_000));
        let options =
            PlanOptions { chunk_bytes: 128 << 10, max_read_gap, direct: vec![direct], ..PlanOptions::default() };
        let plan = Planner::new(options).plan(&catalog, &selection.resolve(&catalog).expect("there")).expect("plans");
        let reads = |tensor: usize| plan.chunks().iter().filter(|chunk| chunk.tensors.contains(&tensor)).count();
        assert_eq!(plan.chunks().iter().any(|chunk| chunk.gathered), gathered);
        let mut left = [reads(0), reads(1), reads(2)];
        assert!(left[1] >= 3);
        let mut engine = Engine::new(Arc::new(catalog), Arc::new(plan), u64::MAX);
        let mut ops: Vec<ReadOp> = core::iter::from_fn(|| engine.next_read(RouteId(0))).collect();
        // From the last to the first, because any order is valid.
        while let Some(op) = ops.pop() {
            let tensors = engine.plan().chunks()[op.chunk.index()].tensors.clone();
            assert!(matches!(engine.complete(op.id, Outcome::Read(op.len)), Disposition::Complete(_)));
            let mut expected = Vec::new();
            for tensor in tensors {
                left[tensor] -= 1;
                expected.extend((left[tensor] == 0).then_some(TensorId(tensor as u32)));
            }
            assert_eq!(ready(&mut engine), expected);
        }
        assert_eq!(engine.result(), Ok(()));
        assert_eq!(engine.progress().bytes_done, engine.progress().bytes_total);
    }
}

/// Two files of one tensor each, in chunks of 64 KiB.
fn two_files(access: Access) -> Engine {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    for name in ["a", "b"] {
        let json = format!(r#"{{"{name}":{{"dtype":"U8","shape":[200000],"data_offsets":[0,200000]}}}}"#);
        let bytes = 8 + json.len() as u64 + 200_000;
        let header = Header::parse(json.as_bytes(), bytes).expect("valid");
        header.add_to(&mut builder, name, bytes).expect("adds");
    }
    let catalog = Arc::new(builder.finish().expect("valid"));
    let selected = Selection::All.resolve(&catalog).expect("resolves");
    let options = PlanOptions { access, chunk_bytes: 1 << 16, ..PlanOptions::default() };
    let plan = Arc::new(Planner::new(options).plan(&catalog, &selected).expect("plans"));
    Engine::with_routes(catalog, plan, vec![RouteId(0), RouteId(1)], u64::MAX)
}

#[test]
fn each_route_hands_out_the_reads_of_its_own_files() {
    let mut engine = two_files(Access::Copy);
    engine.set_window(RouteId(0), 0, 1);
    let first = engine.next_read(RouteId(0)).expect("one is always let through");
    assert_eq!((first.file, engine.readiness(RouteId(0))), (FileId(0), Readiness::Full));
    let second: Vec<ReadOp> = core::iter::from_fn(|| engine.next_read(RouteId(1))).collect();
    assert!(second.len() > 2 && second.iter().all(|op| op.file == FileId(1)));
    assert_eq!(engine.readiness(RouteId(1)), Readiness::Exhausted);
    assert!(!engine.is_exhausted(), "the other route has reads left");
    let mut next = Some(first);
    while let Some(op) = next {
        assert_eq!(op.file, FileId(0));
        let _ = engine.complete(op.id, Outcome::Read(op.len));
        next = engine.next_read(RouteId(0));
    }
    assert!(engine.is_exhausted() && !engine.is_finished());
    for op in second {
        let _ = engine.complete(op.id, Outcome::Read(op.len));
    }
    engine.result().expect("all is there");
}

#[test]
fn a_route_that_waits_for_memory_asks_for_the_extent_that_is_next_in_the_stream() {
    let buffers = Buffers { buffer_bytes: 1 << 18, limit: 1 << 20, split: false, order: Order::File };
    let mut engine = two_files(Access::Stream(buffers));
    assert_eq!(engine.readiness(RouteId(1)), Readiness::NeedsBuffer(ExtentId(0)), "which is the other route's");
    engine.admit(ExtentId(0));
    assert_eq!(engine.readiness(RouteId(0)), Readiness::Ready);
    assert_eq!(engine.readiness(RouteId(1)), Readiness::NeedsBuffer(ExtentId(1)));
    engine.admit(ExtentId(1));
    assert_eq!(engine.next_read(RouteId(1)).expect("a read").file, FileId(1));
}
