//! Tensors one after another, in bounded memory.
//!
//! The plan gives every extent a buffer of its own ([`Buffers`](floodtide_core::Buffers)); workers fill buffers that the pool lends (`staging`), as many as fit
//! under the limit; the consumer takes the whole ones (`running`) and gives them back by dropping what it was handed.
//! Nothing is read into memory that the limit does not allow, so a slow consumer throttles the reads.

#[cfg(feature = "tokio")]
mod awaited;
mod begin;
mod running;
mod staging;
mod writer;

#[cfg(feature = "tokio")]
pub use awaited::AsyncTensorStream;
pub(crate) use begin::check_limit;
pub use writer::WriterSink;

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
use floodtide_core::storage::StorageFile;
use floodtide_core::stream::{FilledBuffer, PumpError, Sink, SinkPump};
use floodtide_core::{Catalog, MetadataValue, Progress, TensorInfo};
use floodtide_linux::LocalFile;
use floodtide_memory::pool::PoolBuffer;
use running::Running;
use std::any::Any;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// What is known of a checkpoint before its stream begins.
pub(crate) struct StreamInput<'a> {
    pub(crate) catalog: Arc<Catalog>,
    /// The index's metadata and the files', each key once.
    pub(crate) metadata: &'a [(String, MetadataValue)],
    /// Of the files.
    pub(crate) paths: Vec<PathBuf>,
}

/// The least that tensors share a buffer of.
const MIN_BUFFER: u64 = 64 << 10;

/// The tensors of a checkpoint, one after another. Made by [`Loader::stream`].
///
/// As an iterator it yields each tensor whole, so its memory limit must hold the longest one; by default it does where half
/// of the machine's memory does. In parts ([`for_each_chunk`](Self::for_each_chunk), [`send_to`](Self::send_to)) any limit will do. Dropping a tensor gives its memory back, once nothing else that shares its
/// buffer is held: tensors that follow one another in a file share one. What is held counts against the limit. Reading starts with
/// the first call; dropping the stream ends it.
///
/// When it is [verified](Loader::verify), no tensor is handed out whole before it was checked. What comes in parts is handed out before
/// its other parts have come, so that only the stream's end without an error says that it was right.
///
/// An error ends the stream (except [`Error::StreamStalled`], after which it goes on): then not every tensor has been
/// delivered, or, when the very last item is [`Error::Changed`], a file was written to while it was read. Only a stream that
/// ends without an error has brought the whole checkpoint, and has a [`report`](Self::report).
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
    /// Tensors of the last buffer that was taken.
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
    /// The headers are read.
    Opened(Box<DecidedLoad>),
    Running(Box<Running>),
    /// It could not be started.
    Failed,
}

impl TensorStream {
    pub(crate) fn open(settings: &Settings, input: &Input<'_>) -> Result<Self, Error> {
        if let Some(backend) = settings.backend.filter(|backend| backend.is_mapped()) {
            let why = "a stream copies into buffers, and a mapping has none".to_owned();
            return Err(Error::BackendUnavailable { backend, why });
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

    /// Of a checkpoint that is open already.
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

    /// The next buffer, in which tensors may come in parts; waits for it. For whoever takes everything so.
    pub(crate) fn next_buffer(&mut self) -> Option<Result<FilledBuffer<PoolBuffer>, Error>> {
        match self.start(true) {
            Ok(running) => running.next_patiently(),
            Err(error) => Some(Err(error)),
        }
    }

    /// What the checkpoint's files hold, selected or not.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What is known of the checkpoint before the stream begins.
    pub(crate) fn input(&self) -> Result<StreamInput<'_>, Error> {
        let State::Opened(checkpoint) = &self.state else { return Err(Error::StreamBegun) };
        let DecidedLoad { catalog, metadata, files, .. } = &**checkpoint;
        let local = |file: &Arc<dyn StorageFile>| {
            (&**file as &dyn Any).downcast_ref::<LocalFile>().map(|file| file.path().to_owned())
        };
        let paths = files.iter().filter_map(local).collect();
        Ok(StreamInput { catalog: Arc::clone(catalog), metadata, paths })
    }

    /// How far it is; nothing is known before the first tensor was asked for.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.state {
            State::Running(running) => running.progress(),
            _ => Progress::default(),
        }
    }

    /// How it went, once it has ended without an error.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match &self.state {
            State::Running(running) => running.report(),
            _ => None,
        }
    }

    /// Calls `consume` with every tensor's bytes, as they land: with the tensor, the offset of these bytes in it, and the bytes.
    /// Tensors that are larger than a buffer come in parts, each a whole number of elements. In the orders [`Order::File`] and
    /// [`Order::Selection`] the parts of a tensor come one after another, ascending; as they land, they come in any order. Every
    /// tensor comes, also one without a byte.
    ///
    /// # Errors
    /// What made the stream fail; then not everything has come. [`Error::StreamBegun`] when tensors have been taken from it already.
    pub fn for_each_chunk(mut self, mut consume: impl FnMut(TensorInfo<'_>, u64, &[u8])) -> Result<Report, Error> {
        let running = self.start_in_parts()?;
        let PlannedLoad { catalog, plan, .. } = running.planned();
        for index in plan.without_extent() {
            consume(plan.tensor(catalog, index), 0, &[]);
        }
        while let Some(filled) = running.next_patiently() {
            let filled = filled?;
            for part in filled.parts() {
                consume(part.tensor, part.offset, &filled.buffer()[part.bytes]);
            }
        }
        self.take_report()
    }

    /// Passes every buffer to `sink`, with its ownership, as many at a time as the sink takes, and returns when the sink is
    /// flushed. Meanwhile the workers read on into the free buffers. Tensors that are larger than a buffer come in parts.
    /// With a [pool](StreamOptions::pool) of registered memory this is an asynchronous upload through staging buffers.
    ///
    /// # Errors
    /// Returns the first failure, of the stream or of the sink. By then the sink has given every buffer back.
    /// Returns [`Error::StreamBegun`] when tensors have been taken from the stream already.
    pub fn send_to<K: Sink<PoolBuffer>>(mut self, sink: &mut K) -> Result<Report, PumpError<Error, K::Error>> {
        let running = self.start_in_parts().map_err(PumpError::Stream)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut pump = SinkPump::new();
        loop {
            match pump.poll(running, sink, &mut Context::from_waker(&waker)) {
                Poll::Ready(Ok(())) => return self.take_report().map_err(PumpError::Stream),
                Poll::Ready(Err(error)) => return Err(error),
                // A wake-up between the poll and here makes the park return at once.
                Poll::Pending if running.reports_progress() => thread::park_timeout(crate::runtime::TICK),
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Starts for a consumer that takes parts; not when tensors have been taken one by one, some of which would be lost.
    fn start_in_parts(&mut self) -> Result<&mut Running, Error> {
        match self.state {
            State::Opened(_) => self.start(true),
            _ => Err(Error::StreamBegun),
        }
    }

    /// Plans and starts the workers, unless that has been done. `split`: whether tensors may come in parts.
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
        // A stream that ended without an error has one.
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
