//! The buffers of a stream: lent by a pool, filled by the workers, handed to the consumer when they are whole.

use crate::runtime::LoadTask;
use floodtide_core::stream::{FillingBuffers, ReorderBuffer};
use floodtide_core::{BufferProvider, ChunkId, Error as CoreError, ExtentId, Order, Plan};
use floodtide_memory::SplitBuffer;
use floodtide_memory::pool::{Get, Pool, PoolBuffer, PoolError};
use floodtide_memory::sync::Ordering;
use floodtide_memory::sync::{Condvar, Mutex};
use floodtide_memory::{ChunkBuffer, ScratchPool};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The memory of a stream. Its lock is never taken by whoever holds the engine's.
pub(super) struct Staging {
    pool: Pool,
    /// Others may use the pool too.
    pool_is_external: bool,
    plan: Arc<Plan>,
    /// What strided slices are read to; it comes on top of the pool's memory, and is little beside that.
    scratch: ScratchPool,
    /// The capacity of buffers that tensors share, so that each serves for the next.
    coalesced_bytes: usize,
    /// Woken when the pool may have memory for the next extent.
    on_memory: Waker,
    state: Mutex<State>,
    /// Notified when something can be taken, or nothing will come any more.
    ready: Condvar,
}

struct State {
    /// The next extent's place in the pool's queue.
    request: BufferRequest,
    /// The bytes of buffers that were provided and not taken.
    ahead: usize,
    filling: FillingBuffers<SplitBuffer<PoolBuffer>>,
    reorder: ReorderBuffer<PoolBuffer>,
    /// Nothing more will land.
    over: bool,
    /// Woken like `ready` is notified.
    consumer: Option<Waker>,
}

/// Whether the pool has been asked for the next extent's buffer.
enum BufferRequest {
    None,
    /// And has not had it yet.
    WorkerState(Get),
    /// By a worker that is just doing so, without the lock: memory may take its time to come.
    InProgress,
}

/// What there is for the consumer.
pub(super) enum Next {
    /// A whole buffer.
    Buffer(ExtentId, PoolBuffer),
    /// All have been taken.
    Done,
    /// Not all have been taken, but nothing more will land.
    Over,
    /// Nothing yet.
    Nothing,
}

/// Tells the workers that memory has come back.
struct MemoryWaker(Weak<LoadTask<Staging>>);

impl Wake for MemoryWaker {
    fn wake(self: Arc<Self>) {
        if let Some(task) = self.0.upgrade() {
            task.memory_returned();
        }
    }
}

impl Staging {
    /// For the extents of a stream's plan. Buffers of up to `buffer_bytes` bytes all get the size of the largest of them.
    pub(super) fn new(
        (pool, pool_is_external): (Pool, bool),
        plan: &Arc<Plan>,
        buffer_bytes: u64,
        order: Order,
        task: Weak<LoadTask<Self>>,
    ) -> Self {
        pool.streams().fetch_add(1, Ordering::Relaxed);
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

    /// What the consumer can have now; if nothing, `waker` is woken when there is something.
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

    /// Waits until there is something for the consumer, but no longer than `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let nothing = |state: &mut State| !state.reorder.has_ready() && !state.reorder.is_done() && !state.over;
        drop(self.ready.wait_timeout_while(self.state.lock(), timeout, nothing));
    }

    /// Drops everything, as nobody will take it any more; what is being filled goes when it has landed.
    pub(super) fn close(&self) {
        self.end(true);
    }

