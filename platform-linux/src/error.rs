//! What can go wrong with a local file.

use floodtide_core::{ErrorKind, Escaped, HumanBytes};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a local file could not be opened, examined, read or mapped.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Error {
    /// A system call on a path failed.
    #[error("{}: cannot {action}: {source}{}", Shown(path), hint(source))]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// A FIFO, a device, a socket.
    #[error(
        "{}: expected a file or a directory, found {found}; name a file of a checkpoint, its index or its folder",
        Shown(path)
    )]
    NotAFile { path: PathBuf, found: &'static str },
    /// A folder under the name of one of a checkpoint's files.
    #[error(
        "{}: expected a file of the checkpoint, found a directory; put the file there, or name another checkpoint",
        Shown(path)
    )]
    FolderForFile { path: PathBuf },
    /// The file is not what it was when the load began.
    #[error("{}: the file changed while it was loaded ({what}); load it again when nothing writes to it", Shown(path))]
    Changed { path: PathBuf, what: &'static str },
    /// The system gave no memory.
    #[error("cannot map {} of memory: {source}; free memory, raise the limit (ulimit -v), or select fewer tensors", HumanBytes(*bytes))]
    Memory { bytes: u64, source: io::Error },
}

impl Error {
    /// Returns the class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
                _ => ErrorKind::Io,
            },
            Self::NotAFile { .. } | Self::FolderForFile { .. } => ErrorKind::InvalidCheckpoint,
            Self::Changed { .. } => ErrorKind::Changed,
            Self::Memory { .. } => ErrorKind::OutOfMemory,
        }
    }
}

/// A path with its control characters escaped, cut where no path goes on that a system takes (`PATH_MAX`, 4096 bytes): one
/// that is made with a name from an index may be longer.
pub struct Shown<'a>(pub &'a PathBuf);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.to_string_lossy();
        match path.char_indices().nth(libc::PATH_MAX as usize) {
            Some((end, _)) => write!(f, "{}…", Escaped(&path[..end])),
            None => write!(f, "{}", Escaped(&path)),
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_kind() {
        let path = || PathBuf::from("model");
        let io = |kind: io::ErrorKind| Error::Io { path: path(), action: "open the file", source: kind.into() };
        for (error, kind) in [
            (io(io::ErrorKind::NotFound), ErrorKind::NotFound),
            (io(io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied),
            (io(io::ErrorKind::OutOfMemory), ErrorKind::OutOfMemory),
            (io(io::ErrorKind::TimedOut), ErrorKind::Io),
            (Error::NotAFile { path: path(), found: "a FIFO" }, ErrorKind::InvalidCheckpoint),
            (Error::FolderForFile { path: path() }, ErrorKind::InvalidCheckpoint),
            (Error::Changed { path: path(), what: "its length" }, ErrorKind::Changed),
            (Error::Memory { bytes: 1, source: io::ErrorKind::OutOfMemory.into() }, ErrorKind::OutOfMemory),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
