//! The options of a loader: each is set by one call, and the last one counts.

use super::Loader;
use crate::prepare::StreamOptions;
use crate::runtime::ProgressCallback;
use crate::trace::{Trace, Traces};
use floodtide_core::manifest::Manifest;
use floodtide_core::storage::Storage;
use floodtide_core::strategy::Backend;
use floodtide_core::{Alignment, Progress, Selection};
use floodtide_memory::{ArenaCache, ChunkBuffer as LoadBuffer};
use std::num::NonZeroUsize;
use std::sync::Arc;

impl Loader {
    /// Reads by this backend and no other; a load fails where it cannot be used.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.settings.backend = Some(backend);
        self
    }

    /// Reads URIs of `scheme` from `storage`: `Loader::new().storage("mem", storage).load("mem://model")`. Plain paths and `file://` URIs are
    /// those of `file`, which is the local files unless it is replaced.
    #[must_use]
    pub fn storage(mut self, scheme: impl Into<String>, storage: impl Storage<LoadBuffer> + 'static) -> Self {
        self.settings.storages.insert(scheme.into(), Arc::new(storage));
        self
    }

    /// Loads these tensors, or slices of tensors, only.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.settings.selection = selection;
        self
    }

    /// Works with so many threads or rings.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.settings.threads = Some(threads);
        self
    }

    /// Aligns every tensor to at least this, at most 2 MiB. Without it a tensor is aligned as its dtype needs, so that typed
    /// views are always possible. Tensors whose place in the file does not have the alignment are read through the page
    /// cache, each to a place that has; the others are not affected.
    #[must_use]
    pub fn tensor_alignment(mut self, alignment: Alignment) -> Self {
        self.settings.tensor_alignment = Some(alignment);
        self
    }

    /// Locks the tensors in memory. Where the system refuses, the report warns and counts what is locked.
    #[must_use]
    pub fn mlock(mut self, mlock: bool) -> Self {
        self.settings.mlock = mlock;
        self
    }

    /// Sets the options of [streams](Self::stream), all of them at once.
    #[must_use]
    pub fn stream_options(mut self, options: StreamOptions) -> Self {
        self.settings.stream = options;
        self
    }

    /// Limits the memory of earlier loads that is kept for the next one, in bytes; 0 keeps none.
    ///
    /// When the last tensor of a load is dropped, its loader keeps the memory: fresh memory must be zeroed and mapped page by
    /// page, which can take longer than the reads. By default memory is kept while at least as much stays available in the
    /// system. Memory that was locked is never kept. [`clear_arena_cache`](Self::clear_arena_cache) releases it, and so does the drop of the loader
    /// and its clones.
    ///
    /// A clone shares the memory that its original keeps. This call gives the loader an empty cache of its own, so that it
    /// changes no other loader.
    ///
    /// ```
    /// use floodtide::Loader;
    ///
    /// let loader = Loader::new();
    /// let frugal = loader.clone().keep_memory(0); // `loader` still keeps memory
    /// # let _ = frugal;
    /// ```
    #[must_use]
    pub fn arena_cache_limit(mut self, bytes: u64) -> Self {
        self.settings.arena_cache = Arc::new(ArenaCache::with_limit(bytes));
        self
    }

    /// Returns the bytes of memory that are kept for the next load of this loader or of a clone that shares them.
    #[must_use]
    pub fn arena_cache_len(&self) -> u64 {
        self.settings.arena_cache.byte_len()
    }

    /// Releases the memory that is kept for the next load of this loader or of a clone that shares it.
    pub fn clear_arena_cache(&self) {
        self.settings.arena_cache.clear();
    }

    /// Tells `trace` what happens in each load and stream: its phases, and every read with its worker. A
    /// [`TraceFile`](crate::trace::TraceFile) keeps it for Perfetto.
    #[must_use]
    pub fn trace(mut self, trace: impl Trace) -> Self {
        self.settings.trace = Some(Traces(Arc::new(trace)));
        self
    }

    /// Leaves the files in the page cache: cold ones are read through it, not past it, so that the next process that loads them finds them
    /// there. Slower for this one, and worth it where several load the same files and the memory holds them beside the tensors.
    #[must_use]
    pub fn populate_page_cache(mut self, populate_page_cache: bool) -> Self {
        self.settings.populate_page_cache = populate_page_cache;
        self
    }

    /// Checks every tensor against a manifest while it is loaded, as its bytes land: `floodtide manifest` writes one, and
    /// [`read_manifest`](crate::read_manifest) reads it. A load or stream of anything else fails: with
    /// [`Error::Mismatch`](floodtide_core::Error::Mismatch), which names the tensor, its file and where it is in that; or before the first read, when the manifest does not have
    /// a tensor, has it with another dtype or shape, or a slice is to be loaded, of which a whole tensor's checksum says nothing.
    ///
    /// A load costs a hash of each byte more, by the threads that read. [`map`](Self::map) then reads all of what is mapped before it
    /// returns; what becomes of the files later is not checked.
    ///
    /// ```no_run
    /// use floodtide::{ErrorKind, Loader, read_manifest};
    ///
    /// let manifest = read_manifest("/models/qwen3.manifest.json")?;
    /// let result = Loader::new().verify(manifest).load("/models/qwen3");
    /// if result.is_err_and(|error| error.kind() == ErrorKind::ChecksumMismatch) {
    ///     println!("this is not the model that was published");
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    #[must_use]
    pub fn verify(mut self, manifest: impl Into<Arc<Manifest>>) -> Self {
        self.settings.manifest = Some(manifest.into());
        self
    }

    /// Whether to size reads by what `floodtide probe --store` has measured of the device; true by default ([`probe::profile`](crate::probe::profile)).
    #[must_use]
    pub fn use_device_profile(mut self, use_device_profile: bool) -> Self {
        self.settings.ignore_device_profile = !use_device_profile;
        self
    }

    /// Calls back about 20 times a second from the thread that waits for the load, and once at its end.
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
        self.settings.on_progress = Some(ProgressCallback(Arc::new(callback)));
        self
    }
}
