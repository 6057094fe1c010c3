//! The world: core's engine, plan, pool and stream with everything they touch, and the rules for
//! them.

use crate::case::{Case, HUGE, Job};
use crate::checkpoint::{Checkpoint, KnownTensor};
use crate::device::{SimChunk, SimStorage};
use crate::draw::Draw;
use crate::faults::FaultState;
use crate::history::History;
use crate::memory::{ARENA, Flag, Heap, Pool, SCRATCH, SimBuffer};
use crate::slices::KnownSlice;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};
use floodtide_core::checksum::Checksum;
use floodtide_core::direct_io_fallback::{DirectIoFallback, FallbackDecision};
use floodtide_core::manifest::{Manifest, ManifestTensor};
use floodtide_core::middleware::Tracer;
use floodtide_core::pool::{TakeError, Turn};
use floodtide_core::stream::{FilledBuffer, FilledBufferStream, FillingBuffers, ReorderBuffer};
use floodtide_core::tune::Tuner;
use floodtide_core::{
    BufferProvider, Catalog, ChunkId, Engine, EngineHandle, Error, ErrorKind, ExtentId, Fault, FileId, FileVersion,
    Order, Outcome, Plan, ReadId, ReadOp, RouteId, Verification, WriteOnly, to_usize,
};

/// The stream's number in the queue of the pool. The competitors have the others.
pub(crate) const STREAM: usize = 0;

/// Everything that a run touches.
pub(crate) struct World {
    pub(crate) storage: Rc<SimStorage>,
    pub(crate) faults: Rc<RefCell<FaultState>>,
    pub(crate) history: Rc<RefCell<History>>,
    pub(crate) engine: RefCell<Engine>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) verification: Option<Verification>,
    /// By name: the slices that are selected of tensors.
    known_slices: BTreeMap<String, KnownSlice>,
    /// The bytes of slices that were computed for comparisons, by placement.
    slices: RefCell<BTreeMap<usize, Rc<[u8]>>>,
    pub(crate) memory: WorldMemory,
    /// The versions of the files at the time of opening.
    pub(crate) versions: Vec<FileVersion>,
    /// The violated rules, each of which is a defect.
    pub(crate) violations: RefCell<Vec<String>>,
    /// The chunks that were handed out, and those that are complete.
    taken: RefCell<BTreeSet<u32>>,
    landed: RefCell<BTreeSet<u32>>,
    /// The tuner of the reads in flight, if there is one, and how often it changed them.
    tuner: Option<RefCell<Tuner>>,
    pub(crate) retuned: Cell<u64>,
    fallback: RefCell<DirectIoFallback>,
    /// How often the load switched between direct and buffered reads.
    pub(crate) fallbacks: Cell<u64>,
    workers: u32,
    in_flight_limit: u64,
    /// The address of the next gather buffer.
    scratch: Cell<u64>,
    /// The number of gathered chunks.
    pub(crate) gathered: Cell<u64>,
    /// What a stream has delivered.
    pub(crate) delivered: RefCell<Delivered>,
}

/// The memory of the tensors.
pub(crate) enum WorldMemory {
    Whole(RefCell<Vec<u8>>),
    Stream(Box<StreamBuffers>),
}

/// A stream's buffers.
pub(crate) struct StreamBuffers {
    pub(crate) pool: Rc<Pool>,
    pub(crate) order: Order,
    pub(crate) split: bool,
    pub(crate) buffer_bytes: u64,
    turn: RefCell<Turn>,
    /// Set when memory may have been returned.
    pub(crate) came_back: Arc<Flag>,
    filling: RefCell<FillingBuffers<SimBuffer>>,
    reorder: RefCell<ReorderBuffer<SimBuffer>>,
    consumer: RefCell<Option<Waker>>,
    /// Whether the consumer has stopped.
    closed: Cell<bool>,
    /// The queue of the pool.
    pub(crate) queue: RefCell<VecDeque<usize>>,
}