    /// Nothing more will land. When that is so because the stream has failed, nothing of it is of use any more, and others
    /// may wait for its memory and its place in the pool's queue.
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
        // Without the lock, as what is given back may wake anybody.
        drop((request, unused));
    }

    /// What a buffer for the extent is asked for with.
    fn bytes_of(&self, extent: ExtentId) -> usize {
        let bytes = self.plan.extents()[extent.index()].buffer_bytes;
        if bytes <= self.coalesced_bytes { self.coalesced_bytes } else { bytes }
    }

    /// Whether so many bytes more may be read before the consumer has taken what there is. Of a pool that others use too a
    /// stream takes only its share for that, so that streams whose consumers take turns do not starve one another.
    fn may_read_ahead(&self, state: &State, bytes: usize) -> bool {
        let streams = self.pool.streams().load(Ordering::Relaxed).max(1);
        !self.pool_is_external || state.ahead == 0 || state.ahead + bytes <= self.pool.stats().limit / (2 * streams)
    }

    /// Wakes the consumer, after the lock is gone.
    fn notify(&self, mut state: floodtide_memory::sync::MutexGuard<'_, State>) {
        let consumer = state.consumer.take();
        drop(state);
        self.ready.notify_all();
        if let Some(waker) = consumer {
            waker.wake();
        }
    }

    /// The chunks' places in their extent's buffer.
    fn cut(&self, state: &State, extent: ExtentId, buffer: PoolBuffer) -> Result<SplitBuffer<PoolBuffer>, CoreError> {
        let chunks = state.filling.chunks(extent);
        let slots = self.plan.chunks()[chunks.start as usize..chunks.end as usize].iter();
        SplitBuffer::new(buffer, slots.map(|chunk| self.plan.dest_range(chunk)).collect())
            .map_err(|_| CoreError::Contract { what: "the chunks of an extent overlap or pass its buffer" })
    }

    /// The bytes of a buffer that its chunks' reads write, or what is gathered from them: their places lie side by side.
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

impl BufferProvider for Staging {
    type Buffer = ChunkBuffer;

    fn reserve(&self, extent: ExtentId) -> Result<bool, CoreError> {
        let mut state = self.state.lock();
        match state.filling.next() {
            // Another worker was faster.
            Some(next) if extent < next => return Ok(true),
            None => return Ok(true),
            _ if state.over => return Ok(false),
            _ => {}
        }
        let bytes = self.bytes_of(extent);
        let mut get = match std::mem::replace(&mut state.request, BufferRequest::InProgress) {
            BufferRequest::WorkerState(get) => get,
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
            // The memory, or the place in the queue, goes back without the lock.
            drop(state);
            return Ok(false);
        }
        state.request = BufferRequest::None;
        match answer {
            Poll::Pending => {
                state.request = BufferRequest::WorkerState(get);
                Ok(false)
            }
            Poll::Ready(Ok(buffer)) => {
                let split = self.cut(&state, extent, buffer)?;
                state.ahead += bytes;
                state.filling.open(split);
                Ok(true)
            }
            // The system may have more when what is lent has come back; it is asked again before long.
            Poll::Ready(Err(PoolError::Allocation { .. })) if self.pool.stats().lent > 0 => Ok(false),
            Poll::Ready(Err(error)) => Err(CoreError::Platform { message: error.to_string() }),
        }
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<ChunkBuffer, CoreError> {
        let slice = self.state.lock().filling.find(chunk).and_then(|(split, slot)| split.take(slot));
        let what = "a chunk was taken twice, or before its extent had a buffer";
        let slice = slice.ok_or(CoreError::Contract { what })?;
        self.scratch.buffer(&self.plan, &self.plan.chunks()[chunk.index()], slice)
    }

    fn complete(&self, chunk: ChunkId, buffer: ChunkBuffer) -> Result<(), CoreError> {
        // Before it is booked, so that whoever books the last one is the buffer's only holder.
        buffer.settle();
        let mut state = self.state.lock();
        let Some((extent, split)) = state.filling.land(chunk) else { return Ok(()) };
        let Some(buffer) = split.into_filled(self.written(&state, extent)) else { return Ok(()) };
        if state.reorder.land(extent, buffer) {
            self.notify(state);
        }
        Ok(())
    }

    fn finish(&self, failed: bool) {
        self.end(failed);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.pool.streams().fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staging")
            .field("pool", &self.pool)
            .field("coalesced_bytes", &self.coalesced_bytes)
            .finish_non_exhaustive()
    }
}
