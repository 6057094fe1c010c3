//! Judges whether a load was allowed to end as it did, given its faults.

use crate::case::{Case, Consumer, Job};
use crate::faults::{FaultKind, FaultState};
use crate::refusal::Refusals;
use crate::world::World;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Error, ErrorKind, Fault};

/// Returns the rules that the end violates. `world` is missing if the load ended before its first
/// read.
pub(crate) fn judge(case: &Case, faults: &FaultState, ended: &Result<(), Error>, world: Option<&World>) -> Vec<String> {
    let mut violations = Vec::new();
    let happened = |kind: FaultKind| faults.counts.of(kind) > 0;
    let changed = happened(FaultKind::Truncated) || happened(FaultKind::Replaced) || happened(FaultKind::Written);
    let stops = matches!(&case.job, Job::Stream { consumer: Consumer::Holds { stops: Some(_), .. }, .. });
    let scripted = !case.script.is_empty();
    let refusals = Refusals::of(case);
    if refusals.are_sure() && (ended.is_ok() || world.is_some() || faults.reads() > 0) {
        violations.push("the load was not refused, although it does not fit".to_owned());
    }
    let impossible = case.selection.is_impossible(&case.checkpoint);
    if impossible && (ended.is_ok() || world.is_some()) {
        violations.push("a slice was taken that there is not".to_owned());
    }
    let unverifiable = case.verify && case.selection.has_slices(&case.checkpoint);
    if unverifiable && (ended.is_ok() || world.is_some()) {
        violations.push("a slice was verified, of which nothing is known".to_owned());
    }
    let Err(error) = ended else { return violations };
    let explained = refusals.explain(case, error);
    let allowed = match error {
        _ if explained.is_some() => explained == Some(true),
        Error::Cancelled => happened(FaultKind::Cancelled) || stops,
        Error::Truncated { .. } => happened(FaultKind::Truncated),
        Error::Read { fault: Fault::Io, .. } => happened(FaultKind::PermanentIo) || scripted,
        Error::Read { .. } => scripted,
        Error::Platform { kind: ErrorKind::Changed, .. } => changed,
        Error::Platform { kind: ErrorKind::OutOfMemory, .. } => {
            // What does not fit is refused before any allocation.
            (happened(FaultKind::AllocationRefused) && !refusals.are_sure()) || refusals.explain_no_memory()
        }
        Error::Platform { kind: ErrorKind::BackendUnavailable, .. } => case.strict && happened(FaultKind::RingRefused),
        Error::SliceDim { .. } | Error::SliceBytes { .. } => impossible,
        Error::SliceUnverifiable { .. } => unverifiable,
        Error::Mismatch { .. } => case.verify && (happened(FaultKind::Corrupted) || changed),
        Error::Format { .. } | Error::DuplicateTensor { .. } => happened(FaultKind::DamagedHeader),
        // A case that was set by hand.
        Error::NothingSelected { .. } => !case.checkpoint.tensors.iter().any(|tensor| case.selection.takes(tensor)),
        _ => false,
    };
    if !allowed {
        violations.push(format!("nothing was done to it that explains this error: {error}"));
    }
    if let Some(world) = world
        && let Err(why) = world.check_error(error)
    {
        violations.push(why);
    }
    violations
}