/// What a stream's consumer has received.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// The received parts by placement, as offset and length.
    pub(crate) parts: BTreeMap<usize, Vec<(u64, u64)>>,
    /// The last placement, if they must ascend.
    pub(crate) last: usize,
    /// The number of parts of divided tensors.
    pub(crate) parts_of_tensors: u64,
    /// The number of whole tensors with their own buffer.
    pub(crate) own_buffers: u64,
    /// The first difference from the contents of the file.
    pub(crate) corrupt: Option<String>,
}

impl World {
    pub(crate) fn new(
        case: &Case,
        storage: Rc<SimStorage>,
        faults: Rc<RefCell<FaultState>>,
        history: Rc<RefCell<History>>,
        catalog: Catalog,
        plan: Plan,
        versions: Vec<FileVersion>,
    ) -> Result<Self, Error> {
        let (catalog, plan) = (Arc::new(catalog), Arc::new(plan));
        let verification = if case.verify {
            let manifest = manifest(&case.checkpoint, &storage, &catalog, &plan);
            Some(Verification::new(Arc::clone(&catalog), Arc::clone(&plan), &manifest)?)
        } else {
            None
        };
        let memory = match &case.job {
            Job::Load => WorldMemory::Whole(RefCell::new(vec![0; plan.arena_bytes()])),
            Job::Stream { buffers, .. } => {
                let heap = Heap::new(Rc::clone(&faults), Draw::new(case.seed ^ 1));
                let pool = Rc::new(Pool::new(heap, (), to_usize(buffers.limit)));
                WorldMemory::Stream(Box::new(StreamBuffers {
                    pool,
                    order: buffers.order,
                    split: buffers.split,
                    buffer_bytes: buffers.buffer_bytes,
                    turn: RefCell::default(),
                    came_back: Arc::default(),
                    filling: RefCell::new(FillingBuffers::new(Arc::clone(&plan))),
                    reorder: RefCell::new(ReorderBuffer::new(buffers.order, plan.extents().len())),
                    consumer: RefCell::default(),
                    closed: Cell::new(false),
                    queue: RefCell::default(),
                }))
            }
        };
        let [workers, depth] = [case.workers, case.depth].map(|n| u32::try_from(n).expect("a case has few"));
        Ok(Self {
            storage,
            faults,
            history,
            verification,
            engine: RefCell::new(Engine::new(Arc::clone(&catalog), Arc::clone(&plan), case.in_flight_limit)),
            tuner: case.max_in_flight.map(|max| RefCell::new(Tuner::new(workers * depth, workers, max))),
            retuned: Cell::new(0),
            fallback: RefCell::new(DirectIoFallback::new(
                case.profiled_direct_rate.map(|(expected, _)| expected),
                case.profiled_direct_rate.map(|(_, window)| window).unwrap_or_default(),
            )),
            fallbacks: Cell::new(0),
            workers,
            in_flight_limit: case.in_flight_limit,
            catalog,
            plan,
            checkpoint: case.checkpoint.clone(),
            known_slices: case.selection.slices_by_name(&case.checkpoint),
            slices: RefCell::default(),
            scratch: Cell::new(SCRATCH),
            gathered: Cell::new(0),
            memory,
            versions,
            violations: RefCell::default(),
            taken: RefCell::default(),
            landed: RefCell::default(),
            delivered: RefCell::default(),
        })
    }

    pub(crate) fn now(&self) -> u64 {
        self.storage.clock.now()
    }

    pub(crate) fn note(&self, what: &'static str, numbers: &[u64]) {
        self.history.borrow_mut().note(self.now(), what, numbers);
    }

    pub(crate) fn violated(&self, what: impl Into<String>) {
        self.violations.borrow_mut().push(what.into());
    }

    /// How a tensor was written, and the shape and the bytes of what is selected of it.
    pub(crate) fn known(&self, placement: usize) -> Option<(&KnownTensor, Vec<u64>, u64)> {
        let known = self.checkpoint.find(self.catalog.tensor(self.plan.placements()[placement].tensor).name)?;
        let shape = self.known_slices.get(&known.name).map_or_else(|| known.shape.clone(), |slice| slice.shape(known));
        let bytes = crate::shard::bytes_of(known.dtype, &shape);
        Some((known, shape, bytes))
    }

