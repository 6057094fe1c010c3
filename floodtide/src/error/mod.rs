//! The error of the crate: core's, and those of the system, the storage and the caller's request.

mod output;

pub use output::OutputError;

use floodtide_core::format::FORMATS;
use floodtide_core::storage::StorageError;
use floodtide_core::strategy::Backend;
use floodtide_core::{Error as CoreError, ErrorKind, Escaped, Fault, FormatId, Quoted};
use floodtide_linux::roofline::ProbeError;
use floodtide_linux::storage::hint;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a checkpoint could not be found, opened or loaded.
///
/// The message includes the cause, so `source` returns none.
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
    /// The checkpoint, the selection or the memory does not allow it.
    #[error("{}{}", .0, fault_in_words(.0))]
    Core(CoreError),
    /// A conversion cannot write to its output path.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A device cannot be measured.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A system call on a path failed.
    #[error("{}: cannot {action}: {cause}{}", Shown(path), hint(cause))]
    Io { path: PathBuf, action: &'static str, cause: io::Error },
    /// A file of a storage cannot be listed, opened, examined, read or viewed, or it changed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The loader has no storage for the scheme of a URI.
    #[error("{}: expected a path or a URI of {known}, found another scheme; register a storage for it", Quoted(uri))]
    UnknownScheme { uri: String, known: String },
    /// A URI of local files that is not well-formed.
    #[error(
        "{}: expected file:///ABSOLUTE/PATH with special characters escaped as %XX; correct the URI, or give the path",
        Quoted(uri)
    )]
    InvalidUri { uri: String },
    /// A folder holds no checkpoint.
    #[error(
        "{}: no checkpoint here: expected {}, found none; name the folder that holds them",
        Quoted(name),
        expected()
    )]
    NoCheckpoint { name: String },
    /// A folder holds files of several formats.
    #[error(
        "{}: checkpoints of several formats are here ({}); name the file or the index to load",
        Quoted(name),
        Quoted(names)
    )]
    SeveralFormats { name: String, names: String },
    /// A file cannot be read without its index.
    #[error(
        "{}: this is one partition of a {} checkpoint, which has no header; name its folder or the {index} beside it",
        Quoted(name),
        format.title()
    )]
    Partition { name: String, format: FormatId, index: &'static str },
    /// A file is a PyTorch pickle, which is a program.
    #[error(
        "{}: this is a PyTorch pickle, which runs code when it is loaded, so floodtide does not load it; \
         convert it once with safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")",
        Quoted(name)
    )]
    Pickle { name: String },
    /// A folder holds several indexes, none with the usual name.
    #[error("{}: several indexes are here ({}); name the one to load", Quoted(name), Quoted(names))]
    SeveralIndexes { name: String, names: String },
    /// An index exceeds the size limit.
    #[error(
        "{}: cannot read the index: its {len} bytes exceed the limit of an index; check that the file is an index",
        Quoted(name)
    )]
    IndexTooLarge { name: String, len: u64 },
    /// The index names a file that does not exist.
    #[error(
        "{}: the index names the shard \"{}\", which is missing; complete the download",
        Quoted(index),
        Quoted(shard)
    )]
    MissingShard { index: String, shard: String },
    /// A shard of a split model is missing.
    #[error(
        "{}: the model is split over {count} files, of which \"{}\" is missing; complete the download",
        Quoted(name),
        Quoted(shard)
    )]
    MissingSplit { name: String, shard: String, count: usize },
    /// A folder holds several models.
    #[error(
        "{}: several {} models are here ({}); name the file of the one to load",
        Quoted(name),
        format.title(),
        Quoted(names)
    )]
    SeveralModels { name: String, format: FormatId, names: String },
    /// The system granted no memory.
    #[error("cannot map {} of memory: {cause}; free memory, raise the limit (ulimit -v), or select fewer tensors", floodtide_core::HumanBytes(*bytes))]
    Allocation { bytes: u64, cause: io::Error },
    /// The trace would overwrite another file.
    #[error(
        "{}: the file exists and is not a trace, so it is not overwritten; name another file, or remove this one",
        Shown(path)
    )]
    NotATrace { path: PathBuf },
    /// A manifest or a list of checksums cannot hold a file's name.
    #[error(
        "{}: cannot list this file, because its name {why}; rename it, also in the index if one names it",
        Shown(path)
    )]
    UnlistableName { path: PathBuf, why: &'static str },
    /// The requested alignment exceeds that of the memory.
    #[error(
        "tensors cannot be aligned to {bytes} bytes, because the memory is aligned to {max}; request a smaller alignment, \
        or provide memory with a larger one"
    )]
    TensorAlignment { bytes: u64, max: u64 },
    /// The memory limit is too small for a stream.
    #[error("memory limit of {limit} bytes is too small for a stream; it needs at least {min}")]
    StreamLimit { limit: u64, min: u64 },
    /// The requested size of shared buffers is out of range.
    #[error("buffers of {bytes} bytes do not fit this stream; expected {min} to {limit} bytes, the memory limit")]
    StreamBuffer { bytes: u64, min: u64, limit: u64 },
    /// A stream cannot use a backend that maps files.
    #[error("a stream copies into buffers, and the backend {backend} maps files; choose another, or load whole")]
    StreamMapped { backend: Backend },
    /// The stream has returned whole tensors already and cannot be taken in parts.
    #[error("this stream has returned whole tensors already; open another stream to take it in parts")]
    StreamStarted,
    /// All memory of the stream has been held for a long time, so that the next tensor cannot be
    /// read. The next call resumes the stream.
    #[error("the stream has stalled: {} of its {} of memory is held by its consumer or by other users of its pool; drop tensors, or raise the memory limit", floodtide_core::HumanBytes(*held as u64), floodtide_core::HumanBytes(*limit as u64))]
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
            Self::Probe(error) => error.kind(),
            Self::Io { cause, .. } => match cause.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
                _ => ErrorKind::Io,
            },
            Self::NoCheckpoint { .. } | Self::MissingShard { .. } | Self::MissingSplit { .. } => ErrorKind::NotFound,
            Self::IndexTooLarge { .. } => ErrorKind::InvalidCheckpoint,
            Self::Pickle { .. } | Self::UnlistableName { .. } => ErrorKind::Unsupported,
            Self::Allocation { .. } => ErrorKind::OutOfMemory,
            Self::SeveralFormats { .. }
            | Self::SeveralIndexes { .. }
            | Self::SeveralModels { .. }
            | Self::Partition { .. }
            | Self::UnknownScheme { .. }
            | Self::InvalidUri { .. }
            | Self::NotATrace { .. }
            | Self::TensorAlignment { .. }
            | Self::StreamLimit { .. }
            | Self::StreamBuffer { .. }
            | Self::StreamMapped { .. }
            | Self::StreamStarted => ErrorKind::InvalidRequest,
            Self::StreamStalled { .. } => ErrorKind::Stalled,
        }
    }
}

