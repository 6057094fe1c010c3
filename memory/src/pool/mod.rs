//! A pool of buffers under a limit of bytes, for loads that hold only a part of a checkpoint at a
//! time.
//!
//! [`Pool`] lends [`PoolBuffer`]s. Lent buffers and those kept for the next borrower together never
//! exceed the limit. A borrower that needs more waits in order of arrival ([`Pool::get`],
//! [`Pool::get_timeout`], [`Pool::get_async`]) or gets an error ([`Pool::try_get`]).
//!
//! There are two tiers. Each thread keeps a few free buffers in a *magazine* (`magazine`, found by
//! `local`), which it uses without a lock. Below is core's [`Depot`](floodtide_core::pool::Depot)
//! with sharded free lists, the limit and the queue. When a borrower must wait, the magazines of
//! all threads are emptied and stay unused until nobody waits, so that every free buffer can be
//! lent. When a thread ends, its magazine is returned. When the last handle of a pool is dropped,
//! its free buffers are freed, and lent ones are freed when they return.
//!
//! After `fork(2)` without `exec`, the child has the parent's pools but only one of its threads.
//! Blocks in other threads' magazines are lost, and a magazine that was in use at that moment
//! blocks forever. Create pools in the child, not before the fork. As with the allocator, a signal
//! handler must not borrow or drop a buffer.
//!
//! `block`, `inner` and `local` use each other: a free block goes to the magazine of its thread or
//! to the pool, and a thread that ends returns its magazine to the pool.
//!
//! # Example
//!
//! ```
//! use floodtide_memory::pool::Pool;
//!
//! let pool = Pool::builder().limit(64 << 20).build();
//! let mut buffer = pool.get(1 << 20)?;
//! assert!(buffer.is_empty() && buffer.capacity() == 1 << 20);
//! buffer.extend_from_slice(b"weights");
//! assert_eq!(&buffer[..], b"weights");
//! # Ok::<(), floodtide_memory::pool::PoolError>(())
//! ```

mod block;
mod buffer;
mod inner;
mod local;
#[cfg_attr(not(loom), allow(unreachable_pub, reason = "loom's tests alone reach it, through `testing`"))]
pub(crate) mod magazine;
mod memory;
mod wait;

pub use buffer::PoolBuffer;
pub use floodtide_core::pool::Stats;
pub use memory::{HeapMemory, LockPolicy, MappedMemory, MemoryBlock, MemoryProvider, SystemMemory};
pub use wait::Get;

use crate::limits;
use crate::sync::Ordering;
use block::Block;
use floodtide_core::pool::{MIN_BYTES, SizeClass, TakeError};
use floodtide_core::{ErrorKind, HumanBytes};
use inner::Inner;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The default limit in bytes, if that much memory is available.
const DEFAULT_LIMIT: u64 = 1 << 30;

/// The error of a request for a buffer.
///
/// ```
/// use floodtide_core::ErrorKind;
/// use floodtide_memory::pool::Pool;
///
/// let pool = Pool::builder().limit(4096).build();
/// let _held = pool.get(4096)?;
/// assert_eq!(pool.try_get(1).expect_err("all is lent").kind(), ErrorKind::Stalled);
/// assert_eq!(pool.get(8192).expect_err("never fits").kind(), ErrorKind::InvalidRequest);
/// # Ok::<(), floodtide_memory::pool::PoolError>(())
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum PoolError {
    /// The request exceeds the limit of the pool.
    #[error("a buffer of {} exceeds the pool's limit of {}; raise the limit or request less", HumanBytes(*bytes as u64), HumanBytes(*limit as u64))]
    TooLarge { bytes: usize, limit: usize },
    /// Too many bytes are lent.
    #[error("the pool's {} are in use, so it has no buffer of {} now; drop buffers or wait", HumanBytes(*limit as u64), HumanBytes(*bytes as u64))]
    Exhausted { bytes: usize, limit: usize },
    /// No memory was returned in time.
    #[error("no buffer of {} was returned in time to the pool of {}; drop buffers earlier or raise the limit", HumanBytes(*bytes as u64), HumanBytes(*limit as u64))]
    TimedOut { bytes: usize, limit: usize },
    /// The system has no memory, or none that can be locked.
    #[error("the pool has no memory for a buffer of {}: {source}; free memory, raise the limits (ulimit -v, ulimit -l for locked memory), or request a smaller buffer", HumanBytes(*bytes as u64))]
    Allocation { bytes: usize, source: io::Error },
    /// Memory to adopt does not suit the pool.
    #[error("the memory cannot be adopted: {why}; adopt suitable memory or borrow a buffer of the pool")]
    Unsuitable { why: String },
}

