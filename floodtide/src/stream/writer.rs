//! A sink that writes.

use floodtide_core::stream::{FilledBuffer, Sink};
use floodtide_memory::pool::PoolBuffer;
use std::io::{self, Write};
use std::task::{Context, Poll};

/// Writes the bytes of tensors to any [`io::Write`]: a file, a socket, a compressor.
///
/// The buffers are written one after another, in the [order](crate::Order) of the stream. Bytes
/// that lie between tensors in a file, or that alignment added, are not written. The writer is
/// flushed after the last buffer.
///
/// It writes on the thread that streams; the workers read on meanwhile.
///
/// # Examples
///
/// ```
/// use floodtide::sink::WriterSink;
/// use floodtide::{Loader, Order, StreamOptions};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// # let header = br#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
/// # std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), &header[..], &[1, 2, 3]].concat())?;
///
/// let mut sink = WriterSink::new(Vec::new());
/// Loader::new().stream_options(StreamOptions::new().order(Order::File)).stream(&path)?.send_to(&mut sink)?;
/// assert_eq!(sink.into_inner(), [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WriterSink<W> {
    writer: W,
    written: u64,
    /// The buffers that are written and not yet returned.
    done: Vec<PoolBuffer>,
}

impl<W: Write> WriterSink<W> {
    /// Returns a sink that writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer, written: 0, done: Vec::new() }
    }

    /// Returns the number of bytes that have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the writer.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

impl<W: Write> Sink<PoolBuffer> for WriterSink<W> {
    type Error = io::Error;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn start(&mut self, buffer: FilledBuffer<PoolBuffer>) -> io::Result<()> {
        for part in buffer.parts() {
            let bytes = &buffer.buffer()[part.buffer_range];
            self.writer.write_all(bytes)?;
            self.written += bytes.len() as u64;
        }
        self.done.push(buffer.into_buffer());
        Ok(())
    }

    fn poll_completed(&mut self, _: &mut Context<'_>) -> Poll<Option<io::Result<PoolBuffer>>> {
        Poll::Ready(self.done.pop().map(Ok))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.writer.flush())
    }
}
