//! Waiting for memory: a thread that sleeps, with or without a deadline, or a task of any executor.

use super::block::Block;
use super::inner::Inner;
use super::{Pool, PoolBuffer, PoolError};
use floodtide_core::pool::Turn;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// A place in the queue that is given up when it is dropped.
#[derive(Debug)]
struct QueuedTurn<'p> {
    pool: &'p Arc<Inner>,
    turn: Turn,
}

impl Drop for QueuedTurn<'_> {
    fn drop(&mut self) {
        self.pool.cancel(&mut self.turn);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until there is memory, or until `deadline`.
pub(super) fn block(pool: &Arc<Inner>, bytes: usize, deadline: Option<Instant>) -> Result<Block, PoolError> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut queued = QueuedTurn { pool, turn: Turn::new() };
    loop {
        if let Poll::Ready(result) = pool.poll_take(bytes, &mut queued.turn, &waker) {
            return result.map_err(|error| PoolError::new(error, bytes, pool.limit()));
        }
        // A wake-up between the poll and here makes the park return at once.
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => thread::park(),
            Some(rest) if rest.is_zero() => return Err(PoolError::TimedOut { bytes, limit: pool.limit() }),
            Some(rest) => thread::park_timeout(rest),
        }
    }
}

/// A future buffer: [`Pool::get_async`]. Dropping it gives up its place in the queue.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Get {
    pool: Pool,
    bytes: usize,
    turn: Turn,
}

impl Get {
    pub(super) fn new(pool: Pool, bytes: usize) -> Self {
        Self { pool, bytes, turn: Turn::new() }
    }
}

impl Future for Get {
    type Output = Result<PoolBuffer, PoolError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { pool, bytes, turn } = self.get_mut();
        if !turn.is_waiting()
            && let Some(result) = pool.block_at_once(*bytes)
        {
            return Poll::Ready(result.map(|block| PoolBuffer::new(block, *bytes)));
        }
        pool.inner.poll_take(*bytes, turn, context.waker()).map(|result| match result {
            Ok(block) => Ok(PoolBuffer::new(block, *bytes)),
            Err(error) => Err(PoolError::new(error, *bytes, pool.inner.limit())),
        })
    }
}

impl Drop for Get {
    fn drop(&mut self) {
        self.pool.inner.cancel(&mut self.turn);
    }
}
