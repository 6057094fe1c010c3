//! The worker over a scripted source: its requests, its buffers, and how it ends.

use super::*;
use crate::error::ErrorKind;
use crate::source::{Buffer, Completion, ReadSource, Rejected, SourceError};
use crate::write_only::WriteOnly;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

/// The buffer of a chunk, by its number.
#[derive(Debug, PartialEq, Eq)]
struct Memory(ChunkId);

impl Buffer for Memory {
    fn memory(&mut self) -> WriteOnly<'_> {
        WriteOnly::new(&mut [])
    }
}

/// Reads return what was requested, unless the script says otherwise.
#[derive(Default)]
struct Source {
    capacity: usize,
    in_flight: VecDeque<(ReadOp, Memory)>,
    /// The outcomes of the next reads.
    script: VecDeque<Outcome>,
    /// The number of next reads to reject.
    rejects: usize,
    /// The number of waits that succeed.
    waits: Option<usize>,
    submitted: Vec<ReadOp>,
    flushes: Rc<Cell<usize>>,
}

impl ReadSource for Source {
    type Buffer = Memory;

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn submit(&mut self, op: ReadOp, buffer: Memory) -> Result<(), Rejected<Memory>> {
        assert!(self.in_flight.len() < self.capacity, "called only below the capacity");
        assert_eq!(op.chunk, buffer.0, "the chunk's own buffer");
        self.submitted.push(op);
        if self.rejects > 0 {
            self.rejects -= 1;
            return Err(Rejected { buffer, fault: Fault::Again });
        }
        self.in_flight.push_back((op, buffer));
        Ok(())
    }

    fn flush(&mut self) {
        self.flushes.set(self.flushes.get() + 1);
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<Memory>)) -> Result<(), SourceError> {
        assert!(!self.in_flight.is_empty(), "there is something to wait for");
        if let Some(left) = &mut self.waits {
            *left = left.checked_sub(1).ok_or_else(|| SourceError("the ring is gone".to_string()))?;
        }
        for (op, buffer) in self.in_flight.drain(..) {
            let outcome = self.script.pop_front().unwrap_or(Outcome::Read(op.len));
            completed(Completion { id: op.id, buffer, outcome });
        }
        Ok(())
    }
}

struct Shared {
    engine: RefCell<Engine>,
    waited: Cell<usize>,
}

impl EngineHandle for Shared {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        f(&mut self.engine.borrow_mut())
    }

    fn wait_for_capacity(&self, _: RouteId) {
        self.waited.set(self.waited.get() + 1);
    }
}

#[derive(Default)]
struct Provider {
    taken: RefCell<Vec<ChunkId>>,
    completed: RefCell<Vec<ChunkId>>,
    /// The first chunk without a buffer.
    takes: Option<u32>,
    /// The chunk that fails on completion.
    refuses: Option<ChunkId>,
    slowly: bool,
    /// The answers to requests for memory. Afterwards there is always some.
    provides: RefCell<VecDeque<Result<bool, Error>>>,
    provided: RefCell<Vec<ExtentId>>,
}

impl BufferProvider for Provider {
    type Buffer = Memory;

