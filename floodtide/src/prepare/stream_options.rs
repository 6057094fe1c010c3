//! The options that only streams use.

#[cfg(doc)]
use crate::Loader;
#[cfg(doc)]
use crate::error::Error;
use floodtide_core::Order;
use floodtide_memory::pool::Pool;
use std::time::Duration;

/// Sets how a [`Loader`] streams: through how much memory, in which order.
///
/// ```
/// use floodtide::{Loader, Order, StreamOptions};
///
/// // Four buffers of 64 MiB, in the order of the file.
/// let options = StreamOptions::new().memory_limit(256 << 20).buffer_bytes(64 << 20).order(Order::File);
/// let loader = Loader::new().stream_options(options);
/// # let _ = loader;
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    pub(crate) memory: Option<BufferMemory>,
    pub(crate) order: Order,
    pub(crate) buffer_bytes: Option<u64>,
    pub(crate) stall_timeout: Option<Duration>,
}

/// The source of a stream's buffers.
#[derive(Debug, Clone)]
pub(crate) enum BufferMemory {
    /// The stream's own pool, with this limit in bytes.
    Limit(u64),
    /// The caller's pool.
    Pool(Pool),
}

impl StreamOptions {
    /// Returns the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the total size of a stream's buffers in bytes, including those that the caller still
    /// holds.
    ///
    /// A stream needs at least 1 MiB; where whole tensors are taken, it needs enough for the
    /// largest. The default is 1 GiB, or the size of the largest tensor if that is more, but at
    /// most half of the available memory.
    ///
    /// Slices of a dimension other than the slowest take memory on top of the limit: a buffer for
    /// each read in flight. At most 32 of these reads are in flight, or one per thread if there are
    /// more threads. Together their buffers take about as much as the limit at most, or 64 KiB each
    /// if that is more.
    ///
    /// Replaces a [`pool`](Self::pool).
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory = Some(BufferMemory::Limit(bytes));
        self
    }

    /// Takes the buffers from a pool, whose limit then applies: to stream into memory that is
    /// registered with a device, or to share one limit among streams.
    ///
    /// Direct reads need memory that is aligned to 4096 bytes; with less, the reads go through the
    /// page cache. Whether the memory is locked depends on the pool's provider, not on
    /// [`Loader::mlock`]. Streams that share a pool each read ahead into a share of it only.
    /// Consume each on its own thread or task.
    ///
    /// Replaces a [`memory_limit`](Self::memory_limit).
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.memory = Some(BufferMemory::Pool(pool));
        self
    }

    /// Sets the size in bytes of a buffer that tensors share, and of a part of a tensor where parts
    /// are taken; at least 64 KiB. The default is an eighth of the memory limit, at most 64 MiB.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = Some(bytes);
        self
    }

    /// Sets the order of delivery. By default tensors come as they complete, which is fastest.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets how long all memory may be held, without any buffer returned, before the stream returns
    /// [`Error::StreamStalled`]. The default is 60 seconds.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = Some(timeout);
        self
    }
}
