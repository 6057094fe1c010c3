//! The open files of a checkpoint, each with its storage.

use crate::error::Error;
use floodtide_core::storage::{BoxedSource, SourceOptions, Storage, StorageFile};
use floodtide_core::{Backend, FileId, ReadStyle};
use floodtide_memory::ChunkBuffer;
use std::sync::Arc;

/// A storage that loads read from.
pub(crate) type LoadStorage = dyn Storage<ChunkBuffer>;

/// Open files, by their [`FileId`].
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenFiles {
    files: Vec<Arc<dyn StorageFile>>,
    storages: Vec<Arc<LoadStorage>>,
    /// By file: the index of its storage.
    storage_of: Vec<usize>,
}

impl OpenFiles {
    /// Adds files of a storage, in order.
    pub(crate) fn add(&mut self, storage: &Arc<LoadStorage>, files: impl IntoIterator<Item = Arc<dyn StorageFile>>) {
        let known = self.storages.iter().position(|known| Arc::ptr_eq(known, storage));
        let index = known.unwrap_or_else(|| {
            self.storages.push(Arc::clone(storage));
            self.storages.len() - 1
        });
        self.files.extend(files);
        self.storage_of.resize(self.files.len(), index);
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<dyn StorageFile>> {
        self.files.iter()
    }

    pub(crate) fn get(&self, file: FileId) -> &dyn StorageFile {
        &*self.files[file.index()]
    }

    pub(crate) fn storage(&self, file: usize) -> &Arc<LoadStorage> {
        &self.storages[self.storage_of[file]]
    }

    /// Returns a key that files of the same storage and device share.
    pub(crate) fn device(&self, file: usize) -> (usize, u64) {
        (self.storage_of[file], self.files[file].device())
    }

    /// Fails if a file has changed since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        Ok(self.files.iter().try_for_each(|file| file.check_unchanged())?)
    }

    /// Returns a source for one worker. It reads files of the same storage as `file`.
    pub(crate) fn source(&self, file: usize, options: SourceOptions) -> Result<BoxedSource<ChunkBuffer>, String> {
        self.storage(file).source(&self.files, options)
    }

    /// Returns the backend that takes over if another backend of the storage of `file` is refused.
    pub(crate) fn fallback(&self, file: usize) -> Option<Backend> {
        self.storage(file).backends().into_iter().find(|backend| backend.style() == ReadStyle::Blocking)
    }
}