    /// The bytes from `offset` on of what is selected of a tensor, as they were in the file at
    /// first.
    pub(crate) fn original(&self, placement: usize, known: &KnownTensor, offset: u64, out: &mut [u8]) {
        let file = &self.storage.files[known.file];
        let Some(known_slice) = self.known_slices.get(&known.name) else {
            return file.original(known.start + offset, out);
        };
        let mut slices = self.slices.borrow_mut();
        let slice = slices.entry(placement).or_insert_with(|| {
            let mut whole = vec![0; to_usize(known.bytes)];
            file.original(known.start, &mut whole);
            known_slice.out_of(known, &whole).into()
        });
        out.copy_from_slice(&slice[to_usize(offset)..][..out.len()]);
    }

    pub(crate) fn stream_buffers(&self) -> Option<&StreamBuffers> {
        match &self.memory {
            WorldMemory::Whole(_) => None,
            WorldMemory::Stream(stream) => Some(stream),
        }
    }

    /// Reports a complete chunk to the tuner, and applies its answer within the case's limit.
    fn tune(&self, chunk: ChunkId) {
        let chunk = &self.plan.chunks()[chunk.index()];
        let in_flight = self.engine.borrow().in_flight_bytes();
        if let Some(turn) = self.fallback.borrow_mut().on_completion(self.now(), chunk.payload_len as u64, in_flight) {
            let buffered = !matches!(turn, FallbackDecision::Back(_));
            self.note("through the page cache", &[buffered.into()]);
            self.fallbacks.set(self.fallbacks.get() + 1);
            self.engine.borrow_mut().set_buffered(RouteId(0), buffered);
        }
        let Some(tuner) = &self.tuner else { return };
        if let Some(window) = tuner.borrow_mut().on_completion(self.now(), chunk.payload_len as u64) {
            self.note("in flight", &[window.into()]);
            self.retuned.set(self.retuned.get() + 1);
            let longest = self.plan.chunks().iter().map(|chunk| chunk.buffer_range.len()).max().unwrap_or(0) as u64;
            let bytes = longest.saturating_mul(window.into()).min(self.in_flight_limit);
            self.engine.borrow_mut().set_window(RouteId(0), bytes, window.div_ceil(self.workers) as usize);
        }
    }

    /// Checks that every file is unchanged.
    pub(crate) fn check_versions(&self) -> Result<(), Error> {
        for (file, version) in self.storage.files.iter().zip(&self.versions) {
            if let Some(what) = version.difference(&file.version()) {
                self.note("change detected", &[]);
                let message = format!("{}: the file changed ({what})", file.path);
                return Err(Error::Platform { kind: ErrorKind::Changed, message });
            }
        }
        Ok(())
    }

    fn wake_consumer(&self) {
        if let Some(waker) = self.stream_buffers().and_then(|stream| stream.consumer.borrow_mut().take()) {
            waker.wake();
        }
    }

    /// Ends the consumer.
    pub(crate) fn close(&self) {
        let Some(stream) = self.stream_buffers() else { return };
        stream.closed.set(true);
        stream.pool.cancel(&mut stream.turn.borrow_mut());
        stream.queue.borrow_mut().retain(|&who| who != STREAM);
        // Dropped buffers may wake others, who may look here.
        let (filling, reorder) = (FillingBuffers::new(Arc::clone(&self.plan)), ReorderBuffer::new(stream.order, 0));
        drop((stream.filling.replace(filling), stream.reorder.replace(reorder)));
    }

    /// Updates the queue of the pool, and checks that nobody is overtaken.
    pub(crate) fn book_turn(&self, who: usize, waited: bool, waits: bool, served: bool) {
        let Some(stream) = self.stream_buffers() else { return };
        let mut queue = stream.queue.borrow_mut();
        if served && waited && queue.front() != Some(&who) {
            self.violated("one who waits for memory was overtaken");
        }
        if served && !waited && !queue.is_empty() {
            self.violated("memory went to one who did not wait, past one who did");
        }
        if waited && !waits {
            queue.retain(|&other| other != who);
        }
        if !waited && waits {
            queue.push_back(who);
        }
    }
}