impl From<CoreError> for Error {
    fn from(error: CoreError) -> Self {
        Self::Core(error)
    }
}

/// Returns the error for a thread that the system does not start. `work` is its purpose.
pub(crate) fn no_thread(work: &str, source: &io::Error) -> CoreError {
    let message = format!("cannot start a thread to {work} with: {source}; raise the limit of processes (ulimit -u)");
    CoreError::Platform { kind: ErrorKind::Io, message }
}

/// Lists the files that make a folder a checkpoint, for a message.
fn expected() -> String {
    let mut expected = FORMATS.iter().map(|format| format.expected()).collect::<Vec<_>>();
    let last = expected.pop().unwrap_or_default();
    format!("{} or {last}", expected.join(", "))
}

/// Describes a system error, which core reports as a number, and what to do about it.
fn fault_in_words(error: &CoreError) -> String {
    let CoreError::Read { fault: Fault::Os(number), .. } = error else { return String::new() };
    // The number is in core's message already.
    let words = io::Error::from_raw_os_error(*number).to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    let advice = match *number {
        libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM => {
            "the device is gone: check that it is attached, and read the system log"
        }
        libc::EREMOTEIO | libc::EBADMSG | libc::ENODATA | libc::EILSEQ | libc::EUCLEAN => {
            "the device or the file system found damaged data: read the system log and check the disk"
        }
        libc::ESTALE | libc::ETIMEDOUT | libc::EHOSTDOWN | libc::EHOSTUNREACH | libc::ENOTCONN | libc::ECONNRESET => {
            "the file server did not answer or no longer has the file: check the server, remount if needed, and retry"
        }
        libc::EFAULT => "the destination memory is not writable; please report this",
        libc::EACCES | libc::EPERM => "the system refused to read the open file: check its permissions and the sandbox",
        _ => "read the system log",
    };
    format!(" ({words}); {advice}")
}

