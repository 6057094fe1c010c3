//! Whether the checkpoint's files can be opened at all.

use super::subject::Subject;
use super::{Finding, Status};
use floodtide_core::storage::{FailureKind, StorageError};

/// Nothing to tell where all of them can be.
pub(super) fn files(subject: &Subject) -> Option<Finding> {
    const NAME: &str = "access";
    let (first, others) = subject.refused.split_first()?;
    let more = match others.len() {
        0 => String::new(),
        n => format!("; nor can {n} of its other files"),
    };
    let meaning = "no load of it can begin";
    let finding = |why: String| Finding::new(NAME, Status::Missing, format!("cannot be read: {why}{more}"), meaning);
    // Paths as they are: whoever prints a finding escapes it.
    Some(match first {
        StorageError::Failed { name, kind: FailureKind::PermissionDenied, source, .. } => {
            let user = rustix::process::geteuid().as_raw();
            finding(format!("{name}: {source}")).remedy(format!(
                "let this user (uid {user}) read it, as its owner or root: setfacl -m u:{user}:r FILE, or chmod o+r FILE; the folders above \
                 need x in the same way"
            ))
        }
        StorageError::Failed { name, source, .. } => finding(format!("{name}: {source}"))
            .remedy("put a file that can be read in its place; if it should be one, look at the system's log"),
        // Which says what to do.
        other => finding(other.to_string()),
    })
}
