//! Streams tensors in bounded memory.
//!
//! The plan assigns a buffer to every extent ([`Buffers`](floodtide_core::Buffers)). Workers fill
//! buffers that they borrow from the pool (`buffers`), as many as fit under the limit. The consumer
//! takes complete buffers (`running`) and returns them by dropping their tensors. No read exceeds
//! the memory limit, so a slow consumer throttles the reads.

#[cfg(feature = "tokio")]
mod awaited;
mod begin;
mod buffers;
mod running;
mod writer;

#[cfg(feature = "tokio")]
pub use awaited::AsyncTensorStream;
pub(crate) use begin::check_limit;
pub use writer::WriterSink;

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
#[cfg(doc)]
use crate::loader::Loader;
#[cfg(doc)]
use crate::prepare::StreamOptions;
use crate::prepare::{BufferMemory, DecidedLoad, Input, Settings};
use crate::report::Report;
use crate::runtime::PlannedLoad;
use crate::signals::LoadMode;
use crate::tensors::Tensor;
#[cfg(doc)]
use floodtide_core::Order;
use floodtide_core::stream::{FilledBuffer, PumpError, Sink, SinkPump};
use floodtide_core::{Catalog, MetadataValue, Progress, TensorInfo};
use floodtide_memory::pool::PoolBuffer;
use running::Running;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// The facts about a checkpoint before its stream starts.
pub(crate) struct StreamInput<'a> {
    pub(crate) catalog: Arc<Catalog>,
    /// The metadata of the index and the files, each key once.
    pub(crate) metadata: &'a [(String, MetadataValue)],
    pub(crate) files: &'a OpenFiles,
}

/// The minimum size of a shared buffer.
const MIN_BUFFER: u64 = 64 << 10;

/// The tensors of a checkpoint, one after another, as returned by [`Loader::stream`].
///
/// As an iterator it yields whole tensors, so its memory limit must hold the largest one. The
/// default limit does, if half of the available memory does. With
/// [`for_each_part`](Self::for_each_part) and [`send_to`](Self::send_to), tensors come in parts,
/// and any limit of at least 1 MiB works. Reading starts with the first call; dropping the stream
/// ends it.
///
/// Tensors that are adjacent in a file share a buffer. A buffer returns to the pool when all of its
/// tensors are dropped. Until then it counts against the limit.
///
/// If the loader [verifies](Loader::verify_with), a whole tensor is checked before it is returned.
/// A part is returned before the other parts arrive, so its tensor is verified only when the stream
/// ends without an error.
///
/// An error ends the stream, except [`Error::StreamStalled`], after which the next call resumes it.
/// After an error some tensors are missing, or a file has changed while it was read. Only a stream
/// that ends without an error has delivered the whole checkpoint and has a
/// [`report`](Self::report).
///
/// ```no_run
/// use floodtide::{Loader, StreamOptions};
///
/// let loader = Loader::new().stream_options(StreamOptions::new().memory_limit(256 << 20));
/// for tensor in loader.stream("model.safetensors")? {
///     let tensor = tensor?;
///     println!("{} has {} bytes", tensor.name(), tensor.as_bytes().len());
/// }
/// # Ok::<(), floodtide::Error>(())
/// ```
pub struct TensorStream {
    settings: Settings,
    catalog: Arc<Catalog>,
    started: Instant,
    state: State,
    /// The remaining tensors of the last buffer.
    queue: VecDeque<Tensor>,
}

impl std::fmt::Debug for TensorStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Opened(_) => "opened",
            State::Running(_) => "running",
            State::Failed => "failed",
        };
        let progress = self.progress();
        f.debug_struct("TensorStream").field("state", &state).field("progress", &progress).finish_non_exhaustive()
    }
}

enum State {
    /// The headers are read, and reading the tensors has not started.
    Opened(Box<DecidedLoad>),
    Running(Box<Running>),
    /// The stream failed to start.
    Failed,
}

impl TensorStream {
    pub(crate) fn open(settings: &Settings, input: &Input<'_>) -> Result<Self, Error> {
        if let Some(backend) = settings.backend.filter(|backend| backend.is_mapped()) {
            return Err(Error::StreamMapped { backend });
        }
        let started = Instant::now();
        let options = &settings.stream;
        let (limit, alignment) = match &options.memory {
            Some(BufferMemory::Limit(limit)) => (*limit, None),
            Some(BufferMemory::Pool(pool)) => (pool.stats().limit as u64, Some(pool.alignment())),
            None => (u64::MAX, None),
        };
        check_limit(limit, 1)?;
        if let Some(bytes) = options.buffer_bytes.filter(|bytes| !(MIN_BUFFER..=limit).contains(bytes)) {
            return Err(Error::StreamBuffer { bytes, min: MIN_BUFFER, limit });
        }
        let checkpoint = settings.open_checkpoint(input, LoadMode::Stream { memory_alignment: alignment })?;
        Ok(Self::of(settings, checkpoint, started))
    }

    /// Returns a stream of an open checkpoint.
    pub(crate) fn of(settings: &Settings, checkpoint: DecidedLoad, started: Instant) -> Self {
        checkpoint.phases.enter(None);
        Self {
            settings: settings.clone(),
            catalog: Arc::clone(&checkpoint.catalog),
            started,
            state: State::Opened(Box::new(checkpoint)),
            queue: VecDeque::new(),
        }
    }

