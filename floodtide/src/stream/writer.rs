//! A sink that writes.

use floodtide_core::stream::{FilledBuffer, Sink, Ticket};
use floodtide_memory::pool::PoolBuffer;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::task::{Context, Poll};

/// Writes the tensors' bytes, one after another in the order of their arrival, to any [`io::Write`]: a file, a socket, a
/// compressor. Bytes that lie between tensors in a file, or that alignment added, are not written.
///
/// It writes on the thread that streams; the workers read on meanwhile. Every buffer is flushed.
#[derive(Debug)]
pub struct WriterSink<W> {
    writer: W,
    written: u64,
    /// Buffers that are written and not yet asked for.
    done: BTreeMap<Ticket, PoolBuffer>,
    next: u64,
}

impl<W: Write> WriterSink<W> {
    /// Writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer, written: 0, done: BTreeMap::new(), next: 0 }
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The writer.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

impl<W: Write> Sink<PoolBuffer> for WriterSink<W> {
    type Error = io::Error;

    fn depth(&self) -> usize {
        1
    }

    fn submit(&mut self, chunk: FilledBuffer<PoolBuffer>) -> io::Result<Ticket> {
        for part in chunk.parts() {
            let bytes = &chunk.buffer()[part.bytes];
            self.writer.write_all(bytes)?;
            self.written += bytes.len() as u64;
        }
        self.writer.flush()?;
        let ticket = Ticket(self.next);
        self.next += 1;
        self.done.insert(ticket, chunk.into_buffer());
        Ok(ticket)
    }

    fn poll(&mut self, ticket: Ticket, _: &mut Context<'_>) -> Poll<io::Result<PoolBuffer>> {
        let unknown = || io::Error::other("the ticket is of another sink, or its buffer was taken already");
        Poll::Ready(self.done.remove(&ticket).ok_or_else(unknown))
    }
}
