//! The warning of the crate: core's, and those about memory and the files of a conversion.

use crate::error::Shown;
use floodtide_core::Quoted;
use floodtide_core::storage::StorageError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What a user should know about a load, a stream or a conversion that succeeded.
///
/// ```no_run
/// use floodtide::core::Warning as CoreWarning;
/// use floodtide::{Loader, Warning};
///
/// let tensors = Loader::new().mlock(true).load("/models/qwen3")?;
/// for warning in &tensors.report().warnings {
///     match warning {
///         Warning::NotLocked { .. } => println!("raise the limit of locked memory"),
///         Warning::Core(CoreWarning::ProfileIgnored { .. }) => println!("measure the device again"),
///         other => println!("{other}"),
///     }
/// }
/// # Ok::<(), floodtide::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Warning {
    /// A warning about the checkpoint, the selection or the device.
    Core(floodtide_core::Warning),
    /// Some tensors are not locked in memory.
    NotLocked { why: String },
    /// Some buffers of a stream are not locked in memory.
    BuffersNotLocked { bytes: u64 },
    /// A conversion has not copied one of the model's files, because it cannot be opened.
    NotCopied { source: Arc<StorageError> },
    /// A killed conversion has left a folder that cannot be removed.
    LeftoverNotRemoved { path: PathBuf, source: Arc<io::Error> },
    /// The output that a conversion replaced cannot be removed.
    OldOutputNotRemoved { path: PathBuf, source: Arc<io::Error> },
}

impl From<floodtide_core::Warning> for Warning {
    fn from(warning: floodtide_core::Warning) -> Self {
        Self::Core(warning)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(warning) => warning.fmt(f),
            Self::NotLocked { why } => {
                write!(f, "some tensors are not locked in memory: {why}; raise the limit of locked memory (ulimit -l)")
            }
            Self::BuffersNotLocked { bytes } => write!(
                f,
                "{bytes} bytes of buffers are not locked in memory; raise the limit of locked memory (ulimit -l)"
            ),
            Self::NotCopied { source } => match &**source {
                StorageError::LinkOutside { name, target } => write!(
                    f,
                    "{} is not copied: it is a link out of its folder, to {}; if you trust it, copy it yourself",
                    Quoted(name),
                    Quoted(target)
                ),
                StorageError::NotAFile { name, found } => write!(
                    f,
                    "{} is not copied: expected a file, found {found}; restore the file and convert again, or copy \
                     it yourself",
                    Quoted(name)
                ),
                error => write!(f, "a file of the model is not copied: {error}"),
            },
            Self::LeftoverNotRemoved { path, source } => {
                write!(f, "{}: cannot remove the leftovers of a killed conversion: {source}", Shown(path))
            }
            Self::OldOutputNotRemoved { path, source } => {
                write!(f, "{}: cannot remove the replaced output: {source}", Shown(path))
            }
        }
    }
}
