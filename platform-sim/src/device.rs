//! A device that a stream is uploaded to, in virtual time.

use crate::clock::{Clock, Link};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::ops::Deref;
use core::task::{Context, Poll, Waker};
use floodtide_core::stream::{Sink, Staged, Ticket};

/// An upload that is under way.
#[derive(Debug)]
struct Upload<B> {
    due: u64,
    buffer: B,
}

/// A simulated device: it takes buffers over a link, as many at a time as it has queue places, and keeps what was in them.
#[derive(Debug)]
pub struct DeviceSink<B> {
    clock: Clock,
    link: Link,
    depth: usize,
    uploads: BTreeMap<Ticket, Upload<B>>,
    next: u64,
    waker: Option<Waker>,
    memory: BTreeMap<String, Vec<u8>>,
}

impl<B: Deref<Target = [u8]>> DeviceSink<B> {
    /// A device at the end of `link`, with `depth` uploads at a time.
    #[must_use]
    pub fn new(clock: Clock, link: Link, depth: usize) -> Self {
        Self { clock, link, depth, uploads: BTreeMap::new(), next: 0, waker: None, memory: BTreeMap::new() }
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

    /// The tensors that it has got, by name.
    #[must_use]
    pub fn into_memory(self) -> BTreeMap<String, Vec<u8>> {
        self.memory
    }
}

impl<B: Deref<Target = [u8]>> Sink<B> for DeviceSink<B> {
    type Error = Infallible;

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, chunk: Staged<B>) -> Result<Ticket, Infallible> {
        let mut bytes = 0;
        for part in chunk.parts() {
            let tensor = self.memory.entry(part.tensor.name.into()).or_default();
            // A part of a tensor may come before an earlier one.
            let (from, to) = (part.offset as usize, part.offset as usize + part.bytes.len());
            tensor.resize(tensor.len().max(to), 0);
            tensor[from..to].copy_from_slice(&chunk.buffer()[part.bytes.clone()]);
            bytes += part.bytes.len() as u64;
        }
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
