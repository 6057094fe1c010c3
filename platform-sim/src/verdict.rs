//! Whether a load was allowed to end as it did, by what was done to it.

use crate::case::{Case, Consumer, Job};
use crate::faults::{FaultKind, FaultState};
use crate::world::World;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Error, Fault};

/// The rules that the end breaks. `world` is there unless the load ended before its first read.
pub(crate) fn judge(case: &Case, faults: &FaultState, ended: &Result<(), Error>, world: Option<&World>) -> Vec<String> {
    let mut violations = Vec::new();
    let happened = |kind: FaultKind| faults.counts.of(kind) > 0;
    let changed = happened(FaultKind::Truncated) || happened(FaultKind::Replaced) || happened(FaultKind::Written);
    let stops = matches!(&case.job, Job::Stream { consumer: Consumer::Holds { stops: Some(_), .. }, .. });
    let scripted = !case.script.is_empty();
    let impossible = case
        .checkpoint
        .tensors
        .iter()
        .any(|tensor| case.cuts.get(&tensor.name).is_some_and(|cut| !cut.is_possible(tensor)));
    let Err(error) = ended else {
        if impossible {
            violations.push("a slice was taken that there is not".to_owned());
        }
        return violations;
    };
    let allowed = match error {
        Error::Cancelled => happened(FaultKind::Cancelled) || stops,
        Error::Truncated { .. } => happened(FaultKind::Truncated),
        Error::Read { fault: Fault::Io, .. } => happened(FaultKind::PermanentIo) || scripted,
        Error::Read { .. } => scripted,
        Error::Platform { message } if message.contains("changed") => changed,
        Error::Platform { message } if message.contains("memory") => happened(FaultKind::AllocationRefused),
        Error::Platform { message } if message.contains("ring") => case.strict && happened(FaultKind::RingRefused),
        Error::SliceDim { .. } | Error::SliceBytes { .. } => impossible,
        Error::Header { .. } | Error::DuplicateTensor { .. } => happened(FaultKind::DamagedHeader),
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
