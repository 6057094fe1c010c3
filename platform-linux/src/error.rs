//! The errors of the Linux platform: core's, and what the system adds.

use floodtide_core::strategy::Backend;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a checkpoint could not be found, opened or loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Error {
    /// The checkpoint, the selection or the memory there is.
    #[error(transparent)]
    Core(#[from] floodtide_core::Error),
    /// A system call on a path failed.
    #[error("{}: cannot {action}: {source}{}", Shown(path), hint(source))]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    /// A FIFO, a device, a socket.
    #[error(
        "{}: expected a file or a directory, found {found}; name a safetensors file, its index or its folder",
        Shown(path)
    )]
    NotAFile { path: PathBuf, found: &'static str },
    /// A directory without anything to load.
    #[error(
        "{}: no checkpoint here: expected *.safetensors files or a *.safetensors.index.json, found none; \
         name the folder that holds them",
        Shown(path)
    )]
    NoCheckpoint { path: PathBuf },
    /// PyTorch pickles are programs.
    #[error(
        "{}: this is a PyTorch pickle, which runs code when it is loaded, so floodtide does not load it; \
         convert it once with safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"model.safetensors\")",
        Shown(path)
    )]
    Pickle { path: PathBuf },
    /// Several indexes, none of the usual name.
    #[error("{}: several indexes are here ({names}); name the one to load", Shown(path))]
    SeveralIndexes { path: PathBuf, names: String },
    /// The index names a file that is not there.
    #[error(
        "{}: the index names the shard \"{shard}\", which is missing beside it; fetch it or finish the download",
        Shown(index)
    )]
    MissingShard { index: PathBuf, shard: String },
    /// A shard is a link to somewhere else.
    #[error(
        "{}: the shard is a symbolic link out of its directory, to {}; an index may only name files beside it \
         (links are followed in a Hugging Face cache snapshot alone): replace the link by the file, or name the file itself",
        Shown(shard),
        Shown(target)
    )]
    ShardOutside { shard: PathBuf, target: PathBuf },
    /// The file is not what it was when the load began.
    #[error("{}: the file changed while it was loaded ({what}); load it again when nothing writes to it", Shown(path))]
    Changed { path: PathBuf, what: &'static str },
    /// The backend that was asked for cannot be had.
    #[error("the backend {backend} cannot be used here: {why}; choose another or leave the choice to floodtide (auto)")]
    BackendUnavailable { backend: Backend, why: String },
    /// The system gave no memory.
    #[error("cannot map {} of memory: {source}; free memory, raise the limit (ulimit -v), or select fewer tensors", floodtide_core::HumanBytes(*bytes))]
    Memory { bytes: u64, source: io::Error },
    /// The alignment that was asked for is larger than the memory's.
    #[error("a tensor alignment of {bytes} bytes was asked for, but the memory has at most {most}")]
    TensorAlignment { bytes: u64, most: u64 },
    /// A stream cannot do with so little.
    #[error("a stream was to do with {limit} bytes of memory; it needs at least {least}: raise the memory limit")]
    StreamLimit { limit: u64, least: u64 },
    /// The next tensor of a stream has had no memory for a long time, as it is all held. The stream goes on when it is asked
    /// again.
    #[error("the stream waits for memory, but {} of its {} are held and nothing has come back for a while; drop tensors, or raise the memory limit", floodtide_core::HumanBytes(*held as u64), floodtide_core::HumanBytes(*limit as u64))]
    StreamStalled { held: usize, limit: usize },
}

impl Error {
    /// Whether the request is at fault rather than the checkpoint or the system: a selection that matches nothing, a
    /// pattern that cannot be read.
    #[must_use]
    pub fn is_bad_request(&self) -> bool {
        use floodtide_core::Error as Core;
        matches!(
            self,
            Self::TensorAlignment { .. }
                | Self::StreamLimit { .. }
                | Self::Core(
                    Core::Glob(_)
                        | Core::NoSuchTensor { .. }
                        | Core::NothingSelected { .. }
                        | Core::BufferTooSmall { .. }
                )
        )
    }
}

/// A path with its control characters escaped.
struct Shown<'a>(&'a PathBuf);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", floodtide_core::Escaped(&self.0.to_string_lossy()))
    }
}

fn hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EMFILE) {
        return "; a load keeps up to two descriptors open per file: raise the limit (ulimit -n)";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; check its permissions and those of the folders above it",
        _ => "",
    }
}
