//! The options of a loader. Each call sets one option, and the last call counts.

use super::Loader;
use crate::opaque::Opaque;
use crate::prepare::StreamOptions;
use crate::trace::Trace;
use floodtide_core::manifest::Manifest;
use floodtide_core::storage::Storage;
use floodtide_core::strategy::Backend;
use floodtide_core::{Alignment, Progress, Selection};
use floodtide_memory::{ArenaCache, ChunkBuffer as LoadBuffer};
use std::num::NonZeroUsize;
use std::sync::Arc;

impl Loader {
    /// Reads with this backend. A load fails if the backend is not available.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.settings.backend = Some(backend);
        self
    }

    /// Reads URIs of `scheme` from `storage`. With the scheme `mem`, for example,
    /// `load("mem://model")` loads `model` from that storage.
    ///
    /// Plain paths and `file://` URIs belong to the scheme `file`, which is
    /// [`LocalStorage`](crate::LocalStorage) by default.
    #[must_use]
    pub fn storage(mut self, scheme: impl Into<String>, storage: impl Storage<LoadBuffer> + 'static) -> Self {
        self.settings.storages.insert(scheme.into(), Arc::new(storage));
        self
    }

    /// Loads only these tensors or slices of tensors.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.settings.selection = selection;
        self
    }

    /// Sets the number of threads or rings.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// Aligns every tensor to at least `alignment`, at most 2 MiB. The default is the alignment of
    /// the dtype, so that typed views are always possible.
    ///
    /// Direct reads need a tensor's offset in the file to satisfy the alignment. Other tensors are
    /// read through the page cache.
    #[must_use]
    pub fn tensor_alignment(mut self, alignment: Alignment) -> Self {
        self.settings.tensor_alignment = Some(alignment);
        self
    }

    /// Locks the tensors in memory. If the system refuses, the report warns and counts the locked
    /// bytes.
    #[must_use]
    pub fn mlock(mut self, mlock: bool) -> Self {
        self.settings.mlock = mlock;
        self
    }

    /// Sets all options of [streams](Self::stream).
    #[must_use]
    pub fn stream_options(mut self, options: StreamOptions) -> Self {
        self.settings.stream = options;
        self
    }

    /// Limits the memory of earlier loads that is kept for the next one, in bytes; 0 keeps none.
    ///
    /// When the last tensor of a load is dropped, its loader keeps the memory: fresh memory must be
    /// zeroed and mapped page by page, which can take longer than the reads. By default memory is
    /// kept while at least as much stays available in the system. Memory that was locked is never
    /// kept. [`clear_arena_cache`](Self::clear_arena_cache) releases it, and so does the drop of
    /// the loader and its clones.
    ///
    /// A clone shares the memory that its original keeps. This call gives the loader an empty cache
    /// of its own, so that it changes no other loader.
    ///
    /// ```
    /// use floodtide::Loader;
    ///
    /// let loader = Loader::new();
    /// let frugal = loader.clone().arena_cache_limit(0); // `loader` still keeps memory
    /// # let _ = frugal;
    /// ```
    #[must_use]
    pub fn arena_cache_limit(mut self, bytes: u64) -> Self {
        self.settings.arena_cache = Arc::new(ArenaCache::with_limit(bytes));
        self
    }

    /// Returns the bytes of memory that this loader, and clones that share them, keep for the next
    /// load.
    #[must_use]
    pub fn arena_cache_len(&self) -> u64 {
        self.settings.arena_cache.byte_len()
    }

    /// Releases the memory that this loader, and clones that share it, keep for the next load.
    pub fn clear_arena_cache(&self) {
        self.settings.arena_cache.clear();
    }

    /// Reports every load and stream to `trace`: its phases, and every read with its worker.
    ///
    /// A [`TraceFile`](crate::trace::TraceFile) writes them to a file for Perfetto.
    #[must_use]
    pub fn trace(mut self, trace: impl Trace) -> Self {
        self.settings.trace = Some(Opaque(Arc::new(trace)));
        self
    }

    /// Reads cold files through the page cache instead of with direct I/O, so that the next process
    /// finds them there.
    ///
    /// This load is slower. It pays off if several processes load the same files, and memory holds
    /// the files beside the tensors.
    #[must_use]
    pub fn populate_page_cache(mut self, populate_page_cache: bool) -> Self {
        self.settings.populate_page_cache = populate_page_cache;
        self
    }

    /// Checks every tensor against a manifest as its bytes are read.
    ///
    /// [`manifest`](Self::manifest) computes a manifest, and
    /// [`read_manifest`](crate::read_manifest) reads one from a file. A tensor that differs fails
    /// the load or stream with [`Error::Mismatch`](floodtide_core::Error::Mismatch), which names
    /// the tensor, its file and its byte range. The load fails before the first read if the
    /// manifest lacks a tensor, lists it with another dtype or shape, or if slices are selected,
    /// because a checksum covers whole tensors.
    ///
    /// The threads that read also hash every byte. [`map`](Self::map) reads all mapped bytes before
    /// it returns; it does not detect later changes of the files.
    ///
    /// ```no_run
    /// use floodtide::{ErrorKind, Loader, read_manifest};
    ///
    /// let manifest = read_manifest("/models/qwen3.manifest.json")?;
    /// let result = Loader::new().verify_with(manifest).load("/models/qwen3");
    /// if result.is_err_and(|error| error.kind() == ErrorKind::ChecksumMismatch) {
    ///     println!("the model differs from the published one");
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    #[must_use]
    pub fn verify_with(mut self, manifest: impl Into<Arc<Manifest>>) -> Self {
        self.settings.manifest = Some(manifest.into());
        self
    }

    /// Sets whether loads use the stored [profile](crate::probe::profile) of the device, if there
    /// is one. The default is true.
    #[must_use]
    pub fn use_device_profile(mut self, use_device_profile: bool) -> Self {
        self.settings.ignore_device_profile = !use_device_profile;
        self
    }

    /// Calls `callback` about 20 times a second from the thread that waits for the load, and once
    /// at its end.
    ///
    /// A panic of `callback` cancels the load or stream and continues in the caller.
    ///
    /// ```
    /// use floodtide::Loader;
    ///
    /// let loader = Loader::new()
    ///     .on_progress(|progress| println!("{} of {} bytes", progress.bytes_done, progress.bytes_total));
    /// # let _ = loader;
    /// ```
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.settings.on_progress = Some(Opaque(Arc::new(callback)));
        self
    }
}
