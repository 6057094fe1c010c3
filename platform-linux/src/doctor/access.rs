//! Checks that the files of the checkpoint can be opened.

use super::subject::Subject;
use super::{Finding, Status};
use floodtide_core::storage::{FailureKind, StorageError};

/// Returns a finding if a file cannot be opened.
pub(super) fn files(subject: &Subject) -> Option<Finding> {
    const NAME: &str = "access";
    let (first, others) = subject.refused.split_first()?;
    let more = match others.len() {
        0 => String::new(),
        n => format!("; nor can {n} of its other files"),
    };
    let meaning = "the checkpoint cannot be loaded";
    let finding = |why: String| Finding::new(NAME, Status::Missing, format!("cannot be read: {why}{more}"), meaning);
    // Paths are not escaped here. Code that prints a finding escapes it.
    Some(match first {
        StorageError::Failed { name, kind: FailureKind::PermissionDenied, source, .. } => {
            let user = rustix::process::geteuid().as_raw();
            finding(format!("{name}: {source}")).remedy(format!(
                "let this user (uid {user}) read it, as its owner or root: setfacl -m u:{user}:r FILE, or chmod o+r FILE; the folders above \
                 need x in the same way"
            ))
        }
        StorageError::Failed { name, source, .. } => finding(format!("{name}: {source}"))
            .remedy("replace it with a readable file; if it should be readable, check the system's log"),
        // The message contains the advice.
        other => finding(other.to_string()),
    })
}
