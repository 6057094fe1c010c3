//! System errors as errors of a storage.

use super::names;
use floodtide_core::storage::{FailureKind, StorageError};
use std::io;
use std::path::Path;

/// Returns what makes an [`io::Error`] of `path` a [`StorageError`]. `action` is what was being done, such as `open the file`.
pub fn failed<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(io::Error) -> StorageError + use<'a> {
    move |source| StorageError::Failed {
        name: names::encode(path),
        action,
        kind: match source.kind() {
            io::ErrorKind::NotFound => FailureKind::NotFound,
            io::ErrorKind::PermissionDenied => FailureKind::PermissionDenied,
            io::ErrorKind::InvalidFilename => FailureKind::InvalidName,
            _ => FailureKind::Other,
        },
        hint: hint(&source),
        source: source.into(),
    }
}

/// Returns what to do about a system error, to follow its message; empty when the message says it.
#[must_use]
pub fn hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return "; up to two descriptors are open per file: raise the limit (ulimit -n)";
    }
    if error.raw_os_error() == Some(libc::EFBIG) {
        return "; raise the limit of a file's size (ulimit -f), or write smaller files";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there, or name a folder on another disk"
        }
        io::ErrorKind::PermissionDenied => "; check its permissions and those of the folders above it",
        _ => "",
    }
}
