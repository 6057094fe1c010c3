//! Why a conversion's output cannot be made.

use crate::error::Shown;
use floodtide_core::{ErrorKind, HumanBytes};
use std::path::PathBuf;
use thiserror::Error;

/// What is wrong with the place that a conversion is to write to.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum OutputError {
    /// There is something already.
    #[error("{}: there is something of that name already; name another folder, or replace it", Shown(path))]
    Exists { path: PathBuf },
    /// The source would be replaced.
    #[error("{}: the checkpoint that is to be converted lies there; name another folder for the output", Shown(path))]
    IsSource { path: PathBuf },
    /// A name that no folder can have.
    #[error("{}: this names no folder that could be made; name a new one, in a folder that is there", Shown(path))]
    NoName { path: PathBuf },
    /// The folder for the output is not there.
    #[error("{}: the folder in which the output is to be is missing; make it first", Shown(path))]
    NoParent { path: PathBuf },
    /// What is there is not replaced, whatever was said.
    #[error(
        "{}: this is {found}, which is never replaced, so that nothing is lost that is no checkpoint; remove it yourself, or \
         name another folder",
        Shown(path)
    )]
    NotReplaceable { path: PathBuf, found: &'static str },
    /// Another storage than the local files.
    #[error("{}: a checkpoint can only be written to local files; name a path", Shown(path))]
    NotLocal { path: PathBuf },
    /// Two folders cannot change places here.
    #[error(
        "{}: the file system cannot put the new folder in the old one's place in one step; remove the old one first, or name another folder",
        Shown(path)
    )]
    NoExchange { path: PathBuf },
    /// The disk is too small.
    #[error(
        "{}: the output takes {} ({needed} bytes), but only {} ({available} bytes) are free there; free space, select fewer tensors, or name a \
         folder on another disk",
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
