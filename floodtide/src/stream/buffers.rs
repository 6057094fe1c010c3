//! The buffers of a stream: borrowed from a pool, filled by the workers, passed to the consumer
//! when complete.

use crate::runtime::LoadTask;
use floodtide_core::stream::{FillingBuffers, ReorderBuffer};
use floodtide_core::{BufferProvider, ChunkId, Error as CoreError, ExtentId, Order, Plan};
use floodtide_memory::SplitBuffer;
use floodtide_memory::pool::{Get, Pool, PoolBuffer, PoolError, StreamGuard};
use floodtide_memory::sync::{Condvar, Mutex};
use floodtide_memory::{ChunkBuffer, ScratchPool};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The memory of a stream. A thread that holds the engine's lock never takes this lock.
pub(super) struct StreamBuffers {
    pool: Pool,
    /// Counts this stream as a user of the pool.
    _stream: StreamGuard,
    /// Whether others may use the pool too.
    pool_is_external: bool,
    plan: Arc<Plan>,
    /// The buffers that slices are gathered from. They are small, and come on top of the pool's
    /// memory.
    scratch: ScratchPool,
    /// The capacity of shared buffers, so that each can be reused for the next.
    coalesced_bytes: usize,
    /// Woken when the pool may have memory for the next extent.
    on_memory: Waker,
    state: Mutex<State>,
    /// Notified when a buffer can be taken, or no more will come.
    ready: Condvar,
}

struct State {
    /// The position of the next extent in the pool's queue.
    request: BufferRequest,
    /// The bytes of buffers that were provided and not taken yet.
    ahead: usize,
    filling: FillingBuffers<SplitBuffer<PoolBuffer>>,
    reorder: ReorderBuffer<PoolBuffer>,
    /// Whether no more reads will complete.
    over: bool,
    /// Woken when `ready` is notified.
    consumer: Option<Waker>,
}

/// Whether the pool was asked for the next extent's buffer.
enum BufferRequest {
    None,
    /// The request waits in the pool's queue.
    Queued(Get),
    /// A worker is asking right now, without the lock, because an allocation may take long.
    InProgress,
}

/// The next item for the consumer.
pub(super) enum Next {
    /// A complete buffer.
    Buffer(ExtentId, PoolBuffer),
    /// All buffers have been taken.
    Done,
    /// Some buffers are missing, but no more will complete.
    Over,
    /// No buffer is complete yet.
    Nothing,
}

/// Wakes the workers when memory is returned.
struct MemoryWaker(Weak<LoadTask<StreamBuffers>>);

impl Wake for MemoryWaker {
    fn wake(self: Arc<Self>) {
        if let Some(task) = self.0.upgrade() {
            task.memory_returned();
        }
    }
}

impl StreamBuffers {
    /// Creates the buffers for the extents of a plan. Buffers of up to `buffer_bytes` bytes all get
    /// the size of the largest.
    pub(super) fn new(
        (pool, pool_is_external): (Pool, bool),
        plan: &Arc<Plan>,
        buffer_bytes: u64,
        order: Order,
        task: Weak<LoadTask<Self>>,
    ) -> Self {
        let sizes = plan.extents().iter().map(|extent| extent.buffer_bytes);
        let state = State {
            request: BufferRequest::None,
            ahead: 0,
            filling: FillingBuffers::new(Arc::clone(plan)),
            reorder: ReorderBuffer::new(order, plan.extents().len()),
            over: false,
            consumer: None,
        };
        Self {
            _stream: pool.join(),
            pool,
            pool_is_external,
            plan: Arc::clone(plan),
            scratch: ScratchPool::new(plan),
            coalesced_bytes: sizes.filter(|&bytes| bytes as u64 <= buffer_bytes).max().unwrap_or(0),
            on_memory: Waker::from(Arc::new(MemoryWaker(task))),
            state: Mutex::new(state),
            ready: Condvar::new(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Returns the next item for the consumer. If there is none, wakes `waker` when there is.
    pub(super) fn poll(&self, waker: Option<&Waker>) -> Next {
        let mut state = self.state.lock();
        if let Some((extent, buffer)) = state.reorder.take() {
            state.ahead -= self.bytes_of(extent);
            Next::Buffer(extent, buffer)
        } else if state.reorder.is_done() {
            Next::Done
        } else if state.over {
            Next::Over
        } else {
            state.consumer = waker.cloned();
            Next::Nothing
        }
    }

    /// Waits until the consumer has a next item, but at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let nothing = |state: &mut State| !state.reorder.has_ready() && !state.reorder.is_done() && !state.over;
        drop(self.ready.wait_timeout_while(self.state.lock(), timeout, nothing));
    }

    /// Drops all buffers, because the consumer has gone. Buffers in flight are dropped when their
    /// reads complete.
    pub(super) fn close(&self) {
        self.end(true);
    }

    /// Marks the end of reading. If the stream has failed, drops its buffers and its position in
    /// the pool's queue, because others may wait for them.
    fn end(&self, failed: bool) {
        let mut state = self.state.lock();
        let news = !std::mem::replace(&mut state.over, true);
        let request = std::mem::replace(&mut state.request, BufferRequest::None);
        let unused = failed.then(|| {
            state.ahead = 0;
            (state.filling.take_open(), state.reorder.take_all())
        });
        if news {
            self.notify(state);
        } else {
            drop(state);
        }
        // Drop without the lock: returned memory may wake any thread.
        drop((request, unused));
    }

    /// Returns the request for a buffer of the extent.
    fn bytes_of(&self, extent: ExtentId) -> usize {
        let bytes = self.plan.extents()[extent.index()].buffer_bytes;
        if bytes <= self.coalesced_bytes { self.coalesced_bytes } else { bytes }
    }

    /// Returns true if `bytes` more bytes may be read ahead of the consumer. In a shared pool, a
    /// stream reads ahead only into its share, so that streams whose consumers take turns do not
    /// starve each other.
    fn may_read_ahead(&self, state: &State, bytes: usize) -> bool {
        let streams = self.pool.streams().max(1);
        !self.pool_is_external || state.ahead == 0 || state.ahead + bytes <= self.pool.stats().limit / (2 * streams)
    }

    /// Wakes the consumer, after releasing the lock.
    fn notify(&self, mut state: floodtide_memory::sync::MutexGuard<'_, State>) {
        let consumer = state.consumer.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waker) = consumer {
            waker.wake();
        }
    }

    /// Splits the buffer of an extent into the ranges of its chunks.
    fn cut(&self, state: &State, extent: ExtentId, buffer: PoolBuffer) -> Result<SplitBuffer<PoolBuffer>, CoreError> {
        let chunks = state.filling.chunks(extent);
        let slots = self.plan.chunks()[chunks.start as usize..chunks.end as usize].iter();
        SplitBuffer::new(buffer, slots.map(|chunk| self.plan.dest_range(chunk)).collect())
            .map_err(|_| CoreError::Contract { what: "the chunks of an extent overlap or exceed its buffer" })
    }

    /// Returns the bytes of a buffer that its chunks fill: their ranges are contiguous.
    fn written(&self, state: &State, extent: ExtentId) -> Range<usize> {
        let chunks = state.filling.chunks(extent);
        let chunks = &self.plan.chunks()[chunks.start as usize..chunks.end as usize];
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return 0..0 };
        let end = match self.plan.gather(last) {
            Some(gather) => gather.dest_range().end,
            None => last.buffer_range.start + last.payload_len,
        };
        self.plan.dest_range(first).start..end
    }
}

