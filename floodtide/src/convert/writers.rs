//! The threads that write buffers while the stream reads the next ones.

use super::files::Files;
use crate::error::Error;
use crate::runtime::TICK;
use floodtide_core::convert::Layout;
use floodtide_core::stream::{FilledBuffer, Sink};
use floodtide_memory::pool::PoolBuffer;
use floodtide_memory::sync::Mutex;
use floodtide_memory::sync::{AtomicBool, AtomicU64, Ordering};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread::{Builder, Scope};
use std::time::Instant;

/// The number of threads: one copies while another waits for the disk.
const THREADS: usize = 2;

/// The buffers that are written, and the waker of the sink.
#[derive(Debug, Default)]
struct Completed {
    buffers: VecDeque<Result<PoolBuffer, Error>>,
    waker: Option<Waker>,
}

/// The threads, as a sink of a stream.
pub(super) struct Writers<'s> {
    jobs: Sender<FilledBuffer<PoolBuffer>>,
    /// The maximum number of buffers that the threads hold.
    depth: usize,
    /// The number of buffers that were taken and not returned.
    held: usize,
    completed: Arc<Mutex<Completed>>,
    work: Work<'s>,
    reported: Instant,
}

/// The state that the threads share.
#[derive(Clone, Copy)]
pub(super) struct Work<'s> {
    pub(super) files: &'s Files<'s>,
    pub(super) layout: &'s Layout,
    /// The bytes of tensors that are written.
    pub(super) written: &'s AtomicU64,
    /// Whether the threads must stop.
    pub(super) cancelled: &'s AtomicBool,
    /// The progress callback.
    pub(super) on_progress: Option<&'s (dyn Fn(Written) + Send + Sync)>,
}

/// The progress of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The bytes of tensors that are written.
    pub bytes_done: u64,
    /// The bytes of all tensors to write.
    pub bytes_total: u64,
}

impl Work<'_> {
    pub(super) fn report(&self) {
        if let Some(callback) = self.on_progress {
            let bytes_done = self.written.load(Ordering::Relaxed);
            callback(Written { bytes_done, bytes_total: self.layout.tensor_bytes() });
        }
    }
}

impl<'s> Writers<'s> {
    /// Starts the threads, which end when this is dropped.
    ///
    /// # Errors
    /// Returns an error if the system grants no thread at all.
    pub(super) fn start<'e>(scope: &'s Scope<'s, 'e>, work: Work<'s>) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let completed = Arc::new(Mutex::new(Completed::default()));
        let mut threads = 0;
        for _ in 0..THREADS {
            let (queue, completed) = (Arc::clone(&queue), Arc::clone(&completed));
            let thread = Builder::new().name("floodtide-write".to_owned());
            match thread.spawn_scoped(scope, move || run(&queue, &completed, work)) {
                Ok(_) => threads += 1,
                Err(error) if threads == 0 => return Err(error),
                // One thread is enough.
                Err(_) => break,
            }
        }
        // One more buffer, so that a thread that has finished finds the next.
        Ok(Self { jobs, depth: threads + 1, held: 0, completed, work, reported: Instant::now() })
    }
}

impl Sink<PoolBuffer> for Writers<'_> {
    type Error = Error;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.work.cancelled.load(Ordering::Relaxed) {
            return Poll::Ready(Err(floodtide_core::Error::Cancelled.into()));
        }
        if self.held < self.depth {
            return Poll::Ready(Ok(()));
        }
        self.completed.lock().waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn start(&mut self, buffer: FilledBuffer<PoolBuffer>) -> Result<(), Error> {
        // The threads wait for jobs until this is dropped.
        self.jobs.send(buffer).map_err(|_| contract("no thread writes"))?;
        self.held += 1;
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<PoolBuffer, Error>>> {
        if self.reported.elapsed() >= TICK {
            self.reported = Instant::now();
            self.work.report();
        }
        if self.held == 0 {
            return Poll::Ready(None);
        }
        let mut completed = self.completed.lock();
        if let Some(end) = completed.buffers.pop_front() {
            self.held -= 1;
            return Poll::Ready(Some(end));
        }
        completed.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits until everything is written. The conversion syncs the files.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut completed = self.completed.lock();
        if completed.buffers.len() == self.held {
            return Poll::Ready(Ok(()));
        }
        completed.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn contract(what: &'static str) -> Error {
    floodtide_core::Error::Contract { what }.into()
}

/// Writes one buffer after another, until no more arrive.
fn run(queue: &Mutex<Receiver<FilledBuffer<PoolBuffer>>>, completed: &Mutex<Completed>, work: Work<'_>) {
    loop {
        let job = queue.lock().recv();
        let Ok(filled) = job else { return };
        // The sink would wait forever for a buffer that never returns.
        let written = catch_unwind(AssertUnwindSafe(|| write(&filled, work)));
        let end = written.unwrap_or_else(|_| Err(contract("a thread that writes panicked")));
        let waker = {
            let mut completed = completed.lock();
            completed.buffers.push_back(end.map(|()| filled.into_buffer()));
            completed.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Bytes that are contiguous in the buffer and in the output.
#[derive(Debug)]
struct Run {
    file: u32,
    offset: u64,
    bytes: Range<usize>,
}

fn write(filled: &FilledBuffer<PoolBuffer>, work: Work<'_>) -> Result<(), Error> {
    let mut run: Option<Run> = None;
    for part in filled.parts() {
        // A tensor that shares the bytes of another is written with that one.
        let Some(to) = work.layout.destination(part.tensor.id).filter(|_| !part.buffer_range.is_empty()) else {
            continue;
        };
        let next = Run { file: to.file, offset: to.offset + part.offset, bytes: part.buffer_range };
        run = match run {
            Some(run) if run.goes_on_with(&next) => Some(Run { bytes: run.bytes.start..next.bytes.end, ..run }),
            run => {
                write_run(filled, run, work)?;
                Some(next)
            }
        };
    }
    write_run(filled, run, work)
}

impl Run {
    /// Tensors that are adjacent in the source are usually adjacent in the output too, so one call
    /// writes several small ones.
    fn goes_on_with(&self, next: &Self) -> bool {
        self.file == next.file
            && self.bytes.end == next.bytes.start
            && self.offset + self.bytes.len() as u64 == next.offset
    }
}

fn write_run(filled: &FilledBuffer<PoolBuffer>, run: Option<Run>, work: Work<'_>) -> Result<(), Error> {
    let Some(Run { file, offset, bytes }) = run else { return Ok(()) };
    if work.cancelled.load(Ordering::Relaxed) {
        return Err(floodtide_core::Error::Cancelled.into());
    }
    let bytes = &filled.buffer()[bytes];
    work.files.write(file, offset, bytes)?;
    work.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}
