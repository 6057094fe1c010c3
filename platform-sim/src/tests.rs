//! The world itself: runs are reproducible, faults are detected, and reading and uploading overlap.

use crate::case::{Case, Consumer, Job, MICROSECOND, MILLISECOND};
use crate::checkpoint::{Checkpoint, Shape};
use crate::faults::{FaultKind, FaultState, Scripted, Swarm};
use crate::selection::KnownSelection;
use crate::shard::{NewTensor, Shard};
use crate::slices::KnownSlice;
use crate::verdict::judge;
use crate::{Draw, HUGE, Link, Report, run};
use alloc::format;
use alloc::vec;
use floodtide_core::middleware::Injection;
use floodtide_core::{Buffers, DType, Error, Fault, Order, Outcome};

fn assert_holds(seed: u64, report: &Report) {
    assert!(report.violations.is_empty(), "seed {seed}: {:?}", report.violations);
}

#[test]
fn the_first_seeds_hold_and_go_the_same_way_twice() {
    let mut digests = vec::Vec::new();
    for seed in 0..500 {
        let (once, twice) = (run(&Case::draw(seed), false), run(&Case::draw(seed), true));
        assert_holds(seed, &once);
        assert_eq!(once.history.digest(), twice.history.digest(), "seed {seed} goes two ways");
        assert_eq!(twice.history.lines().len() as u64, once.history.events());
        digests.push(once.history.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert!(digests.len() > 400, "seeds differ: {} of 500 do", digests.len());
}

#[test]
fn checkpoints_are_of_every_kind() {
    let mut draw = Draw::new(1);
    let drawn: vec::Vec<Checkpoint> = (0..200).map(|_| Checkpoint::draw(&mut draw, &Shape::default())).collect();
    let tensors = || drawn.iter().flat_map(|checkpoint| &checkpoint.tensors);
    for dtype in DType::ALL {
        assert!(tensors().any(|tensor| tensor.dtype == *dtype && tensor.bytes > 0), "no {dtype}");
    }
    assert!(tensors().any(|tensor| tensor.bytes == 0) && tensors().any(|tensor| tensor.bytes > 300_000));
    assert!(tensors().any(|tensor| tensor.start % 2 == 1) && tensors().any(|tensor| tensor.start % 4096 == 0));
    assert!(drawn.iter().any(|checkpoint| checkpoint.files.len() > 3));
    assert!(drawn.iter().any(|checkpoint| checkpoint.tensors.is_empty()));
}

/// A stream of two files of 24 tensors each through `staging` buffers of two tensors. Storage and
/// device transfer `read` and `write` tensors per second (0 for no limit).
fn upload(staging: u64, read: u64, write: u64) -> u64 {
    const UNIT: u64 = 128 << 10;
    let buffers = Buffers { buffer_bytes: 2 * UNIT, limit: staging * 2 * UNIT, split: true, order: Order::Completion };
    let consumer = Consumer::Device { link: Link::new(20 * MICROSECOND, write * UNIT), depth: 2 };
    let checkpoint = Checkpoint::uniform(2, 24, UNIT);
    let case = Case { link: Link::new(0, read * UNIT), ..Case::new(checkpoint, Job::Stream { buffers, consumer }) };
    let report = run(&case, false);
    assert_holds(0, &report);
    assert_eq!((report.result, report.pool.lent), (Ok(()), 0));
    report.elapsed
}

#[test]
fn reading_and_uploading_overlap() {
    for (read, write) in [(1000, 1000), (1000, 3000), (3000, 1000), (200, 10_000), (10_000, 200)] {
        let (reading, uploading) = (upload(4, read, 0), upload(4, 0, write));
        let (both, longer, sum) = (upload(4, read, write), reading.max(uploading), reading + uploading);
        assert!(both >= longer, "{read}/{write}: {both} is less than {longer}");
        // The first buffer's reading and the last one's uploading cannot overlap: two tensors of 48
        // each.
        assert!(both * 100 <= longer * 100 + sum * 6, "{read}/{write}: {both}, alone {reading} and {uploading}");
    }
    // With a single buffer nothing overlaps, which the measurement must show.
    let (reading, uploading, both) = (upload(1, 1000, 0), upload(1, 0, 1000), upload(1, 1000, 1000));
    assert!(both * 10 >= (reading + uploading) * 9, "{both}, alone {reading} and {uploading}");
}

#[test]
fn a_script_is_followed_to_the_letter() {
    let case = |nth, injection| Case {
        workers: 1,
        script: vec![Scripted { file: 1, nth, injection }],
        ..Case::new(Checkpoint::uniform(2, 4, 200_000), Job::Load)
    };
    let short = run(&case(3, Injection::Short(17)), true);
    assert_holds(0, &short);
    assert_eq!((short.result, short.retry_stats.resumed), (Ok(()), 1));
    assert!(short.history.lines().iter().any(|line| line.contains("completed") && line.contains(", 17]")));
    let broken = run(&case(2, Injection::Answer(Outcome::Failed(Fault::Os(5)))), false);
    assert_holds(0, &broken);
    let Err(Error::Read { file, fault, .. }) = broken.result else { panic!("{:?}", broken.result) };
    assert_eq!((file.as_str(), fault), ("model-00001.safetensors", Fault::Os(5)));
}

#[test]
fn a_fault_that_is_switched_on_happens() {
    for kind in [FaultKind::ShortRead, FaultKind::Interrupted, FaultKind::QueueFull, FaultKind::DirectRefused] {
        let swarm = Swarm::none().with(kind, 500_000);
        let case = Case::new(Checkpoint::uniform(2, 4, 200_000), Job::Load).with_swarm(swarm);
        let report = run(&case, false);
        assert_holds(0, &report);
        assert!(report.faults.of(kind) > 0 && report.result.is_ok(), "{kind:?}: {:?}", report.result);
    }
}

#[test]
fn a_wrong_byte_is_found_by_a_verified_load_and_would_be_noticed_in_any_other() {
    let case = |job, verify| Case {
        workers: 1,
        verify,
        script: vec![Scripted { file: 1, nth: 2, injection: Injection::Corrupt(30_000) }],
        ..Case::new(Checkpoint::uniform(2, 4, 200_000), job)
    };
    for job in [Job::Load, in_buffers(1 << 20, false), in_buffers(1 << 20, true)] {
        let found = run(&case(job.clone(), true), false);
        assert_holds(0, &found);
        let Err(Error::Mismatch { file, tensor, .. }) = found.result else { panic!("{:?}", found.result) };
        assert_eq!((file.as_str(), tensor.is_empty()), ("model-00001.safetensors", false));
        let missed = run(&case(job, false), false);
        assert!(!missed.violations.is_empty(), "the rules see what the load does not");
        assert!(!matches!(missed.result, Err(Error::Mismatch { .. })));
    }
}

#[test]
fn a_slice_is_not_verified() {
    let checkpoint = Checkpoint::uniform(1, 2, 8192);
    let name = checkpoint.tensors[0].name.clone();
    let whole = checkpoint.tensors[0].shape[0];
    for (end, refused) in [(whole - 1, true), (whole, false)] {
        let selection = KnownSelection::Slices(vec![(name.clone(), Some(KnownSlice { dim: 0, start: 0, end }))]);
        let checkpoint = Checkpoint::uniform(1, 2, 8192);
        let report = run(&Case { selection, verify: true, ..Case::new(checkpoint, Job::Load) }, false);
        assert_holds(0, &report);
        assert_eq!(matches!(report.result, Err(Error::SliceUnverifiable { .. })), refused, "{:?}", report.result);
        assert_eq!(report.reads == 0, refused, "before the first read");
    }
}

/// A checkpoint of three tensors with a middle one of this length.
fn with_long(bytes: u64) -> Checkpoint {
    let tensor = |name: &str, bytes| NewTensor::flat(name.into(), DType::U8, bytes);
    let tensors = vec![tensor("before", 70_000), tensor("long", bytes), tensor("behind", 300_000)];
    Checkpoint::new(vec![Shard::new(tensors, 7)])
}

fn in_buffers(limit: u64, split: bool) -> Job {
    let buffers = Buffers { buffer_bytes: 64 << 10, limit, split, order: Order::File };
    let consumer = Consumer::Holds { buffers: 0, time: 0, stops: None };
    Job::Stream { buffers, consumer }
}

#[test]
fn tensors_behind_a_huge_one_are_read_where_they_are() {
    for job in [Job::Load, in_buffers(1 << 20, false), in_buffers(1 << 20, true)] {
        let names = ["before", "behind"].map(Into::into);
        let case = Case { selection: KnownSelection::Names(names.into()), ..Case::new(with_long(1 << 40), job) };
        let report = run(&case, false);
        assert_holds(0, &report);
        assert!(report.result.is_ok() && report.sizes.far_reads >= 5, "{:?}", report.sizes);
        assert!(report.bytes >= 370_000 && report.bytes < 1 << 20);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_read() {
    let refused = |bytes, job, memory| {
        let case = Case { memory, ..Case::new(with_long(bytes), job) };
        let report = run(&case, false);
        assert_holds(bytes, &report);
        assert_eq!((report.reads, report.bytes), (0, 0));
        report.result.expect_err("does not fit")
    };
    let told = Some(64 << 20);
    for bytes in [70 << 20, HUGE, 1 << 40] {
        assert!(matches!(refused(bytes, Job::Load, told), Error::NotEnoughMemory { needed, .. } if needed > bytes));
        let error = refused(bytes, in_buffers(1 << 20, false), told);
        assert!(matches!(error, Error::BufferTooSmall { tensor, .. } if tensor == "long"));
    }
    assert!(matches!(refused(1 << 40, in_buffers(1 << 20, true), told), Error::TooManyBuffers { .. }));
    // With 32-bit addresses the planner refuses, otherwise the world has no memory.
    let error = refused(HUGE, Job::Load, None);
    let addressed = isize::try_from(HUGE).is_ok();
    assert!(matches!(error, Error::AddressSpace { .. }) != addressed, "{error}");
    assert!(matches!(error, Error::Platform { .. }) == addressed, "{error}");
}

#[test]
fn a_load_that_should_have_been_refused_is_noticed_and_so_is_a_wrong_reason() {
    let state = FaultState::new(Swarm::none(), vec![]);
    let judge = |case: &Case, ended| judge(case, &state.borrow(), &ended, None);
    let huge = Case::new(with_long(HUGE), Job::Load);
    let not_enough = |available| Error::NotEnoughMemory {
        file: "f".into(),
        needed: HUGE + 1,
        available,
        limit: "the world's memory".into(),
    };
    assert!(judge(&huge, Err(not_enough(64 << 20))).is_empty());
    assert!(!judge(&huge, Err(not_enough(63 << 20))).is_empty(), "another number than it was told");
    assert!(!judge(&huge, Err(Error::AddressSpace { needed: 1 << 40 })).is_empty() || isize::try_from(HUGE).is_err());
    assert!(!judge(&huge, Ok(())).is_empty());
    let small = Case::new(with_long(1000), Job::Load);
    assert!(!judge(&small, Err(not_enough(64 << 20))).is_empty());
    assert!(judge(&small, Ok(())).is_empty());
    // A buffer that is too small for a tensor that is not selected.
    let error = |tensor: &str| Error::BufferTooSmall { tensor: tensor.into(), needed: HUGE, limit: 1 << 20 };
    let streamed = Case::new(with_long(HUGE), in_buffers(1 << 20, false));
    assert!(judge(&streamed, Err(error("long"))).is_empty());
    let selection = KnownSelection::Names(vec!["behind".into()]);
    assert!(!judge(&Case { selection, ..streamed }, Err(error("long"))).is_empty());
}

/// Returns the time of a stream of 64 MiB. Reads and device are 32 times smaller and slower than on
/// a machine.
fn time_to_load(latency: u64, bandwidth: u64, window: (usize, Option<u32>)) -> u64 {
    let (depth, max_in_flight) = window;
    let buffers = Buffers { buffer_bytes: 1 << 20, limit: 32 << 20, split: true, order: Order::Completion };
    let consumer = Consumer::Holds { buffers: 0, time: 1, stops: None };
    let mut case = Case {
        workers: 2,
        depth,
        max_in_flight,
        link: Link::new(0, bandwidth / 32),
        ..Case::new(Checkpoint::uniform(2, 4, 8 << 20), Job::Stream { buffers, consumer })
    };
    case.devices.iter_mut().for_each(|device| device.latency = latency);
    let report = run(&case, false);
    assert_holds(0, &report);
    assert_eq!(report.result, Ok(()));
    report.elapsed
}

#[test]
fn the_reads_in_flight_follow_the_device() {
    let (prompt, late) = (10 * MICROSECOND, 20 * MILLISECOND);
    for (bandwidth, latency) in [
        (100_000_000, prompt),
        (100_000_000, late),
        (7_000_000_000, MILLISECOND),
        (50_000_000_000, prompt),
        (50_000_000_000, late),
    ] {
        let max = 64;
        let best = time_to_load(latency, bandwidth, (max as usize / 2, None));
        let usual = time_to_load(latency, bandwidth, (4, None));
        let tuned = time_to_load(latency, bandwidth, (4, Some(max)));
        let reached = format!("{bandwidth} B/s, {latency} ns: {tuned} ns, {best} at best, {usual} untuned");
        assert!(tuned <= usual + usual / 10, "{reached}");
        // It starts with the usual number and learns during the load.
        assert!(tuned <= best + best / 10 || tuned <= usual / 2, "{reached}");
    }
}

#[test]
fn changed_files_never_load() {
    for kind in [FaultKind::Truncated, FaultKind::Replaced, FaultKind::Written] {
        let (mut changed, mut failed) = (0, 0);
        for seed in 0..50 {
            let swarm = Swarm::none().with(kind, 1_000_000);
            let report = run(&Case::draw(seed).with_swarm(swarm), false);
            assert_holds(seed, &report);
            changed += u64::from(report.faults.of(kind) > 0);
            failed += u64::from(report.result.is_err());
        }
        assert!(changed >= 10 && failed >= changed, "{kind:?}: {failed} of {changed}");
    }
}