    /// Waits for the next buffer, which may hold parts of tensors.
    pub(crate) fn next_buffer(&mut self) -> Option<Result<FilledBuffer<PoolBuffer>, Error>> {
        match self.start(true) {
            Ok(running) => running.next_patiently(),
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns the catalog of the checkpoint: all tensors of its files, selected or not.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the facts about the checkpoint that are known before the stream starts.
    pub(crate) fn input(&self) -> Result<StreamInput<'_>, Error> {
        let State::Opened(checkpoint) = &self.state else { return Err(Error::StreamStarted) };
        let DecidedLoad { catalog, metadata, files, .. } = &**checkpoint;
        Ok(StreamInput { catalog: Arc::clone(catalog), metadata, files })
    }

    /// Returns the progress, which is empty before the first call.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.state {
            State::Running(running) => running.progress(),
            _ => Progress::default(),
        }
    }

    /// Returns the report, once the stream has ended without an error.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.state {
            State::Running(running) => running.report(),
            _ => None,
        }
    }

    /// Calls `consume` with the bytes of every tensor as they arrive: the tensor, the offset of the
    /// bytes in it, and the bytes.
    ///
    /// A tensor larger than a buffer comes in parts, each a whole number of elements. With
    /// [`Order::File`] and [`Order::Selection`] its parts arrive in ascending order, otherwise in
    /// any order. Empty tensors are included.
    ///
    /// # Errors
    /// Returns an error if the stream fails; then some bytes have not been delivered. Returns
    /// [`Error::StreamStarted`] if the stream has returned whole tensors already.
    pub fn for_each_part(mut self, mut consume: impl FnMut(TensorInfo<'_>, u64, &[u8])) -> Result<Report, Error> {
        let running = self.start_in_parts()?;
        let PlannedLoad { catalog, plan, .. } = running.planned();
        for index in plan.without_extent() {
            consume(plan.tensor(catalog, index), 0, &[]);
        }
        while let Some(filled) = running.next_patiently() {
            let filled = filled?;
            for part in filled.parts() {
                consume(part.tensor, part.offset, &filled.buffer()[part.buffer_range]);
            }
        }
        self.take_report()
    }

    /// Passes ownership of every buffer to `sink`, and returns when the sink is flushed.
    ///
    /// The sink decides how many buffers it holds at a time. Meanwhile the workers fill the free
    /// ones. A tensor larger than a buffer comes in parts. With a [pool](StreamOptions::pool) of
    /// registered memory, this is an asynchronous upload through staging buffers.
    ///
    /// # Errors
    /// Returns the first error, of the stream or of the sink. By then the sink has returned every
    /// buffer. Returns [`Error::StreamStarted`] if the stream has returned whole tensors already.
    pub fn send_to<K: Sink<PoolBuffer>>(mut self, sink: &mut K) -> Result<Report, PumpError<Error, K::Error>> {
        let running = self.start_in_parts().map_err(PumpError::Stream)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut pump = SinkPump::new();
        loop {
            match pump.poll(running, sink, &mut Context::from_waker(&waker)) {
                Poll::Ready(Ok(())) => return self.take_report().map_err(PumpError::Stream),
                Poll::Ready(Err(error)) => return Err(error),
                // A wake-up since the poll makes the park return at once.
                Poll::Pending if running.reports_progress() => thread::park_timeout(crate::runtime::TICK),
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Starts the stream for a consumer that takes parts. Fails if whole tensors were taken,
    /// because some would be lost.
    fn start_in_parts(&mut self) -> Result<&mut Running, Error> {
        match self.state {
            State::Opened(_) => self.start(true),
            _ => Err(Error::StreamStarted),
        }
    }

    /// Plans and starts the workers, if they are not running yet. `split` allows tensors to come in
    /// parts.
    fn start(&mut self, split: bool) -> Result<&mut Running, Error> {
        if let State::Opened(_) = self.state
            && let State::Opened(checkpoint) = std::mem::replace(&mut self.state, State::Failed)
        {
            let running = self.begin(*checkpoint, split)?;
            if !split {
                let PlannedLoad { catalog, plan, .. } = running.planned();
                self.queue.extend(Tensor::empty(catalog, plan));
            }
            self.state = State::Running(Box::new(running));
        }
        match &mut self.state {
            State::Running(running) => Ok(running),
            _ => Err(floodtide_core::Error::Cancelled.into()),
        }
    }

    fn take_report(&mut self) -> Result<Report, Error> {
        // A stream that ended without an error has a report.
        self.report().cloned().ok_or_else(|| floodtide_core::Error::Cancelled.into())
    }

    fn queue(&mut self, filled: FilledBuffer<PoolBuffer>) {
        self.queue.extend(Tensor::streamed(filled));
    }
}

impl Iterator for TensorStream {
    type Item = Result<Tensor, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(tensor) = self.queue.pop_front() {
                return Some(Ok(tensor));
            }
            if matches!(self.state, State::Failed) {
                return None;
            }
            let running = match self.start(false) {
                Ok(running) => running,
                Err(error) => return Some(Err(error)),
            };
            match running.next() {
                None if self.queue.is_empty() => return None,
                None => {}
                Some(Ok(filled)) => self.queue(filled),
                Some(Err(error)) => return Some(Err(error)),
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