    fn reserve(&self, extent: ExtentId) -> Result<bool, Error> {
        let answer = self.provides.borrow_mut().pop_front().unwrap_or(Ok(true));
        if answer == Ok(true) {
            self.provided.borrow_mut().push(extent);
        }
        answer
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<Memory, Error> {
        if self.takes.is_some_and(|end| chunk.0 >= end) {
            return Err(Error::Platform { kind: ErrorKind::Io, message: "no buffer".to_string() });
        }
        self.taken.borrow_mut().push(chunk);
        Ok(Memory(chunk))
    }

    fn complete(&self, chunk: ChunkId, buffer: Memory) -> Result<(), Error> {
        assert_eq!(buffer, Memory(chunk));
        self.completed.borrow_mut().push(chunk);
        match self.refuses.filter(|&refused| refused == chunk) {
            Some(_) => Err(Error::Platform { kind: ErrorKind::Io, message: "it is wrong".to_string() }),
            None => Ok(()),
        }
    }

    fn completion_is_slow(&self) -> bool {
        self.slowly
    }
}

/// A load of about a dozen chunks.
fn shared() -> Shared {
    Shared { engine: RefCell::new(load(700_000, 100, false).0), waited: Cell::new(0) }
}

/// A stream of a few buffers.
fn streamed() -> Shared {
    let engine = load(700_000, 100, false).0;
    let buffers = Buffers { buffer_bytes: 128 << 10, limit: 1 << 20, split: true, order: Order::File };
    let options = PlanOptions { access: Access::Stream(buffers), chunk_bytes: 64 << 10, ..PlanOptions::default() };
    let selected = Selection::All.resolve(&engine.catalog).expect("all");
    let plan = Planner::new(options).plan(&engine.catalog, &selected).expect("plans");
    assert!(plan.extents().len() > 4);
    let engine = Engine::new(Arc::clone(&engine.catalog), Arc::new(plan), u64::MAX);
    Shared { engine: RefCell::new(engine), waited: Cell::new(0) }
}

fn chunks(shared: &Shared) -> Vec<ChunkId> {
    (0..shared.engine.borrow().plan().chunks().len() as u32).map(ChunkId).collect()
}

fn result(shared: &Shared) -> Result<(), Error> {
    let engine = shared.engine.borrow();
    assert!(engine.is_finished() || engine.has_failed());
    engine.result()
}

#[test]
fn every_chunk_is_taken_and_completed_once() {
    for shared in [shared(), streamed()] {
        for capacity in [1, 3, 100] {
            let engine =
                Engine::new(shared.with(|e| Arc::clone(&e.catalog)), shared.with(|e| Arc::clone(&e.plan)), u64::MAX);
            let shared = Shared { engine: RefCell::new(engine), waited: Cell::new(0) };
            let provider = Provider::default();
            Worker::new(Source { capacity, ..Source::default() }, RouteId(0)).run(&shared, &provider);
            assert_eq!(result(&shared), Ok(()));
            assert_eq!(*provider.taken.borrow(), chunks(&shared));
            let mut completed = provider.completed.take();
            completed.sort();
            assert_eq!(completed, chunks(&shared));
            let extents =
                if shared.with(|e| e.plan.is_streamed()) { shared.with(|e| e.plan.extents().len()) } else { 0 };
            let provided = provider.provided.borrow().iter().map(|extent| extent.index()).collect::<Vec<_>>();
            assert_eq!(provided, (0..extents).collect::<Vec<_>>());
            assert_eq!(shared.waited.get(), 0);
        }
    }
}

#[test]
fn a_wrong_chunk_ends_the_load_even_if_it_is_the_last() {
    let count = chunks(&shared()).len() as u32;
    for refused in [0, 3, count - 1] {
        let (shared, provider) = (shared(), Provider { refuses: Some(ChunkId(refused)), ..Provider::default() });
        Worker::new(Source { capacity: 2, ..Source::default() }, RouteId(0)).run(&shared, &provider);
        assert_eq!(result(&shared), Err(Error::Platform { kind: ErrorKind::Io, message: "it is wrong".to_string() }));
        assert!(provider.completed.borrow().len() as u32 <= refused + 3, "nothing more is read");
    }
}

#[test]
fn where_landing_takes_its_time_the_source_is_full_meanwhile() {
    /// Records the bytes in flight when a chunk completes.
    struct Watching<'a> {
        provider: Provider,
        shared: &'a Shared,
        in_flight: RefCell<Vec<usize>>,
    }
    impl BufferProvider for Watching<'_> {
        type Buffer = Memory;

        fn reserve(&self, extent: ExtentId) -> Result<bool, Error> {
            self.provider.reserve(extent)
        }

        fn buffer_for(&self, chunk: ChunkId) -> Result<Memory, Error> {
            self.provider.buffer_for(chunk)
        }

        fn complete(&self, chunk: ChunkId, buffer: Memory) -> Result<(), Error> {
            self.in_flight.borrow_mut().push(self.shared.with(|e| e.in_flight()));
            self.provider.complete(chunk, buffer)
        }

