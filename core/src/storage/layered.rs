//! A decorator that wraps the sources of a storage.

use super::{BoxedSource, DeviceSignals, Entry, Opened, SourceOptions, Storage, StorageError, StorageFile};
use crate::backend::Backend;
use crate::source::Buffer;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Another storage, of which a function wraps every source, for example in
/// [`Faulty`](crate::middleware::Faulty) or [`Traced`](crate::middleware::Traced).
///
/// The function is called once per worker, on the worker's thread. Headers and views are not read
/// through sources.
///
/// ```
/// use floodtide_core::middleware::{Faults, Faulty, Injection};
/// use floodtide_core::storage::{BoxedSource, Layered, MemoryStorage};
/// use floodtide_core::{Buffer, ReadOp};
///
/// /// Makes every read short by half.
/// struct Halved;
///
/// impl Faults for Halved {
///     fn inject(&mut self, op: &ReadOp) -> Injection {
///         Injection::Short(op.len.div_ceil(2))
///     }
/// }
///
/// fn halved<B: Buffer>(source: BoxedSource<B>) -> BoxedSource<B> {
///     Box::new(Faulty::new(source, Halved))
/// }
///
/// # fn build<B: Buffer>() {
/// let storage = Layered::new(MemoryStorage::new(), halved::<B>);
/// # }
/// ```
#[derive(Clone)]
pub struct Layered<S, L> {
    inner: S,
    layer: L,
}

impl<S, L> Layered<S, L> {
    /// Wraps the sources of `inner` by `layer`.
    pub fn new(inner: S, layer: L) -> Self {
        Self { inner, layer }
    }
}

impl<S: fmt::Debug, L> fmt::Debug for Layered<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<B, S, L> Storage<B> for Layered<S, L>
where
    B: Buffer,
    S: Storage<B>,
    L: Fn(BoxedSource<B>) -> BoxedSource<B> + Send + Sync,
{
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn backends(&self) -> Vec<Backend> {
        self.inner.backends()
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        self.inner.list(folder)
    }

    fn open(&self, name: &str) -> Result<Opened, StorageError> {
        self.inner.open(name)
    }

    fn check_link(&self, folder: &str, name: &str) -> Result<(), StorageError> {
        self.inner.check_link(folder, name)
    }

    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals {
        self.inner.device_signals(file, backends)
    }

    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String> {
        self.inner.source(files, options).map(&self.layer)
    }
}
