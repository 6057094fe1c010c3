//! A device that a stream is uploaded to, in virtual time. It keeps nothing: who watches it checks what it gets.

use crate::clock::{Clock, Link};
use alloc::collections::BTreeMap;
use core::convert::Infallible;
use core::task::{Context, Poll, Waker};
use floodtide_core::stream::{FilledBuffer, Sink, Ticket};

/// An upload that is under way.
#[derive(Debug)]
struct Upload<B> {
    due: u64,
    buffer: B,
}

/// A simulated device: it takes buffers over a link, as many at a time as it has queue places.
#[derive(Debug)]
pub struct DeviceSink<B, W> {
    clock: Clock,
    link: Link,
    depth: usize,
    uploads: BTreeMap<Ticket, Upload<B>>,
    next: u64,
    waker: Option<Waker>,
    watch: W,
}

impl<B, W: FnMut(&FilledBuffer<B>)> DeviceSink<B, W> {
    /// A device at the end of `link`, with `depth` uploads at a time; `watch` sees each buffer that it gets.
    pub fn new(clock: Clock, link: Link, depth: usize, watch: W) -> Self {
        Self { clock, link, depth, uploads: BTreeMap::new(), next: 0, waker: None, watch }
    }

    /// When the next upload is done; `None` when none is under way.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.uploads.values().map(|upload| upload.due).min()
    }

    /// Wakes whoever waits for an upload.
    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<B, W: FnMut(&FilledBuffer<B>)> Sink<B> for DeviceSink<B, W> {
    type Error = Infallible;

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, chunk: FilledBuffer<B>) -> Result<Ticket, Infallible> {
        (self.watch)(&chunk);
        let bytes = chunk.parts().map(|part| part.bytes.len() as u64).sum();
        let ticket = Ticket(self.next);
        self.next += 1;
        let due = self.link.schedule(self.clock.now(), bytes);
        self.uploads.insert(ticket, Upload { due, buffer: chunk.into_buffer() });
        Ok(ticket)
    }

    fn poll(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<B, Infallible>> {
        match self.uploads.remove(&ticket) {
            Some(upload) if upload.due <= self.clock.now() => Poll::Ready(Ok(upload.buffer)),
            Some(upload) => {
                self.uploads.insert(ticket, upload);
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
            // A ticket is polled until it is ready, by the trait's contract.
            None => Poll::Pending,
        }
    }
}
