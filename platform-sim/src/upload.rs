//! A device that receives a stream in virtual time. It stores nothing: its watcher checks each
//! buffer.

use crate::clock::Clock;
use alloc::collections::VecDeque;
use core::convert::Infallible;
use core::task::{Context, Poll, Waker};
use floodtide_core::storage::Link;
use floodtide_core::stream::{FilledBuffer, Sink};

/// An upload in progress.
#[derive(Debug)]
struct Upload<B> {
    due: u64,
    buffer: B,
}

/// A simulated device that receives buffers over a link, with a limited queue.
#[derive(Debug)]
pub struct DeviceSink<B, W> {
    clock: Clock,
    link: Link,
    depth: usize,
    /// The uploads in progress. A link transfers one after another, so the first completes first.
    uploads: VecDeque<Upload<B>>,
    waker: Option<Waker>,
    watch: W,
}

impl<B, W: FnMut(&FilledBuffer<B>)> DeviceSink<B, W> {
    /// Creates a device behind `link` with at most `depth` uploads (at least one). `watch` sees
    /// each buffer.
    pub fn new(clock: Clock, link: Link, depth: usize, watch: W) -> Self {
        Self { clock, link, depth: depth.max(1), uploads: VecDeque::new(), waker: None, watch }
    }

    /// Returns when the next upload completes, or `None` if none is in progress.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.uploads.front().map(|upload| upload.due)
    }

    /// Wakes the task that waits for an upload.
    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Returns ready if `ready`. Otherwise the waker is woken when an upload completes.
    fn ready_if(&mut self, ready: bool, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if ready {
            return Poll::Ready(Ok(()));
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<B, W: FnMut(&FilledBuffer<B>)> Sink<B> for DeviceSink<B, W> {
    type Error = Infallible;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready_if(self.uploads.len() < self.depth, context)
    }

    fn start(&mut self, buffer: FilledBuffer<B>) -> Result<(), Infallible> {
        assert!(self.uploads.len() < self.depth, "a buffer was sent to a device that was not ready");
        (self.watch)(&buffer);
        let bytes = buffer.parts().map(|part| part.buffer_range.len() as u64).sum();
        let due = self.link.schedule(self.clock.now(), bytes);
        self.uploads.push_back(Upload { due, buffer: buffer.into_buffer() });
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<B, Infallible>>> {
        match self.next_due() {
            None => Poll::Ready(None),
            Some(due) if due <= self.clock.now() => Poll::Ready(self.uploads.pop_front().map(|done| Ok(done.buffer))),
            Some(_) => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        let through = self.uploads.back().is_none_or(|last| last.due <= self.clock.now());
        self.ready_if(through, context)
    }
}