impl PoolError {
    /// Returns the kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } | Self::Unsuitable { .. } => ErrorKind::InvalidRequest,
            Self::Exhausted { .. } | Self::TimedOut { .. } => ErrorKind::Stalled,
            Self::Allocation { .. } => ErrorKind::OutOfMemory,
        }
    }

    fn new(error: TakeError<io::Error>, bytes: usize, limit: usize) -> Self {
        match error {
            TakeError::TooLarge => Self::TooLarge { bytes, limit },
            TakeError::Exhausted | TakeError::QueueFull => Self::Exhausted { bytes, limit },
            TakeError::Provider(source) => Self::Allocation { bytes, source },
        }
    }
}

/// Configures a pool.
#[derive(Debug)]
pub struct PoolBuilder {
    limit: Option<usize>,
    memory: Arc<dyn MemoryProvider>,
}

impl PoolBuilder {
    /// Sets the limit of lent and kept bytes, at least 1 KiB.
    ///
    /// The default is 1 GiB, or a quarter of the available memory if that is less.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Sets the memory provider. The default is [`SystemMemory`].
    #[must_use]
    pub fn memory(mut self, memory: impl MemoryProvider + 'static) -> Self {
        self.memory = Arc::new(memory);
        self
    }

    /// Creates the pool. It allocates nothing until the first request.
    #[must_use]
    pub fn build(self) -> Pool {
        let default = || {
            let available = limits::memory_limit().available;
            usize::try_from((available / 4).min(DEFAULT_LIMIT)).unwrap_or(usize::MAX)
        };
        let inner = Inner::new(self.limit.unwrap_or_else(default), self.memory);
        Pool { inner: Arc::clone(&inner), _handle: Arc::new(Handle(inner)) }
    }
}

/// Shared by all clones of a pool, to detect when the last one is dropped.
#[derive(Debug)]
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A pool of buffers. Cheap to clone. Clones share the pool.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
    _handle: Arc<Handle>,
}

/// Counts a stream as a user of a [`Pool`]: see [`Pool::join`].
#[derive(Debug)]
pub struct StreamGuard {
    inner: Arc<Inner>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.inner.streams().fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Returns a builder to configure a pool.
    #[must_use]
    pub fn builder() -> PoolBuilder {
        PoolBuilder { limit: None, memory: Arc::new(SystemMemory::default()) }
    }

    /// Borrows a buffer of `bytes` bytes, and waits while the limit is reached.
    ///
    /// A thread that holds all of the pool itself waits forever.
    ///
    /// # Errors
    /// Fails if the request exceeds the limit or the system has no memory.
    #[inline(always)]
    pub fn get(&self, bytes: usize) -> Result<PoolBuffer, PoolError> {
        match self.inner.take_local(bytes) {
            Some(block) => Ok(PoolBuffer::new(block, bytes)),
            None => self.block_slowly(bytes).map(|block| PoolBuffer::new(block, bytes)),
        }
    }

    /// Borrows a buffer of `bytes` bytes without waiting.
    ///
    /// # Errors
    /// Fails like [`get`](Self::get), or with [`PoolError::Exhausted`] if too many bytes are lent
    /// or others wait.
    #[inline(always)]
    pub fn try_get(&self, bytes: usize) -> Result<PoolBuffer, PoolError> {
        match self.inner.take_local(bytes) {
            Some(block) => Ok(PoolBuffer::new(block, bytes)),
            None => self.block_from_depot(bytes).map(|block| PoolBuffer::new(block, bytes)),
        }
    }

