//! Tensors one after another, in bounded memory.
//!
//! The plan gives every extent a buffer of its own ([`Buffers`]); workers fill buffers that the pool lends (`staging`), as many as fit
//! under the limit; the consumer takes the whole ones (`running`) and gives them back by dropping what it was handed.
//! Nothing is read into memory that the limit does not allow, so a slow consumer throttles the reads.

#[cfg(feature = "tokio")]
mod awaited;
mod options;
mod running;
mod staging;
mod writer;

#[cfg(feature = "tokio")]
pub use awaited::AsyncTensorStream;
pub(crate) use options::BufferMemory;
pub use options::StreamOptions;
pub use writer::WriterSink;

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
use crate::loader::{DecidedLoad, Input, Loader};
use crate::runtime::PlannedLoad;
use crate::signals::LoadMode;
use crate::tensors::{Report, Tensor};
use crate::trace::Phase;
use floodtide_core::pool::SizeClass;
use floodtide_core::stream::{FilledBuffer, PumpError, Sink, SinkPump};
use floodtide_core::{
    Access, Alignment, Buffers, Catalog, MetadataValue, Order, Planner, Progress, TensorInfo, TensorSlice,
    tensor_alignment,
};
use floodtide_memory::pool::{LockPolicy, MappedMemory, Pool, PoolBuffer};
use running::{OwnMemory, Running};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// What is known of a checkpoint before its stream begins.
pub(crate) struct StreamInput<'a> {
    pub(crate) catalog: Arc<Catalog>,
    /// The index's metadata and the files', each key once.
    pub(crate) metadata: &'a [(String, MetadataValue)],
    pub(crate) files: &'a OpenFiles,
}

/// What a stream may have unless it is told otherwise, if there is twice as much.
const DEFAULT_LIMIT: u64 = 1 << 30;
/// The least that a stream can do with.
const MIN_LIMIT: u64 = 1 << 20;
/// The least that tensors share a buffer of.
const MIN_BUFFER: u64 = 64 << 10;
/// Tensors share buffers of this share of the limit, so that some are filled while others are consumed.
const BUFFERS: u64 = 8;
/// Larger shared buffers gain nothing.
const MAX_COALESCED_BYTES: u64 = 64 << 20;
/// How long a consumer may hold everything before it is told so.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

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
    loader: Loader,
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
    Running(Running),
    /// It could not be started.
    Failed,
}

impl TensorStream {
    pub(crate) fn open(loader: &Loader, input: &Input<'_>) -> Result<Self, Error> {
        if let Some(backend) = loader.backend_choice().filter(|backend| backend.is_mapped()) {
            let why = "a stream copies into buffers, and a mapping has none".to_owned();
            return Err(Error::BackendUnavailable { backend, why });
        }
        let started = Instant::now();
        let options = loader.stream_choice();
        let (limit, alignment) = match &options.memory {
            Some(BufferMemory::Limit(limit)) => (*limit, None),
            Some(BufferMemory::Pool(pool)) => (pool.stats().limit as u64, Some(pool.alignment())),
            None => (u64::MAX, None),
        };
        check_limit(limit, 1)?;
        if let Some(bytes) = options.buffer_bytes.filter(|bytes| !(MIN_BUFFER..=limit).contains(bytes)) {
            return Err(Error::StreamBuffer { bytes, min: MIN_BUFFER, limit });
        }
        let checkpoint = loader.open_checkpoint(input, LoadMode::Stream { memory_alignment: alignment })?;
        Ok(Self::of(loader, checkpoint, started))
    }

    /// Of a checkpoint that is open already.
    pub(crate) fn of(loader: &Loader, checkpoint: DecidedLoad, started: Instant) -> Self {
        checkpoint.phases.enter(None);
        Self {
            loader: loader.clone(),
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
        Ok(StreamInput { catalog: Arc::clone(catalog), metadata, files })
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
            self.state = State::Running(running);
        }
        match &mut self.state {
            State::Running(running) => Ok(running),
            _ => Err(floodtide_core::Error::Cancelled.into()),
        }
    }

