//! The errors of the Linux platform: core's, and what the system adds.

mod output;

pub use output::OutputError;

use floodtide_core::format::FORMATS;
use floodtide_core::storage::StorageError;
use floodtide_core::strategy::Backend;
use floodtide_core::{Error as CoreError, ErrorKind, Escaped, Fault, FormatId, Quoted};
use floodtide_linux::storage::hint;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a checkpoint could not be found, opened or loaded.
///
/// ```
/// use floodtide::{ErrorKind, Loader};
///
/// let error = Loader::new().load("/nowhere").expect_err("is not there");
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(error.to_string().starts_with("/nowhere: "));
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Error {
    /// The checkpoint, the selection or the memory there is.
    #[error("{}{}", .0, fault_in_words(.0))]
    Core(#[from] floodtide_core::Error),
    /// A conversion's output cannot be where it is asked for.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A system call on a path failed.
    #[error("{}: cannot {action}: {source}{}", Shown(path), hint(source))]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// A file of a storage cannot be listed, opened, examined, read or viewed, or it changed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A URI of a storage that the loader does not have.
    #[error(
        "{}: expected a path or a URI of {known}, found another scheme; give the loader a storage for it",
        Quoted(uri)
    )]
    UnknownScheme { uri: String, known: String },
    /// A URI of local files that is not well-formed.
    #[error(
        "{}: expected file:///ABSOLUTE/PATH with special characters escaped as %XX; correct the URI, or give the path",
        Quoted(uri)
    )]
    InvalidUri { uri: String },
    /// A folder without anything to load.
    #[error(
        "{}: no checkpoint here: expected {}, found none; name the folder that holds them",
        Quoted(name),
        expected()
    )]
    NoCheckpoint { name: String },
    /// Files of several formats.
    #[error(
        "{}: checkpoints of several formats are here ({}); name the file or the index to load",
        Quoted(name),
        Quoted(names)
    )]
    SeveralFormats { name: String, names: String },
    /// A file that means nothing without its index.
    #[error(
        "{}: this is a partition of a {} checkpoint, which does not say what it holds; name its folder or the {index} beside it",
        Quoted(name),
        format.title()
    )]
    Partition { name: String, format: FormatId, index: &'static str },
    /// PyTorch pickles are programs.
    #[error(
        "{}: this is a PyTorch pickle, which runs code when it is loaded, so floodtide does not load it; \
         convert it once with safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")",
        Quoted(name)
    )]
    Pickle { name: String },
    /// Several indexes, none of the usual name.
    #[error("{}: several indexes are here ({}); name the one to load", Quoted(name), Quoted(names))]
    SeveralIndexes { name: String, names: String },
    /// An index that no checkpoint has.
    #[error("{}: cannot read the index: it has {len} bytes, and no index is that large", Quoted(name))]
    IndexTooLarge { name: String, len: u64 },
    /// The index names a file that is not there.
    #[error(
        "{}: the index names the shard \"{}\", which is missing beside it; fetch it or finish the download",
        Quoted(index),
        Quoted(shard)
    )]
    MissingShard { index: String, shard: String },
    /// A shard of a split model is missing.
    #[error(
        "{}: the model is split over {count} files, of which \"{}\" is missing beside this one; fetch it or finish the download",
        Quoted(name),
        Quoted(shard)
    )]
    MissingSplit { name: String, shard: String, count: usize },
    /// A folder with several models.
    #[error(
        "{}: several {} models are here ({}); name the file of the one to load",
        Quoted(name),
        format.title(),
        Quoted(names)
    )]
    SeveralModels { name: String, format: FormatId, names: String },
    /// The backend that was asked for cannot be had.
    #[error("the backend {backend} cannot be used here: {why}; choose another or leave the choice to floodtide")]
    BackendUnavailable { backend: Backend, why: String },
    /// The system gave no memory.
    #[error("cannot map {} of memory: {source}; free memory, raise the limit (ulimit -v), or select fewer tensors", floodtide_core::HumanBytes(*bytes))]
    Allocation { bytes: u64, source: io::Error },
    /// A trace is to be written where something else is.
    #[error(
        "{}: a file is here that is not a trace, so it is not overwritten; name another file for the trace, or remove this one",
        Shown(path)
    )]
    NotATrace { path: PathBuf },
    /// A file whose name a manifest or a line of checksums cannot hold.
    #[error(
        "{}: checksums cannot be written of this file, as its name {why}; rename it, in the index too if one names it",
        Shown(path)
    )]
    UnlistableName { path: PathBuf, why: &'static str },
    /// The alignment that was asked for is larger than the memory's.
    #[error(
        "tensors are to be aligned to {bytes} bytes, but the memory is to {max}; ask for less, or give memory that is"
    )]
    TensorAlignment { bytes: u64, max: u64 },
    /// A stream cannot do with so little.
    #[error("a stream was to do with {limit} bytes of memory; it needs at least {min}: raise the memory limit")]
    StreamLimit { limit: u64, min: u64 },
    /// Tensors share too small or too large a buffer.
    #[error(
        "buffers of {bytes} bytes were asked for; a stream of {limit} bytes can have any from {min} bytes to all of that"
    )]
    StreamBuffer { bytes: u64, min: u64, limit: u64 },
    /// A stream is to be taken in parts although tensors have been taken from it.
    #[error("tensors have been taken from this stream one by one already; open another stream to take it in parts")]
    StreamBegun,
    /// The next tensor of a stream has had no memory for a long time, as it is all held. The stream goes on when it is asked
    /// again.
    #[error("the stream waits for memory, but {} of its {} are held, by its consumer or by others that use its pool, and nothing has come back for a while; drop tensors, or raise the memory limit", floodtide_core::HumanBytes(*held as u64), floodtide_core::HumanBytes(*limit as u64))]
    StreamStalled { held: usize, limit: usize },
}

