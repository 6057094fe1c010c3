//! The errors of storages.

use crate::escape::Quoted;
use crate::units::HumanBytes;
use alloc::boxed::Box;
use alloc::string::String;
use thiserror::Error;

/// Why a file of a storage could not be listed, opened, examined, read or viewed.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum StorageError {
    /// The system or the server refused the request.
    #[error("{}: cannot {action}: {source}{hint}", Quoted(name))]
    Failed {
        name: String,
        /// The action that failed, such as `open the file`.
        action: &'static str,
        kind: FailureKind,
        source: Box<dyn core::error::Error + Send + Sync>,
        /// Advice that follows the message. Empty if the message says enough.
        hint: &'static str,
    },
    /// The name refers to a FIFO, a device or a socket.
    #[error(
        "{}: expected a file or a folder, found {found}; pass a checkpoint file, its index or its folder",
        Quoted(name)
    )]
    NotAFile { name: String, found: &'static str },
    /// A folder has the name of one of the checkpoint's files.
    #[error(
        "{}: expected a file of the checkpoint, found a folder; put the file there or choose another checkpoint",
        Quoted(name)
    )]
    IsFolder { name: String },
    /// A shard is a link to a target outside its folder.
    #[error(
        "{}: the shard is a symbolic link out of its folder, to {}; an index may only name files beside it \
         (only links in a Hugging Face cache snapshot are followed): replace the link with the file, or pass the file itself",
        Quoted(name),
        Quoted(target)
    )]
    LinkOutside { name: String, target: String },
    /// The file changed after it was opened.
    #[error("{}: the file changed during the load ({what}); load it again when nothing writes to it", Quoted(name))]
    Changed { name: String, what: &'static str },
    /// The file cannot be mapped.
    #[error("cannot map {} of memory: {source}; free memory, raise the limit (ulimit -v), or select fewer tensors", HumanBytes(*bytes))]
    Memory { bytes: u64, source: Box<dyn core::error::Error + Send + Sync> },
}

/// The kind of a [`StorageError::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// Nothing has that name.
    NotFound,
    /// The caller lacks permission.
    PermissionDenied,
    /// The name is not valid in this storage.
    InvalidName,
    /// Any other failure.
    Other,
}

impl StorageError {
    /// Returns the name of the file or folder, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Failed { name, .. }
            | Self::NotAFile { name, .. }
            | Self::IsFolder { name }
            | Self::LinkOutside { name, .. }
            | Self::Changed { name, .. } => Some(name),
            Self::Memory { .. } => None,
        }
    }

    /// Returns true if nothing has the name.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Failed { kind: FailureKind::NotFound, .. })
    }
}