/// Formats a path with control characters escaped, truncated at `PATH_MAX` (4096): a path with a
/// name from an index may be longer than any that the system accepts.
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
            (libc::EREMOTEIO, "Remote I/O error", "check the disk"),
            (libc::ENODATA, "No data available", "check the disk"),
            (libc::ESTALE, "Stale file handle", "remount"),
            (libc::ETIMEDOUT, "timed out", "remount"),
            (libc::EFAULT, "Bad address", "report"),
            (libc::EMULTIHOP, "ultihop", "system log"),
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
        let io = |kind: io::ErrorKind| Error::Io { path: path(), action: "open the file", cause: kind.into() };
        let names = || "a, b".to_owned();
        let probe_folder = |kind: io::ErrorKind| ProbeError::Folder { path: path(), source: kind.into() }.into();
        for (error, kind) in [
            (io(io::ErrorKind::NotFound), ErrorKind::NotFound),
            (io(io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied),
            (io(io::ErrorKind::OutOfMemory), ErrorKind::OutOfMemory),
            (io(io::ErrorKind::StorageFull), ErrorKind::Io),
            (Error::Core(CoreError::NothingSelected { glob: names() }), ErrorKind::InvalidRequest),
            (Error::Core(CoreError::Convert(ConvertError::Slice { tensor: names() })), ErrorKind::InvalidRequest),
            (Error::Core(CoreError::Cancelled), ErrorKind::Cancelled),
            (OutputError::Exists { path: path() }.into(), ErrorKind::InvalidRequest),
            (probe_folder(io::ErrorKind::NotFound), ErrorKind::NotFound),
            (probe_folder(io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied),
            (probe_folder(io::ErrorKind::Other), ErrorKind::Io),
            (ProbeError::NotAFolder { path: path() }.into(), ErrorKind::InvalidRequest),
            (ProbeError::MemoryFileSystem { path: path(), file_system: names() }.into(), ErrorKind::InvalidRequest),
            (ProbeError::NoSpace { path: path(), needed: 2, free: 1 }.into(), ErrorKind::Io),
            (
                ProbeError::NoMemory { bytes: 1, source: io::ErrorKind::OutOfMemory.into() }.into(),
                ErrorKind::OutOfMemory,
            ),
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
            (Error::SeveralFormats { name: names(), names: names() }, ErrorKind::InvalidRequest),
            (Error::Partition { name: names(), format: GGUF, index: "index" }, ErrorKind::InvalidRequest),
            (Error::Pickle { name: names() }, ErrorKind::Unsupported),
            (Error::SeveralIndexes { name: names(), names: names() }, ErrorKind::InvalidRequest),
            (Error::IndexTooLarge { name: names(), len: 1 << 40 }, ErrorKind::InvalidCheckpoint),
            (Error::MissingShard { index: names(), shard: names() }, ErrorKind::NotFound),
            (Error::MissingSplit { name: names(), shard: names(), count: 2 }, ErrorKind::NotFound),
            (Error::SeveralModels { name: names(), format: GGUF, names: names() }, ErrorKind::InvalidRequest),
            (Error::StreamMapped { backend: MMAP }, ErrorKind::InvalidRequest),
            (Error::Allocation { bytes: 1, cause: io::ErrorKind::OutOfMemory.into() }, ErrorKind::OutOfMemory),
            (Error::NotATrace { path: path() }, ErrorKind::InvalidRequest),
            (Error::UnlistableName { path: path(), why: "has a line break" }, ErrorKind::Unsupported),
            (Error::TensorAlignment { bytes: 2, max: 1 }, ErrorKind::InvalidRequest),
            (Error::StreamLimit { limit: 1, min: 2 }, ErrorKind::InvalidRequest),
            (Error::StreamBuffer { bytes: 1, min: 2, limit: 3 }, ErrorKind::InvalidRequest),
            (Error::StreamStarted, ErrorKind::InvalidRequest),
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
