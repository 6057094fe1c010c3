//! A source that takes its time.

use crate::clock::{Clock, Link};
use alloc::vec::Vec;
use floodtide_core::{Completion, Outcome, ReadOp, ReadSource, Rejected};

/// Another source with a device's latency and bandwidth, in virtual time. Reads complete when they are due.
#[derive(Debug)]
pub struct TimedSource<S: ReadSource> {
    inner: S,
    clock: Clock,
    link: Link,
    /// Read, and to be completed at that time; in the order of submission.
    pending: Vec<(u64, Completion<S::Buffer>)>,
}

impl<S: ReadSource> TimedSource<S> {
    /// Reads of `inner` over `link`.
    pub fn new(inner: S, clock: Clock, link: Link) -> Self {
        Self { inner, clock, link, pending: Vec::new() }
    }

    /// When the next read completes; `None` when none is in flight.
    pub fn next_due(&self) -> Option<u64> {
        self.pending.iter().map(|(due, _)| *due).min()
    }
}

impl<S: ReadSource> ReadSource for TimedSource<S> {
    type Buffer = S::Buffer;
    type Error = S::Error;

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn submit(&mut self, op: ReadOp, buffer: S::Buffer) -> Result<(), Rejected<S::Buffer>> {
        self.inner.submit(op, buffer)?;
        let (pending, link, now) = (&mut self.pending, &mut self.link, self.clock.now());
        // What goes wrong as a whole goes wrong in `wait`.
        let _ = self.inner.wait(&mut |completion| {
            let bytes = match completion.outcome {
                Outcome::Read(bytes) => bytes as u64,
                Outcome::Failed(_) => 0,
            };
            pending.push((link.schedule(now, bytes), completion));
        });
        Ok(())
    }

    /// Moves the clock to the next completion if it is not there yet.
    fn wait(&mut self, completed: &mut dyn FnMut(Completion<S::Buffer>)) -> Result<(), S::Error> {
        if let Some(due) = self.next_due() {
            self.clock.advance_to(due);
        }
        let now = self.clock.now();
        while let Some(at) = self.pending.iter().position(|(due, _)| *due <= now) {
            completed(self.pending.remove(at).1);
        }
        self.inner.wait(completed)
    }
}
