//! Backends for local files, one file each. To add one, write its file with a `Registration`, and
//! add its line to `Registry::ALL`.

mod mmap;
mod pread;
#[cfg(feature = "tokio")]
mod tokio;
mod uring;

pub use mmap::MMAP;
pub use pread::PREAD;
pub(crate) use pread::PreadSource;
#[cfg(feature = "tokio")]
pub use tokio::TOKIO;
pub use uring::URING;
pub(crate) use uring::UringSource;

use crate::file::LocalFile;
use floodtide_core::storage::{BoxedSource, SourceOptions};
use floodtide_core::{Backend, Fault, FileId, ReadOp};
use floodtide_memory::StableBuffer;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The registration of a backend.
struct Registration<B: StableBuffer> {
    backend: Backend,
    /// Returns why the backend is unavailable, if it is. `on_fuse` asks about files on FUSE. The
    /// answer comes from a try.
    refusal: fn(on_fuse: bool) -> Option<String>,
    /// Creates a source for one worker, or returns the reason for a failure.
    source: fn(LocalFiles, SourceOptions) -> Result<BoxedSource<B>, String>,
}

struct Registry<B>(PhantomData<B>);

impl<B: StableBuffer> Registry<B> {
    /// All backends. The first blocking one is the fallback when another is refused.
    const ALL: &'static [Registration<B>] = &[
        uring::registration(),
        pread::registration(),
        mmap::registration(),
        #[cfg(feature = "tokio")]
        tokio::registration(),
    ];
}

/// The registry for questions that do not depend on the buffer type.
type Any = Registry<floodtide_memory::pool::PoolBuffer>;

/// Returns all backends for local files.
#[must_use]
pub fn all() -> Vec<Backend> {
    Any::ALL.iter().map(|registration| registration.backend).collect()
}

/// Returns the unavailable ones of `backends`, each with the reason.
pub(crate) fn refused(backends: &[Backend], on_fuse: bool) -> Vec<(Backend, String)> {
    let asked = Any::ALL.iter().filter(|registration| backends.contains(&registration.backend));
    asked.filter_map(|registration| Some((registration.backend, (registration.refusal)(on_fuse)?))).collect()
}

/// Creates a source for one worker.
pub(crate) fn source<B: StableBuffer>(files: LocalFiles, options: SourceOptions) -> Result<BoxedSource<B>, String> {
    match Registry::<B>::ALL.iter().find(|registration| registration.backend == options.backend) {
        Some(registration) => (registration.source)(files, options),
        None => Err(format!("{} does not read local files", options.backend)),
    }
}

/// The local files of a checkpoint, by file id.
pub(crate) type LocalFiles = Arc<[Option<Arc<LocalFile>>]>;

/// Returns the file of a read.
fn file_of(files: &LocalFiles, file: FileId) -> Result<&LocalFile, Fault> {
    let file = files.get(file.index()).and_then(Option::as_deref);
    file.ok_or(Fault::Other("the file is not a local one"))
}

/// Converts an error number to core's fault.
fn fault(errno: i32) -> Fault {
    match errno {
        libc::EINTR => Fault::Interrupted,
        libc::EAGAIN => Fault::Again,
        libc::EINVAL => Fault::Invalid,
        libc::EOPNOTSUPP => Fault::NotSupported,
        libc::EIO => Fault::Io,
        libc::ENOMEM | libc::ENOBUFS => Fault::NoMemory,
        other => Fault::Os(other),
    }
}

/// Returns how long to wait before a retry: first not at all, then up to 5 ms, so that a thousand
/// retries end within seconds.
fn pause(op: &ReadOp) -> Option<Duration> {
    (op.attempt > 3).then(|| Duration::from_micros(50 << op.attempt.min(10)).min(Duration::from_millis(5)))
}
