//! Ways of reading local files: one file a backend. To add one, write its file, with a [`Registration`], and its line in
//! [`Registry::ALL`].

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

/// What a backend is registered by.
struct Registration<B: StableBuffer> {
    backend: Backend,
    /// Why it cannot be used here, if so; `on_fuse`: for files on FUSE. Tried, not looked up.
    refusal: fn(on_fuse: bool) -> Option<String>,
    /// A source for one worker, or why there is none.
    source: fn(LocalFiles, SourceOptions) -> Result<BoxedSource<B>, String>,
}

struct Registry<B>(PhantomData<B>);

impl<B: StableBuffer> Registry<B> {
    /// Every backend. The first that blocks takes over where another is refused.
    const ALL: &'static [Registration<B>] = &[
        uring::registration(),
        pread::registration(),
        mmap::registration(),
        #[cfg(feature = "tokio")]
        tokio::registration(),
    ];
}

/// For what does not depend on the buffers.
type Any = Registry<floodtide_memory::pool::PoolBuffer>;

/// Returns every backend for local files.
#[must_use]
pub fn all() -> Vec<Backend> {
    Any::ALL.iter().map(|registration| registration.backend).collect()
}

/// Those of `backends` that cannot be used, each with why.
pub(crate) fn refused(backends: &[Backend], on_fuse: bool) -> Vec<(Backend, String)> {
    let asked = Any::ALL.iter().filter(|registration| backends.contains(&registration.backend));
    asked.filter_map(|registration| Some((registration.backend, (registration.refusal)(on_fuse)?))).collect()
}

/// A source for one worker.
pub(crate) fn source<B: StableBuffer>(files: LocalFiles, options: SourceOptions) -> Result<BoxedSource<B>, String> {
    match Registry::<B>::ALL.iter().find(|registration| registration.backend == options.backend) {
        Some(registration) => (registration.source)(files, options),
        None => Err(format!("{} does not read local files", options.backend)),
    }
}

/// The files of a checkpoint that are local, by their number in it.
pub(crate) type LocalFiles = Arc<[Option<Arc<LocalFile>>]>;

/// The file that a read names.
fn file_of(files: &LocalFiles, file: FileId) -> Result<&LocalFile, Fault> {
    let file = files.get(file.index()).and_then(Option::as_deref);
    file.ok_or(Fault::Other("the file is not a local one"))
}

/// An error number as core's fault.
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

/// How long to wait before a read is tried again: not at all at first, then up to 5 ms, so that a thousand tries of a busy
/// system end within seconds.
fn pause(op: &ReadOp) -> Option<Duration> {
    (op.attempt > 3).then(|| Duration::from_micros(50 << op.attempt.min(10)).min(Duration::from_millis(5)))
}