impl Error {
    /// Returns the class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Core(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Output(error) => error.kind(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
                _ => ErrorKind::Io,
            },
            Self::NoCheckpoint { .. } | Self::MissingShard { .. } | Self::MissingSplit { .. } => ErrorKind::NotFound,
            Self::SeveralFormats { .. }
            | Self::Partition { .. }
            | Self::SeveralIndexes { .. }
            | Self::IndexTooLarge { .. }
            | Self::SeveralModels { .. } => ErrorKind::InvalidCheckpoint,
            Self::Pickle { .. } | Self::UnlistableName { .. } => ErrorKind::Unsupported,
            Self::BackendUnavailable { .. } => ErrorKind::BackendUnavailable,
            Self::Allocation { .. } => ErrorKind::OutOfMemory,
            Self::UnknownScheme { .. }
            | Self::InvalidUri { .. }
            | Self::NotATrace { .. }
            | Self::TensorAlignment { .. }
            | Self::StreamLimit { .. }
            | Self::StreamBuffer { .. }
            | Self::StreamBegun => ErrorKind::InvalidRequest,
            Self::StreamStalled { .. } => ErrorKind::Stalled,
        }
    }
}

/// The files by which a folder is a checkpoint, for a sentence.
fn expected() -> String {
    let mut expected = FORMATS.iter().map(|format| format.expected()).collect::<Vec<_>>();
    let last = expected.pop().unwrap_or_default();
    format!("{} or {last}", expected.join(", "))
}

/// What core, which knows no system, gives as a number: its meaning, and what to do.
fn fault_in_words(error: &CoreError) -> String {
    let CoreError::Read { fault: Fault::Os(number), .. } = error else { return String::new() };
    // The number is in core's message already.
    let words = io::Error::from_raw_os_error(*number).to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    let advice = match *number {
        libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM => {
            "the device is gone: see that it is attached, and the system's log"
        }
        libc::EREMOTEIO | libc::EBADMSG | libc::ENODATA | libc::EILSEQ | libc::EUCLEAN => {
            "the device or the file system found its data damaged: look at the system's log and the disk's health"
        }
        libc::ESTALE | libc::ETIMEDOUT | libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENOTCONN | libc::ECONNRESET => {
            "the file server did not answer or no longer knows the file: see that it is up, mount it again if need be, and load again"
        }
        libc::EFAULT => "the memory that was to be filled could not be written to; please report this",
        libc::EACCES | libc::EPERM => {
            "reading was forbidden after the file was opened: check its permissions and the sandbox's"
        }
        _ => "see the system's log",
    };
    format!(" ({words}); {advice}")
}

