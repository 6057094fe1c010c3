//! The simulator finds each bug that is seeded in core, by seeds and by data: `RUSTFLAGS="--cfg
//! floodtide_seeded_bugs" cargo test -p floodtide-tests --test seeded_bugs`. A seeded bug is
//! switched on for the whole process, so one test waits for the other.
#![cfg(floodtide_seeded_bugs)]

use floodtide_core::seeded_bug::{SeededBug, switch};
use floodtide_sim::faults::FaultKind;
use floodtide_sim::{Case, HUGE, run};
use floodtide_tests::cases::{CaseData, TensorData, cases};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of seeds within which a bug must be found.
const SEEDS: u64 = 1000;

/// Allows one test at a time to switch bugs on, and switches them off when it ends.
struct Planting(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

impl Planting {
    fn begin() -> Self {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // Expected panics need no message.
        std::panic::set_hook(Box::new(|_| {}));
        switch(None);
        Self(guard)
    }

    /// Restores the panic messages.
    fn end(self) {
        switch(None);
        let _ = std::panic::take_hook();
    }
}

/// Returns the first seed that breaks a rule, with the rules. A panic counts as a broken rule.
fn first_failure() -> Option<(u64, Vec<String>)> {
    let cases = (0..SEEDS).map(|seed| (seed, Case::draw as fn(u64) -> Case));
    let verified = (0..SEEDS).map(|seed| (seed, Case::draw_verified as fn(u64) -> Case));
    cases.chain(verified).find_map(|(seed, draw)| {
        let violations = std::panic::catch_unwind(|| run(&draw(seed), false).violations)
            .unwrap_or_else(|_| vec!["it panicked".to_owned()]);
        (!violations.is_empty()).then_some((seed, violations))
    })
}

#[test]
fn every_seeded_bug_is_found() {
    assert!(SeededBug::ALL.len() >= 10);
    let planting = Planting::begin();
    let clean = first_failure();
    let mut unfound = Vec::new();
    for &defect in SeededBug::ALL {
        switch(Some(defect));
        match first_failure() {
            Some((seed, violations)) => println!("{defect:?}: seed {seed}: {}", violations[0]),
            None => unfound.push(defect),
        }
    }
    planting.end();
    assert_eq!(clean, None, "without a defect nothing is found");
    assert!(unfound.is_empty(), "not found within {SEEDS} seeds: {unfound:?}");
}

/// Enough for a fault that is rare to strike in one of them.
const SCHEDULES: u64 = 100;

/// Returns the case that proptest shrinks the first broken one to.
fn smallest() -> Option<CaseData> {
    let config = Config { cases: 2000, failure_persistence: None, max_shrink_iters: 10_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&cases(), |data| match data.broken(SCHEDULES) {
        None => Ok(()),
        Some(violation) => Err(TestCaseError::fail(violation)),
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(_, data)) => Some(data),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

#[test]
fn what_breaks_a_rule_is_shrunk_to_the_data_that_breaks_it() {
    let planting = Planting::begin();
    let seeded_bug = [
        SeededBug::LastChunkSkipped,
        SeededBug::OffByOneAtChunkEnd,
        SeededBug::OffsetCutTo32Bits,
        SeededBug::GatherShifted,
    ];
    let found = seeded_bug.map(|defect| {
        switch(Some(defect));
        smallest()
    });
    planting.end();
    let [skipped, off_by_one, cut, shifted] = found.map(|data| data.expect("it is found"));
    for data in [&skipped, &off_by_one, &cut, &shifted] {
        println!("{data:#?}");
        assert!(data.shards.len() == 1 && data.workers == 1 && data.depth == 1, "{data:#?}");
    }
    let tensors = |data: &CaseData| data.shards[0].tensors.clone();
    // Skipping the last read takes at least two reads: of two tensors, or of one that is a byte
    // longer than a read.
    assert!(tensors(&skipped).len() <= 2 && skipped.faults.is_empty());
    // A single read, truncated one byte before its end.
    assert!(matches!(tensors(&off_by_one)[..], [TensorData { bytes: ..=8, selected: true, .. }]));
    assert_eq!(off_by_one.faults, [FaultKind::ShortRead]);
    // The selected tensor is after the huge one.
    let [huge, behind] = tensors(&cut)[..] else { panic!("{cut:#?}") };
    assert!(huge.bytes >= HUGE && !huge.selected && behind.bytes <= 8 && behind.selected && cut.faults.is_empty());
    // The second of two blocks is the first that is taken early.
    assert!(matches!(
        tensors(&shifted)[..],
        [TensorData { bytes: ..=8, columns: 2.., selected: true, part: Some(_), .. }]
    ));
    assert!(shifted.faults.is_empty());
}
