//! The errors of a conversion's output path.

use super::Shown;
use floodtide_core::{ErrorKind, HumanBytes};
use std::path::PathBuf;
use thiserror::Error;

/// Why a conversion cannot write to its output path.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum OutputError {
    /// The output exists already.
    #[error("{}: the output exists already; name another folder, or replace it", Shown(path))]
    Exists { path: PathBuf },
    /// The output would replace the source.
    #[error("{}: the output would replace the checkpoint that is converted; name another folder", Shown(path))]
    IsSource { path: PathBuf },
    /// The path cannot name a new folder.
    #[error("{}: the path does not name a new folder; name one inside an existing folder", Shown(path))]
    NoName { path: PathBuf },
    /// The parent folder of the output does not exist.
    #[error("{}: the parent folder of the output is missing; create it first", Shown(path))]
    NoParent { path: PathBuf },
    /// The output path holds something that is never replaced, not even on request.
    #[error(
        "{}: expected a folder that holds a checkpoint and no subfolders, found {found}, which is never replaced; \
        remove it yourself, or name another folder",
        Shown(path)
    )]
    NotReplaceable { path: PathBuf, found: &'static str },
    /// The output is not in the local file system.
    #[error("{}: a checkpoint can only be written to local files; name a path", Shown(path))]
    NotLocal { path: PathBuf },
    /// The file system cannot exchange two folders.
    #[error(
        "{}: the file system cannot replace a folder atomically; remove the old output first, or name another folder",
        Shown(path)
    )]
    NoExchange { path: PathBuf },
    /// The disk does not have enough free space.
    #[error(
        "{}: the output needs {} ({needed} bytes), {} available ({available} bytes); free space, select fewer tensors, \
        or name a folder on another disk",
        Shown(path), HumanBytes(*needed), HumanBytes(*available)
    )]
    NoRoom { path: PathBuf, needed: u64, available: u64 },
}

impl OutputError {
    /// Returns the class of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRoom { .. } => ErrorKind::Io,
            Self::NoExchange { .. } => ErrorKind::Unsupported,
            Self::Exists { .. }
            | Self::IsSource { .. }
            | Self::NoName { .. }
            | Self::NoParent { .. }
            | Self::NotLocal { .. }
            | Self::NotReplaceable { .. } => ErrorKind::InvalidRequest,
        }
    }
}