impl EngineHandle for World {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let result = f(&mut self.engine.borrow_mut());
        if self.engine.borrow().has_failed() {
            self.wake_consumer();
        }
        result
    }

    fn wait_for_capacity(&self, _: RouteId) {
        self.violated("a simulated worker waited by itself");
    }
}

impl BufferProvider for World {
    type Buffer = SimChunk;

    fn reserve(&self, extent: ExtentId) -> Result<bool, Error> {
        let Some(stream) = self.stream_buffers() else { return Ok(true) };
        match stream.filling.borrow().next() {
            _ if stream.closed.get() => return Ok(false),
            Some(next) if extent < next => return Ok(true),
            None => return Ok(true),
            _ => {}
        }
        let bytes = self.plan.extents()[extent.index()].buffer_bytes;
        let waker = Waker::from(Arc::clone(&stream.came_back));
        let waited = stream.turn.borrow().is_waiting();
        let answer = stream.pool.poll_take(bytes, 0, &mut stream.turn.borrow_mut(), &waker);
        let waits = stream.turn.borrow().is_waiting();
        self.book_turn(STREAM, waited, waits, matches!(answer, Poll::Ready(Ok(_))));
        match answer {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(block)) => {
                self.note("buffer", &[u64::from(extent.0)]);
                let buffer = SimBuffer::new(block, Rc::clone(&stream.pool));
                if buffer.is_in_flight(&self.storage.flight.borrow()) {
                    self.violated("a buffer was lent while a read into it was in flight");
                }
                stream.filling.borrow_mut().open(buffer);
                Ok(true)
            }
            Poll::Ready(Err(TakeError::Provider(()))) => {
                let message = "the system gives no memory".to_owned();
                Err(Error::Platform { kind: ErrorKind::OutOfMemory, message })
            }
            Poll::Ready(Err(error)) => {
                self.violated(format!("the pool refused a planned buffer: {error:?}"));
                Err(Error::Platform { kind: ErrorKind::Internal, message: "the pool refused".to_owned() })
            }
        }
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<SimChunk, Error> {
        if !self.taken.borrow_mut().insert(chunk.0) {
            self.violated("a chunk's memory was taken twice");
        }
        let planned = &self.plan.chunks()[chunk.index()];
        let base = match self.stream_buffers() {
            None => Some(ARENA),
            Some(stream) => stream.filling.borrow().find(chunk).map(|(buffer, _)| buffer.address()),
        };
        let base = base.ok_or(Error::Contract { what: "a chunk was taken before its extent had a buffer" })?;
        if planned.gathered {
            let address = self.scratch.get();
            self.scratch.set(address + (planned.buffer_range.len() as u64).next_multiple_of(4096) + 4096);
            return Ok(SimChunk { address, bytes: vec![0xee; planned.buffer_range.len()] });
        }
        // Unread memory must not look like the contents of the file.
        Ok(SimChunk {
            address: base + planned.buffer_range.start as u64,
            bytes: vec![0xee; planned.buffer_range.len()],
        })
    }

    fn complete(&self, chunk: ChunkId, buffer: SimChunk) -> Result<(), Error> {
        self.note("landed", &[u64::from(chunk.0)]);
        if !self.landed.borrow_mut().insert(chunk.0) {
            self.violated("a chunk landed twice");
        }
        self.tune(chunk);
        if let Some(verification) = &self.verification {
            verification.add_chunk(chunk, &buffer.bytes)?;
        }
        let planned = &self.plan.chunks()[chunk.index()];
        let gather = self.plan.gather(planned);
        self.gathered.set(self.gathered.get() + u64::from(gather.is_some()));
        let settle = |home: &mut [u8]| match &gather {
            Some(gather) => gather.copy(&buffer.bytes, &mut WriteOnly::new(&mut home[gather.dest_range()])),
            None => home[planned.buffer_range.clone()].copy_from_slice(&buffer.bytes),
        };
        match &self.memory {
            WorldMemory::Whole(arena) => settle(&mut arena.borrow_mut()),
            WorldMemory::Stream(stream) => {
                let mut filling = stream.filling.borrow_mut();
                if let Some(memory) = filling.find_mut(chunk) {
                    settle(memory.as_mut_bytes());
                }
                let whole = filling.complete(chunk);
                drop(filling);
                if let Some((extent, memory)) = whole
                    && stream.reorder.borrow_mut().insert(extent, memory)
                {
                    self.wake_consumer();
                }
            }
        }
        Ok(())
    }