    /// Borrows a buffer of `bytes` bytes, and waits for at most `timeout`.
    ///
    /// # Errors
    /// Fails like [`get`](Self::get), or with [`PoolError::TimedOut`].
    pub fn get_timeout(&self, bytes: usize, timeout: Duration) -> Result<PoolBuffer, PoolError> {
        // A deadline that overflows means no deadline.
        let wait = || wait::block(&self.inner, bytes, Instant::now().checked_add(timeout));
        let block = self.block_at_once(bytes).unwrap_or_else(wait)?;
        Ok(PoolBuffer::new(block, bytes))
    }

    /// Borrows a buffer of `bytes` bytes asynchronously, with any executor.
    pub fn get_async(&self, bytes: usize) -> Get {
        Get::new(self.clone(), bytes)
    }

    /// Borrows a buffer of `bytes` zeros. Waits like [`get`](Self::get).
    ///
    /// # Errors
    /// Fails like [`get`](Self::get).
    pub fn get_zeroed(&self, bytes: usize) -> Result<PoolBuffer, PoolError> {
        let block = match self.inner.take_local(bytes) {
            Some(block) => block,
            None => self.block_slowly(bytes)?,
        };
        Ok(PoolBuffer::zeroed(block, bytes))
    }

    /// Adopts memory that was detached from this pool or another. It counts as lent.
    ///
    /// # Errors
    /// Returns the memory if it does not fit under the limit, is smaller than the smallest class (1
    /// KiB), or is less aligned than this pool's memory.
    pub fn adopt(&self, memory: MemoryBlock) -> Result<PoolBuffer, (MemoryBlock, PoolError)> {
        let (bytes, filled, limit) = (memory.capacity(), memory.len(), self.inner.limit());
        let alignment = self.inner.memory().alignment();
        if memory.start().as_ptr().align_offset(alignment) != 0 {
            let why = format!("its address is not a multiple of {alignment}, as this pool's are");
            return Err((memory, PoolError::Unsuitable { why }));
        }
        let Some(class) = SizeClass::within(bytes) else {
            let why = format!("it has {bytes} bytes, and the smallest buffers of a pool have {MIN_BYTES}");
            return Err((memory, PoolError::Unsuitable { why }));
        };
        if bytes > limit {
            return Err((memory, PoolError::TooLarge { bytes, limit }));
        }
        if !self.inner.adopt(bytes) {
            return Err((memory, PoolError::Exhausted { bytes, limit }));
        }
        let block = Block::new(memory, class, Arc::clone(&self.inner));
        let mut buffer = PoolBuffer::new(block, bytes);
        // SAFETY: this many bytes were filled when it was detached.
        unsafe { buffer.assume_filled(filled) };
        Ok(buffer)
    }

    /// Frees all buffers kept for later borrowers. Returns the number of bytes freed.
    pub fn trim(&self) -> usize {
        self.inner.trim()
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Counts a stream as a user of the pool until the guard is dropped.
    #[must_use]
    pub fn join(&self) -> StreamGuard {
        self.inner.streams().fetch_add(1, Ordering::Relaxed);
        StreamGuard { inner: Arc::clone(&self.inner) }
    }

    /// Returns the number of streams that use the pool.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.inner.streams().load(Ordering::Relaxed)
    }

    /// Returns the alignment of every buffer in bytes.
    #[must_use]
    pub fn alignment(&self) -> usize {
        self.inner.memory().alignment()
    }

    /// Returns the number of bytes that the system refused to lock, see [`LockPolicy::BestEffort`].
    #[must_use]
    pub fn unlocked_bytes(&self) -> usize {
        self.inner.memory().unlocked_bytes()
    }

    /// Takes a block without waiting. Returns `None` if the caller must wait.
    fn block_at_once(&self, bytes: usize) -> Option<Result<Block, PoolError>> {
        if let Some(block) = self.inner.take_local(bytes) {
            return Some(Ok(block));
        }
        match self.block_from_depot(bytes) {
            Err(PoolError::Exhausted { .. }) => None,
            result => Some(result),
        }
    }

    #[cold]
    fn block_from_depot(&self, bytes: usize) -> Result<Block, PoolError> {
        self.inner.try_take(bytes).map_err(|error| PoolError::new(error, bytes, self.inner.limit()))
    }

    #[cold]
    fn block_slowly(&self, bytes: usize) -> Result<Block, PoolError> {
        match self.block_from_depot(bytes) {
            Err(PoolError::Exhausted { .. }) => wait::block(&self.inner, bytes, None),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests;