impl BufferProvider for StreamBuffers {
    type Buffer = ChunkBuffer;

    fn reserve(&self, extent: ExtentId) -> Result<bool, CoreError> {
        let mut state = self.state.lock();
        match state.filling.next() {
            // Another worker has provided the buffer already.
            Some(next) if extent < next => return Ok(true),
            None => return Ok(true),
            _ if state.over => return Ok(false),
            _ => {}
        }
        let bytes = self.bytes_of(extent);
        let mut get = match std::mem::replace(&mut state.request, BufferRequest::InProgress) {
            BufferRequest::Queued(get) => get,
            BufferRequest::None if self.may_read_ahead(&state, bytes) => self.pool.get_async(bytes),
            before => {
                state.request = before;
                return Ok(false);
            }
        };
        drop(state);
        let answer = Pin::new(&mut get).poll(&mut Context::from_waker(&self.on_memory));
        let mut state = self.state.lock();
        if state.over {
            // Return the memory, or the position in the queue, without the lock.
            drop(state);
            return Ok(false);
        }
        state.request = BufferRequest::None;
        match answer {
            Poll::Pending => {
                state.request = BufferRequest::Queued(get);
                Ok(false)
            }
            Poll::Ready(Ok(buffer)) => {
                let split = self.cut(&state, extent, buffer)?;
                state.ahead += bytes;
                state.filling.open(split);
                Ok(true)
            }
            // The system may have memory once lent buffers are returned, so ask again later.
            Poll::Ready(Err(PoolError::Allocation { .. })) if self.pool.stats().lent > 0 => Ok(false),
            Poll::Ready(Err(error)) => Err(CoreError::Platform { kind: error.kind(), message: error.to_string() }),
        }
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<ChunkBuffer, CoreError> {
        let slice = self.state.lock().filling.find(chunk).and_then(|(split, slot)| split.take(slot));
        let what = "a chunk was taken twice, or before its extent had a buffer";
        let slice = slice.ok_or(CoreError::Contract { what })?;
        self.scratch.buffer(&self.plan, &self.plan.chunks()[chunk.index()], slice)
    }

    fn complete(&self, chunk: ChunkId, buffer: ChunkBuffer) -> Result<(), CoreError> {
        // Drop it before completing, so that the thread that completes the last chunk is the only
        // holder of the buffer.
        buffer.settle();
        let mut state = self.state.lock();
        let Some((extent, split)) = state.filling.complete(chunk) else { return Ok(()) };
        let Some(buffer) = split.into_filled(self.written(&state, extent)) else { return Ok(()) };
        if state.reorder.insert(extent, buffer) {
            self.notify(state);
        }
        Ok(())
    }

    fn finish(&self, failed: bool) {
        self.end(failed);
    }
}

impl fmt::Debug for StreamBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBuffers")
            .field("pool", &self.pool)
            .field("coalesced_bytes", &self.coalesced_bytes)
            .finish_non_exhaustive()
    }
}