    fn begin(&self, checkpoint: DecidedLoad, split: bool) -> Result<Running, Error> {
        checkpoint.phases.enter(Some(Phase::Plan));
        let loader = &self.loader;
        let options = loader.stream_choice();
        let pool = match &options.memory {
            Some(BufferMemory::Pool(pool)) => pool.clone(),
            memory => {
                let limit = match memory {
                    Some(BufferMemory::Limit(limit)) => *limit,
                    _ => default_limit(&checkpoint, split),
                };
                self.pool(&checkpoint, usize::try_from(limit).unwrap_or(usize::MAX))
            }
        };
        let limit = pool.stats().limit as u64;
        let tensors = checkpoint.selected.iter().map(|slice| checkpoint.catalog.tensor(slice.tensor()));
        let alignments = tensors.map(|tensor| tensor_alignment(&tensor, loader.min_alignment()).as_u64());
        let required_alignment = alignments.max().unwrap_or(1);
        if (pool.alignment() as u64) < required_alignment {
            return Err(Error::TensorAlignment { bytes: required_alignment, max: pool.alignment() as u64 });
        }
        let buffer_bytes = options.buffer_bytes.unwrap_or_else(|| coalesced_bytes(limit));
        let buffers = Buffers { buffer_bytes: buffer_bytes, limit, split, order: options.order };
        let plan_options = checkpoint.options(Access::Stream(buffers), loader);
        let listed = match options.order {
            Order::Selection => Some(loader.selection_choice().resolve_in_order(&checkpoint.catalog)?),
            Order::Completion | Order::File => None,
        };
        let selected = listed.as_ref().unwrap_or(&checkpoint.selected);
        let plan = Arc::new(Planner::new(plan_options).plan(&checkpoint.catalog, selected)?);
        let verification = loader.verification(&checkpoint.catalog, &plan)?;
        let DecidedLoad { files, catalog, strategy, warnings, phases, .. } = checkpoint;
        let planned = PlannedLoad {
            started: self.started,
            catalog,
            plan,
            strategy,
            strict: loader.backend_choice().is_some(),
            files,
            warnings,
            verification,
            on_progress: loader.progress_callback(),
            faults: loader.injected_faults(),
            phases,
        };
        let owned = !matches!(options.memory, Some(BufferMemory::Pool(_)));
        let memory = OwnMemory { owned, locked: owned && loader.locks_memory() };
        Running::start(planned, buffers, pool, memory, options.stall_timeout.unwrap_or(STALL_TIMEOUT))
    }

    /// A pool for this stream alone.
    fn pool(&self, checkpoint: &DecidedLoad, limit: usize) -> Pool {
        let direct = checkpoint.files.iter().filter_map(|file| file.direct_limits()).map(|limits| limits.memory);
        let alignment = direct.fold(self.loader.min_alignment(), Alignment::max);
        let memory =
            if self.loader.locks_memory() { MappedMemory::locked(LockPolicy::BestEffort) } else { MappedMemory::new() };
        Pool::builder().limit(limit).memory(memory.aligned(alignment)).build()
    }

    fn take_report(&mut self) -> Result<Report, Error> {
        // A stream that ended without an error has one.
        self.report().cloned().ok_or_else(|| floodtide_core::Error::Cancelled.into())
    }

    fn queue(&mut self, filled: FilledBuffer<PoolBuffer>) {
        self.queue.extend(Tensor::streamed(filled));
    }
}

/// Refuses a limit that so many streams together cannot do with.
pub(crate) fn check_limit(limit: u64, streams: u64) -> Result<(), Error> {
    let min = streams * MIN_LIMIT;
    if limit < min { Err(Error::StreamLimit { limit, min }) } else { Ok(()) }
}

/// What a stream may have that was not told: the usual, or what its longest tensor takes if that is more and tensors must be
/// whole; but half of the memory there is at most.
fn default_limit(checkpoint: &DecidedLoad, split: bool) -> u64 {
    let mut limit = DEFAULT_LIMIT;
    if !split {
        let catalog = &checkpoint.catalog;
        let bytes = |slice: &TensorSlice| slice.byte_len(&catalog.tensor(slice.tensor()));
        let longest = checkpoint.selected.iter().map(bytes).max().unwrap_or(0);
        // Its class is at most a quarter larger, and alignment adds less than that.
        limit = limit.max(longest.saturating_add(longest / 4).saturating_add(MIN_LIMIT));
    }
    limit.min(checkpoint.memory.available / 2).max(MIN_LIMIT)
}

/// The size of buffers that tensors share: a size class, so that nothing is lost by rounding.
fn coalesced_bytes(limit: u64) -> u64 {
    let share = usize::try_from((limit / BUFFERS).min(MAX_COALESCED_BYTES)).unwrap_or(usize::MAX);
    SizeClass::within(share).map_or(limit, |class| class.size() as u64)
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
