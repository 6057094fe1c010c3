//! The options of a loader: each is set by one call, and the last one counts.

use super::Loader;
use crate::runtime::{MakeFaults, ProgressCallback};
#[cfg(doc)]
use crate::error::Error;
use crate::stream;
use crate::trace::{Trace, Traces};
use floodtide_core::manifest::Manifest;
use floodtide_core::middleware::Faults;
use floodtide_core::storage::Storage;
use floodtide_core::strategy::Backend;
use floodtide_memory::ChunkBuffer as LoadBuffer;
use floodtide_core::{Alignment, Order, Progress, Selection};
use floodtide_memory::pool::Pool;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

impl Loader {
    /// Reads by this backend and no other; a load fails where it cannot be used.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Reads URIs of `scheme` from `storage`: `Loader::new().storage("mem", storage).load("mem://model")`. Plain paths and `file://` URIs are
    /// those of `file`, which is the local files unless it is replaced.
    #[must_use]
    pub fn storage(mut self, scheme: impl Into<String>, storage: impl Storage<LoadBuffer> + 'static) -> Self {
        self.storages.insert(scheme.into(), Arc::new(storage));
        self
    }

    /// Loads these tensors, or slices of tensors, only.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Works with so many threads or rings.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Aligns every tensor to at least this, at most 2 MiB. Without it a tensor is aligned as its dtype needs, so that typed
    /// views are always possible. Tensors whose place in the file does not have the alignment are read through the page
    /// cache, each to a place that has; the others are not affected.
    #[must_use]
    pub fn tensor_alignment(mut self, alignment: Alignment) -> Self {
        self.tensor_alignment = Some(alignment);
        self
    }

    /// Locks the tensors in memory. Where the system refuses, the report warns and counts what is locked.
    #[must_use]
    pub fn mlock(mut self, mlock: bool) -> Self {
        self.mlock = mlock;
        self
    }

    /// Lets a [stream](Self::stream) have so many bytes: its buffers, those that are being filled and those that the caller
    /// holds together, never pass it. At least 1 MiB, and, where whole tensors are taken, enough for the longest. By default 1 GiB, or
    /// what the longest takes, but half of the memory there is at most. Slices of other dimensions than the slowest take on top of that a
    /// buffer for each read in flight; there are then 32 in flight, or one a thread, at most, whose buffers are together about as large as
    /// the limit at most (64 KiB each, if that is more).
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.stream.memory = Some(stream::Memory::Limit(bytes));
        self
    }

    /// Streams through buffers of this pool, whose limit is then the stream's: for memory that is registered with a device, or to
    /// share one limit. In place of [`memory_limit`](Self::memory_limit); the later of the two counts.
    ///
    /// Memory that is aligned to less than 4096 bytes may be less than direct reads need, which then go through the page cache.
    /// Whether it is locked is up to the pool's provider, not to [`mlock`](Self::mlock). Streams that share a pool read ahead
    /// into a share of it only; each should be consumed by a thread or task of its own.
    #[must_use]
    pub fn stream_pool(mut self, pool: Pool) -> Self {
        self.stream.memory = Some(stream::Memory::Pool(pool));
        self
    }

    /// Lets tensors of a stream share buffers of so many bytes, at least 64 KiB; and cuts tensors into parts of that size where parts
    /// are taken. By default an eighth of the memory limit, 64 MiB at most. Four staging buffers of 64 MiB are
    /// `.memory_limit(256 << 20).stream_buffer(64 << 20)`.
    #[must_use]
    pub fn stream_buffer(mut self, bytes: u64) -> Self {
        self.stream.buffer_bytes = Some(bytes);
        self
    }

    /// Streams in this order; by default as the tensors land, which is fastest.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.stream.order = order;
        self
    }

    /// How long the consumer of a stream may hold all of its memory, without giving anything back, before it is told
    /// ([`Error::StreamStalled`]); 60 seconds by default.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stream.stall_timeout = Some(timeout);
        self
    }

    /// Keeps up to so many bytes of memory of earlier loads, when nothing holds their tensors any more, for the next load of this loader
    /// or of a clone of it: fresh memory must be zeroed and mapped page by page, which can take longer than the reads. 0 keeps
    /// none. By default it keeps what it has while as much is left free beside it. Memory that was locked is not kept.
    /// [`trim`](Self::trim) gives it back, and so does the drop of the last clone.
    #[must_use]
    pub fn keep_memory(self, bytes: u64) -> Self {
        self.arenas.set_limit(bytes);
        self
    }

    /// The bytes of memory that are kept for the next load.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.arenas.bytes()
    }

    /// Gives the memory that is kept for the next load back to the system.
    pub fn trim(&self) {
        self.arenas.trim();
    }

    /// Does without io_uring, as if the system refused it with this reason.
    #[must_use]
    pub fn forbid_uring(mut self, reason: impl Into<String>) -> Self {
        self.uring_refused = Some(reason.into());
        self
    }

    /// Tells `trace` what happens in each load and stream: its phases, and every read with its worker. A
    /// [`TraceFile`](crate::trace::TraceFile) keeps it for Perfetto.
    #[must_use]
    pub fn trace(mut self, trace: impl Trace) -> Self {
        self.trace = Some(Traces(Arc::new(trace)));
        self
    }

    /// Leaves the files in the page cache: cold ones are read through it, not past it, so that the next process that loads them finds them
    /// there. Slower for this one, and worth it where several load the same files and the memory holds them beside the tensors.
    #[must_use]
    pub fn leave_cached(mut self, leave_cached: bool) -> Self {
        self.leave_cached = leave_cached;
        self
    }

    /// Checks every tensor against a manifest while it is loaded, as its bytes land: `floodtide manifest` writes one, and
    /// [`read_manifest`](crate::read_manifest) reads it. A load or stream of anything else fails: with
    /// [`Error::Mismatch`](floodtide_core::Error::Mismatch), which names the tensor, its file and where it is in that; or before the first read, when the manifest does not have
    /// a tensor, has it with another dtype or shape, or a slice is to be loaded, of which a whole tensor's checksum says nothing.
    ///
    /// A load costs a hash of each byte more, by the threads that read. [`open`](Self::open) then reads all of what is mapped before it
    /// returns; what becomes of the files later is not checked.
    #[must_use]
    pub fn verify(mut self, manifest: impl Into<Arc<Manifest>>) -> Self {
        self.manifest = Some(manifest.into());
        self
    }

    /// Does without what `floodtide probe --store` has measured of the device ([`probe::profile`](crate::probe::profile)).
    #[must_use]
    pub fn without_profile(mut self) -> Self {
        self.without_profile = true;
        self
    }

    /// Puts faults around the source of every worker, which makes its own. For tests: the simulator's faults then
    /// strike real reads. Not for the backends mmap and tokio, which read otherwise.
    #[doc(hidden)]
    #[must_use]
    pub fn faults<F: Faults + 'static>(mut self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.faults = Some(MakeFaults(Arc::new(move || Box::new(make()))));
        self
    }

    /// Calls back about 20 times a second from the thread that waits for the load, and once at its end.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(ProgressCallback(Arc::new(callback)));
        self
    }
}