    fn completion_is_slow(&self) -> bool {
        self.verification.is_some()
    }
}

/// Returns the manifest of the plan's tensors as they were written.
fn manifest(checkpoint: &Checkpoint, storage: &SimStorage, catalog: &Catalog, plan: &Plan) -> Manifest {
    let planned = plan.placements().iter().map(|placement| catalog.tensor(placement.tensor));
    let tensors = planned.filter_map(|tensor| {
        let known = checkpoint.find(tensor.name)?;
        // A huge tensor is never read entirely.
        let len = if known.bytes < HUGE { known.bytes } else { 0 };
        let mut bytes = vec![0; to_usize(len)];
        storage.files[known.file].original(known.start, &mut bytes);
        let (name, dtype, shape) = (known.name.clone(), known.dtype.into(), known.shape.clone());
        Some(ManifestTensor { name, dtype, shape, bytes: known.bytes, blake3: Checksum::of(&bytes) })
    });
    // Written tensors have unique names and lengths that match their shapes.
    Manifest::new(tensors.collect(), Vec::new()).expect("a checkpoint has a manifest")
}

/// The consumer's end of a stream.
pub(crate) struct WorldStream<'w>(pub(crate) &'w World);

impl FilledBufferStream<SimBuffer> for WorldStream<'_> {
    type Error = Error;

    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<SimBuffer>, Error>>> {
        let world = self.0;
        let Some(stream) = world.stream_buffers() else { return Poll::Ready(None) };
        if world.with(|engine| engine.has_failed()) {
            return Poll::Ready(world.with(|engine| engine.result()).err().map(Err));
        }
        let mut reorder = stream.reorder.borrow_mut();
        match reorder.take() {
            Some((extent, buffer)) => {
                let (catalog, plan) = (Arc::clone(&world.catalog), Arc::clone(&world.plan));
                Poll::Ready(Some(Ok(FilledBuffer::new(catalog, plan, extent, buffer))))
            }
            None if reorder.is_done() => Poll::Ready(None),
            None => {
                *stream.consumer.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Records a worker's reads in the history.
pub(crate) struct Watch {
    pub(crate) worker: u64,
    pub(crate) storage: Rc<SimStorage>,
    pub(crate) history: Rc<RefCell<History>>,
}

impl Watch {
    fn note(&self, what: &'static str, numbers: &[u64]) {
        self.history.borrow_mut().note(self.storage.clock.now(), what, numbers);
    }
}

impl Tracer for Watch {
    fn submitted(&mut self, op: &ReadOp) {
        let FileId(file) = op.file;
        self.note(
            if op.direct { "read direct" } else { "read" },
            &[self.worker, op.id.number(), u64::from(file), op.offset, op.len as u64],
        );
    }

    fn rejected(&mut self, op: &ReadOp, fault: Fault) {
        self.note("rejected", &[self.worker, op.id.number(), code(fault)]);
    }

    fn completed(&mut self, id: ReadId, outcome: Outcome) {
        match outcome {
            Outcome::Read(bytes) => self.note("completed", &[self.worker, id.number(), bytes as u64]),
            Outcome::Failed(fault) => self.note("failed", &[self.worker, id.number(), code(fault)]),
        }
    }
}

/// Returns a number for a fault. Errors of core are distinguished by their kind.
fn code(fault: Fault) -> u64 {
    match fault {
        Fault::Interrupted => 1,
        Fault::Again => 2,
        Fault::Invalid => 3,
        Fault::NotSupported => 4,
        Fault::Io => 5,
        Fault::NoMemory => 6,
        Fault::Os(number) => 100 + u64::from(number.unsigned_abs()),
        _ => 7,
    }
}