/// A path with its control characters escaped, cut where no path goes on that a system takes (`PATH_MAX`, 4096 bytes): one
/// that is made with a name from an index may be longer.
pub(crate) struct Shown<'a>(pub(crate) &'a PathBuf);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.0.to_string_lossy();
        match path.char_indices().nth(libc::PATH_MAX as usize) {
            Some((end, _)) => write!(f, "{}…", Escaped(&path[..end])),
            None => write!(f, "{}", Escaped(&path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide_core::convert::ConvertError;
    use floodtide_core::format::GGUF;
    use floodtide_linux::backend::MMAP;

    #[test]
    fn a_system_error_is_said_in_words_with_what_to_do() {
        let message = |number| {
            let (file, tensor) = ("model.safetensors".to_owned(), "t".to_owned());
            Error::from(CoreError::Read { file, tensor, offset: 4096, fault: Fault::Os(number) }).to_string()
        };
        for (number, words, advice) in [
            (libc::ENXIO, "No such device or address", "attached"),
            (libc::EREMOTEIO, "Remote I/O error", "disk's health"),
            (libc::ENODATA, "No data available", "disk's health"),
            (libc::ESTALE, "Stale file handle", "mount it again"),
            (libc::ETIMEDOUT, "timed out", "mount it again"),
            (libc::EFAULT, "Bad address", "report"),
            (libc::EMULTIHOP, "ultihop", "system's log"),
        ] {
            let message = message(number);
            for word in ["model.safetensors", "\"t\"", &format!("system error {number}"), words, advice] {
                assert!(message.contains(word), "\"{word}\" is not in {message}");
            }
            assert!(!message.contains("os error"), "the number is there once: {message}");
        }
    }

    #[test]
    fn every_error_has_the_kind_that_a_caller_would_branch_on() {
        let path = || PathBuf::from("model");
        let io = |kind: io::ErrorKind| Error::Io { path: path(), action: "open the file", source: kind.into() };
        let names = || "a, b".to_owned();
        for (error, kind) in [
            (io(io::ErrorKind::NotFound), ErrorKind::NotFound),
            (io(io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied),
            (io(io::ErrorKind::OutOfMemory), ErrorKind::OutOfMemory),
            (io(io::ErrorKind::StorageFull), ErrorKind::Io),
            (Error::Core(CoreError::NothingSelected { glob: names() }), ErrorKind::InvalidRequest),
            (Error::Core(CoreError::Convert(ConvertError::Slice { tensor: names() })), ErrorKind::InvalidRequest),
            (Error::Core(CoreError::Cancelled), ErrorKind::Cancelled),
            (OutputError::Exists { path: path() }.into(), ErrorKind::InvalidRequest),
            (OutputError::IsSource { path: path() }.into(), ErrorKind::InvalidRequest),
            (OutputError::NoName { path: path() }.into(), ErrorKind::InvalidRequest),
            (OutputError::NoParent { path: path() }.into(), ErrorKind::InvalidRequest),
            (OutputError::NotReplaceable { path: path(), found: "a file" }.into(), ErrorKind::InvalidRequest),
            (OutputError::NoExchange { path: path() }.into(), ErrorKind::Unsupported),
            (OutputError::NoRoom { path: path(), needed: 2, available: 1 }.into(), ErrorKind::Io),
            (StorageError::Changed { name: names(), what: "its length" }.into(), ErrorKind::Changed),
            (Error::UnknownScheme { uri: names(), known: names() }, ErrorKind::InvalidRequest),
            (Error::InvalidUri { uri: names() }, ErrorKind::InvalidRequest),
            (Error::NoCheckpoint { name: names() }, ErrorKind::NotFound),
            (Error::SeveralFormats { name: names(), names: names() }, ErrorKind::InvalidCheckpoint),
            (Error::Partition { name: names(), format: GGUF, index: "index" }, ErrorKind::InvalidCheckpoint),
            (Error::Pickle { name: names() }, ErrorKind::Unsupported),
            (Error::SeveralIndexes { name: names(), names: names() }, ErrorKind::InvalidCheckpoint),
            (Error::IndexTooLarge { name: names(), len: 1 << 40 }, ErrorKind::InvalidCheckpoint),
            (Error::MissingShard { index: names(), shard: names() }, ErrorKind::NotFound),
            (Error::MissingSplit { name: names(), shard: names(), count: 2 }, ErrorKind::NotFound),
            (Error::SeveralModels { name: names(), format: GGUF, names: names() }, ErrorKind::InvalidCheckpoint),
            (Error::BackendUnavailable { backend: MMAP, why: names() }, ErrorKind::BackendUnavailable),
            (Error::Allocation { bytes: 1, source: io::ErrorKind::OutOfMemory.into() }, ErrorKind::OutOfMemory),
            (Error::NotATrace { path: path() }, ErrorKind::InvalidRequest),
            (Error::UnlistableName { path: path(), why: "has a line break" }, ErrorKind::Unsupported),
            (Error::TensorAlignment { bytes: 2, max: 1 }, ErrorKind::InvalidRequest),
            (Error::StreamLimit { limit: 1, min: 2 }, ErrorKind::InvalidRequest),
            (Error::StreamBuffer { bytes: 1, min: 2, limit: 3 }, ErrorKind::InvalidRequest),
            (Error::StreamBegun, ErrorKind::InvalidRequest),
            (Error::StreamStalled { held: 1, limit: 1 }, ErrorKind::Stalled),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn names_from_files_cannot_act_on_a_terminal_or_fill_it() {
        let hostile = "\u{1b}[2J\n\u{202e}".to_owned();
        let long = "n".repeat(1 << 20);
        for name in [&hostile, &long] {
            for error in [
                Error::MissingShard { index: "index.json".to_owned(), shard: name.clone() },
                Error::MissingShard { index: name.clone(), shard: "shard".to_owned() },
                Error::SeveralIndexes { name: "folder".to_owned(), names: name.clone() },
                Error::SeveralModels { name: "folder".to_owned(), format: GGUF, names: name.clone() },
                Error::MissingSplit { name: name.clone(), shard: name.clone(), count: 2 },
                Error::Pickle { name: name.clone() },
            ] {
                let message = error.to_string();
                assert!(!message.contains(|c: char| c.is_control() || c == '\u{202e}'), "{message:?}");
                assert!(message.len() < 5000, "{} bytes", message.len());
            }
        }
    }
}