        fn completion_is_slow(&self) -> bool {
            self.provider.completion_is_slow()
        }
    }
    let completed = |slowly| {
        let shared = shared();
        let provider = Provider { slowly, ..Provider::default() };
        let watching = Watching { provider, shared: &shared, in_flight: RefCell::default() };
        let flushes = Rc::default();
        let source = Source { capacity: 3, flushes: Rc::clone(&flushes), ..Source::default() };
        Worker::new(source, RouteId(0)).run(&shared, &watching);
        assert_eq!(result(&shared), Ok(()));
        // Before each completion, or never.
        assert_eq!(flushes.get(), if slowly { chunks(&shared).len() } else { 0 });
        let (mut completed, in_flight) = (watching.provider.completed.take(), watching.in_flight.take());
        completed.sort();
        assert_eq!(completed, chunks(&shared));
        in_flight
    };
    let (slow, quick) = (completed(true), completed(false));
    // Three at a time complete, while the next three or the rest are in flight.
    let full: Vec<usize> = (0..slow.len()).map(|i| slow.len().saturating_sub(3 * (i / 3 + 1)).min(3)).collect();
    assert!(slow.len() > 6 && slow == full, "{slow:?}");
    assert!(quick.contains(&0), "{quick:?}");
}

#[test]
fn a_worker_keeps_to_its_share_of_the_reads_in_flight() {
    let (shared, provider) = (shared(), Provider::default());
    let mut worker = Worker::new(Source { capacity: 8, ..Source::default() }, RouteId(0));
    shared.with(|e| e.set_window(RouteId(0), u64::MAX, 2));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    assert_eq!(worker.source().in_flight(), 2);
    // More reads, but not more bytes.
    shared.with(|e| e.set_window(RouteId(0), 5 * (64 << 10), 8));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    assert_eq!(worker.source().in_flight(), 5);
    // Fewer: reads in flight stay, and one is always allowed.
    shared.with(|e| e.set_window(RouteId(0), 0, 0));
    assert_eq!((worker.fill(&shared, &provider), worker.source().in_flight()), (WorkerState::AwaitingCompletion, 5));
    worker.run(&shared, &provider);
    assert_eq!(result(&shared), Ok(()));
}

#[test]
fn a_source_is_filled_to_its_capacity() {
    let (shared, provider) = (shared(), Provider::default());
    let mut worker = Worker::new(Source { capacity: 4, ..Source::default() }, RouteId(0));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    assert_eq!(worker.source().in_flight(), 4);
    worker.collect(&shared, &provider).expect("the source is well");
    assert_eq!((worker.source().in_flight(), provider.completed.borrow().len()), (0, 4));
    assert_eq!(shared.with(|e| e.in_flight()), 0);
}

