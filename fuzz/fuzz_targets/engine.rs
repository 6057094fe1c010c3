//! Arbitrary sequences of valid and invalid platform actions on the engine.
//!
//! The ledger must be right after every step. A load must end with every byte in its place, or with
//! an error that has a cause.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use floodtide_core::{Access, Buffers, Catalog, Fault, FileId, Order, Outcome, Plan, PlanOptions, Planner};
use floodtide_fuzz::checkpoint::{Lengths, catalog, selection};
use floodtide_fuzz::device::MAX_FILE_BYTES;
use floodtide_fuzz::ledger::Ledger;
use floodtide_fuzz::options;
use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::Arc;

/// The maximum memory in bytes. More only takes time.
const MAX_MEMORY: u64 = 8 << 20;

/// One step. The numbers select among what exists, modulo its length.
#[derive(Debug, Arbitrary)]
enum Step {
    Issue,
    Bring { read: u8, at_most: Option<u32> },
    BringNothing { read: u8 },
    Fault { read: u8, fault: FaultKind, times: u16 },
    BringTooMuch { read: u8 },
    CompleteAgain { read: u8, bytes: Option<u32> },
    Admit { extent: u8 },
    AdmitAny { extent: u32 },
    Cancel,
    Events,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum FaultKind {
    Interrupted,
    Again,
    Invalid,
    NotSupported,
    Io,
    NoMemory,
    Os(i32),
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Interrupted => Self::Interrupted,
            FaultKind::Again => Self::Again,
            FaultKind::Invalid => Self::Invalid,
            FaultKind::NotSupported => Self::NotSupported,
            FaultKind::Io => Self::Io,
            FaultKind::NoMemory => Self::NoMemory,
            FaultKind::Os(number) => Self::Os(number),
        }
    }
}

#[derive(Debug)]
struct Case {
    catalog: Catalog,
    plan: Option<Plan>,
    cut: Option<(FileId, u64)>,
    max_in_flight_bytes: u64,
    steps: Vec<Step>,
}

impl Arbitrary<'_> for Case {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let catalog = catalog(u, Lengths::Small)?;
        // With short reads, or a load is over too soon.
        let options = PlanOptions { chunk_bytes: u.int_in_range(0..=1 << 18)?, ..options::options(u, &catalog)? };
        let listed = matches!(options.access, Access::Stream(Buffers { order: Order::Selection, .. }));
        let selected = selection(u, &catalog, listed)?;
        let plan = Planner::new(options).plan(&catalog, &selected).ok();
        let cut = if u.ratio(1, 4)? {
            Some((FileId(u.int_in_range(0..=catalog.files().len() as u32 - 1)?), u.int_in_range(0..=1 << 20)?))
        } else {
            None
        };
        let max_in_flight_bytes = if bool::arbitrary(u)? { u.int_in_range(0..=1 << 20)? } else { u64::MAX };
        Ok(Self { catalog, plan, cut, max_in_flight_bytes, steps: Vec::arbitrary(u)? })
    }
}

/// Returns the index below `len` that a number selects.
fn choose(number: u8, len: usize) -> Option<usize> {
    usize::from(number).checked_rem(len)
}

fn step(ledger: &mut Ledger, step: &Step, extents: usize) {
    match *step {
        Step::Issue => {
            ledger.issue();
        }
        Step::Bring { read, at_most } => {
            if let Some(read) = choose(read, ledger.in_flight.len()) {
                ledger.bring(read, at_most.map_or(usize::MAX, |bytes| bytes as usize));
            }
        }
        Step::BringNothing { read } => {
            if let Some(read) = choose(read, ledger.in_flight.len()) {
                ledger.bring(read, 0);
            }
        }
        Step::Fault { read, fault, times } => {
            // A retried read is the last in the list.
            for time in 0..=times % 1100 {
                let len = ledger.in_flight.len();
                let read = if time == 0 { choose(read, len) } else { len.checked_sub(1) };
                let Some(read) = read else { return };
                ledger.fault(read, fault.into());
                if ledger.engine.has_failed() {
                    return;
                }
            }
        }
        Step::BringTooMuch { read } => {
            if let Some(read) = choose(read, ledger.in_flight.len()) {
                ledger.bring_too_much(read);
            }
        }
        Step::CompleteAgain { read, bytes } => {
            if let Some(read) = choose(read, ledger.past.len()) {
                let outcome = bytes.map_or(Outcome::Failed(Fault::Io), |bytes| Outcome::Read(bytes as usize));
                ledger.complete_again(read, outcome);
            }
        }
        Step::Admit { extent } => {
            if let Some(extent) = choose(extent, extents) {
                ledger.admit(extent as u32);
            }
        }
        Step::AdmitAny { extent } => ledger.admit(extent),
        Step::Cancel => ledger.cancel(),
        Step::Events => ledger.events(),
    }
}

fn run(case: Case) -> Corpus {
    let Some(plan) = case.plan else { return Corpus::Reject };
    let buffers = plan.extents().iter().map(|extent| extent.buffer_bytes as u64).sum::<u64>();
    let longest = case.catalog.files().iter().map(|file| file.bytes).max().unwrap_or(0);
    if longest > MAX_FILE_BYTES || plan.arena_bytes() as u64 + buffers > MAX_MEMORY {
        return Corpus::Reject;
    }
    let extents = plan.extents().len();
    let mut ledger = Ledger::new(Arc::new(case.catalog), Arc::new(plan), case.cut, case.max_in_flight_bytes);
    for next in &case.steps {
        step(&mut ledger, next, extents);
    }
    ledger.finish();
    Corpus::Keep
}

fuzz_target!(|case: Case| -> Corpus { run(case) });