#[test]
fn a_worker_says_what_it_waits_for() {
    let (shared, provider) = (shared(), Provider::default());
    let mut first = Worker::new(Source { capacity: 100, ..Source::default() }, RouteId(0));
    let mut second = Worker::new(Source { capacity: 100, ..Source::default() }, RouteId(0));
    assert_eq!(first.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    assert_eq!(second.fill(&shared, &provider), WorkerState::Done, "the other has it all");
    first.collect(&shared, &provider).expect("the source is well");
    assert_eq!(first.fill(&shared, &provider), WorkerState::Done);
    assert_eq!(result(&shared), Ok(()));

    let (shared, provider) = (streamed(), Provider::default());
    provider.provides.borrow_mut().push_back(Ok(false));
    assert_eq!(first.fill(&shared, &provider), WorkerState::AwaitingCapacity, "there is no memory just now");
    assert_eq!(shared.with(|e| e.admitted()), 0);
    assert_eq!(first.fill(&shared, &provider), WorkerState::AwaitingCompletion);
}

#[test]
fn a_worker_with_nothing_in_flight_waits_for_room() {
    let (shared, provider) = (streamed(), Provider::default());
    provider.provides.borrow_mut().extend([Ok(false), Ok(false)]);
    Worker::new(Source { capacity: 2, ..Source::default() }, RouteId(0)).run(&shared, &provider);
    assert_eq!((shared.waited.get(), result(&shared)), (2, Ok(())));
}

#[test]
fn memory_that_will_never_come_ends_the_load() {
    let (shared, provider) = (streamed(), Provider::default());
    let error = Error::Platform { kind: ErrorKind::Io, message: "no memory".to_string() };
    provider.provides.borrow_mut().extend([Ok(true), Err(error.clone())]);
    Worker::new(Source { capacity: 2, ..Source::default() }, RouteId(0)).run(&shared, &provider);
    assert_eq!(result(&shared), Err(error));
    assert_eq!(shared.with(|e| (e.admitted(), e.in_flight())), (1, 0));
}

#[test]
fn a_chunk_without_a_buffer_ends_the_load_and_is_not_in_flight() {
    let (shared, provider) = (shared(), Provider { takes: Some(3), ..Provider::default() });
    let mut worker = Worker::new(Source { capacity: 100, ..Source::default() }, RouteId(0));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    assert_eq!((worker.source().in_flight(), shared.with(|e| e.in_flight())), (3, 3));
    worker.run(&shared, &provider);
    assert_eq!(result(&shared), Err(Error::Platform { kind: ErrorKind::Io, message: "no buffer".to_string() }));
    assert_eq!(
        (shared.with(|e| e.in_flight()), provider.completed.borrow().len()),
        (0, 0),
        "what comes now is of no use"
    );
}

#[test]
fn a_read_that_is_not_taken_is_tried_again_with_the_same_buffer() {
    let (shared, provider) = (shared(), Provider::default());
    let mut worker = Worker::new(Source { capacity: 1, rejects: 2, ..Source::default() }, RouteId(0));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
    let tries: Vec<(ChunkId, u32)> = worker.source().submitted.iter().map(|op| (op.chunk, op.attempt)).collect();
    assert_eq!(tries, [(ChunkId(0), 0), (ChunkId(0), 1), (ChunkId(0), 2)]);
    assert_eq!(*provider.taken.borrow(), [ChunkId(0)]);
    worker.run(&shared, &provider);
    assert_eq!(result(&shared), Ok(()));
}

#[test]
fn a_source_that_takes_nothing_ends_the_load() {
    let (shared, provider) = (shared(), Provider::default());
    let mut worker = Worker::new(Source { capacity: 1, rejects: usize::MAX, ..Source::default() }, RouteId(0));
    assert_eq!(worker.fill(&shared, &provider), WorkerState::Done);
    assert!(matches!(result(&shared), Err(Error::Read { fault: Fault::Again, .. })));
    assert!(provider.completed.borrow().is_empty());
}

#[test]
fn a_short_read_goes_on_in_the_same_buffer() {
    let (shared, provider) = (shared(), Provider::default());
    let script = VecDeque::from([Outcome::Read(100), Outcome::Failed(Fault::Io)]);
    let mut worker = Worker::new(Source { capacity: 1, script, ..Source::default() }, RouteId(0));
    for ats in [vec![0, 100], vec![0, 100, 100]] {
        assert_eq!(worker.fill(&shared, &provider), WorkerState::AwaitingCompletion);
        worker.collect(&shared, &provider).expect("the source is well");
        assert_eq!(worker.source().submitted.iter().map(|op| op.at).collect::<Vec<_>>(), ats);
    }
    worker.run(&shared, &provider);
    assert_eq!(result(&shared), Ok(()));
    assert_eq!(*provider.taken.borrow(), chunks(&shared));
}

#[test]
fn a_source_that_cannot_go_on_ends_the_load_and_the_worker() {
    let (shared, provider) = (shared(), Provider::default());
    Worker::new(Source { capacity: 2, waits: Some(2), ..Source::default() }, RouteId(0)).run(&shared, &provider);
    assert_eq!(result(&shared), Err(Error::Platform { kind: ErrorKind::Io, message: "the ring is gone".to_string() }));
    assert_eq!(provider.completed.borrow().len(), 4);
    assert_eq!(shared.with(|e| e.in_flight()), 2, "they stay with the source");
}
