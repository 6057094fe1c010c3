//! A stream in virtual time: core's worker, pool and stream over simulated devices.

use crate::clock::{Clock, Link};
use crate::device::DeviceSink;
use crate::load::{Loaded, catalog_of};
use crate::source::{MemoryBuffer, MemorySource};
use crate::timed::TimedSource;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::convert::Infallible;
use core::ops::Deref;
use core::task::{Context, Poll, Waker};
use floodtide_core::pool::{Depot, Growing, Provider, Stats, Turn};
use floodtide_core::stream::{Outbox, Pour, PourError, Staged, StagedSource, Stages};
use floodtide_core::sync::{AtomicBool, Ordering};
use floodtide_core::{
    Access, Alignment, BufferSupply, Buffers, Catalog, ChunkId, Engine, EngineHandle, Error, ExtentId, Plan,
    PlanOptions, Planner, Selection, Worker,
};

/// Memory of the simulator.
#[derive(Debug)]
struct Heap;

impl Provider for Heap {
    type Block = Vec<u8>;
    type Error = Infallible;

    fn allocate(&self, bytes: usize) -> Result<Vec<u8>, Infallible> {
        Ok(vec![0; bytes])
    }

    fn bytes(&self, block: &Vec<u8>) -> usize {
        block.len()
    }
}

type Pool = Depot<Heap, (), Growing, 1>;

/// A buffer of the simulated pool, which goes back to it when it is dropped.
#[derive(Debug)]
pub struct SimBuffer {
    block: Vec<u8>,
    pool: Rc<Pool>,
}

impl Deref for SimBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        self.pool.give(core::mem::take(&mut self.block), 0);
    }
}

/// Remembers that it was woken.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

struct World {
    engine: RefCell<Engine>,
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    pool: Rc<Pool>,
    turn: RefCell<Turn>,
    stages: RefCell<Stages<SimBuffer>>,
    outbox: RefCell<Outbox<SimBuffer>>,
    /// Memory has come back.
    memory: Arc<Flag>,
    /// Woken when there is something for the consumer.
    consumer: RefCell<Option<Waker>>,
}

impl World {
    fn wake_consumer(&self) {
        if let Some(waker) = self.consumer.borrow_mut().take() {
            waker.wake();
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

    fn wait_for_room(&self) {
        // The scheduler never lets a worker wait by itself.
        self.with(|engine| engine.fail(Error::Contract { what: "a simulated worker waited" }));
    }
}

impl BufferSupply for World {
    type Buffer = MemoryBuffer;

    fn provide(&self, extent: ExtentId) -> Result<bool, Error> {
        if self.stages.borrow().next() != Some(extent) {
            return Ok(true);
        }
        let bytes = self.plan.extents()[extent.index()].buffer_bytes;
        let waker = Waker::from(Arc::clone(&self.memory));
        match self.pool.poll_take(bytes, 0, &mut self.turn.borrow_mut(), &waker) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(block)) => {
                self.stages.borrow_mut().open(SimBuffer { block, pool: Rc::clone(&self.pool) });
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(Error::Contract { what: "a buffer is larger than the pool" }),
        }
    }

    fn take(&self, chunk: ChunkId) -> Result<MemoryBuffer, Error> {
        Ok(MemoryBuffer(vec![0; self.plan.chunks()[chunk.index()].slot.len()]))
    }

    fn landed(&self, chunk: ChunkId, buffer: MemoryBuffer) {
        let slot = self.plan.chunks()[chunk.index()].slot.clone();
        let mut stages = self.stages.borrow_mut();
        if let Some(memory) = stages.find_mut(chunk) {
            memory.block[slot].copy_from_slice(&buffer.0);
        }
        if let Some((extent, memory)) = stages.land(chunk)
            && self.outbox.borrow_mut().land(extent, memory)
        {
            self.wake_consumer();
        }
    }
}

/// The consumer's end of a world.
struct Consumer<'w>(&'w World);

impl StagedSource<SimBuffer> for Consumer<'_> {
    type Error = Error;

    fn poll_staged(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Staged<SimBuffer>, Error>>> {
        let world = self.0;
        if world.with(|engine| engine.has_failed()) {
            return Poll::Ready(world.with(|engine| engine.result()).err().map(Err));
        }
        let mut outbox = world.outbox.borrow_mut();
        match outbox.take() {
            Some((extent, buffer)) => {
                let (catalog, plan) = (Arc::clone(&world.catalog), Arc::clone(&world.plan));
                Poll::Ready(Some(Ok(Staged::new(catalog, plan, extent, buffer))))
            }
            None if outbox.is_done() => Poll::Ready(None),
            None => {
                *world.consumer.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The machine that a stream runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The way to the storage.
    pub storage: Link,
    /// Its reads in flight.
    pub storage_depth: usize,
    /// What its direct reads must be aligned to.
    pub storage_alignment: Alignment,
    /// The way to the device that the stream is uploaded to.
    pub device: Link,
    /// The uploads under way at a time.
    pub device_depth: usize,
}

/// How a stream went.
#[derive(Debug)]
pub struct Streamed {
    /// What the device has got.
    pub tensors: Loaded,
    /// From the first read to the last upload, in nanoseconds of virtual time.
    pub elapsed: u64,
    /// The pool's counters at the end.
    pub pool: Stats,
}

/// Streams the selected tensors of safetensors files that lie in memory to a simulated device.
///
/// # Errors
/// As a stream on any platform; [`Error::Contract`] when nothing can go on although not everything is delivered.
pub fn stream(
    files: Rc<[Vec<u8>]>,
    selection: &Selection,
    buffers: Buffers,
    options: PlanOptions,
    machine: &Machine,
) -> Result<Streamed, Error> {
    let catalog = Arc::new(catalog_of(&files)?);
    let selected = selection.resolve_listed(&catalog)?;
    let plan = Planner::new(PlanOptions { access: Access::Stream(buffers), ..options }).plan(&catalog, &selected)?;
    let plan = Arc::new(plan);
    // A limit that no target can address is no limit there.
    let limit = usize::try_from(buffers.limit).unwrap_or(usize::MAX);
    let world = World {
        engine: RefCell::new(Engine::new(Arc::clone(&catalog), Arc::clone(&plan), u64::MAX)),
        stages: RefCell::new(Stages::new(Arc::clone(&plan))),
        outbox: RefCell::new(Outbox::new(buffers.order, plan.extents().len())),
        pool: Rc::new(Pool::new(Heap, (), limit)),
        turn: RefCell::default(),
        memory: Arc::default(),
        consumer: RefCell::default(),
        catalog,
        plan,
    };
    let clock = Clock::default();
    let reads = MemorySource::new(files, machine.storage_alignment, machine.storage_depth);
    let mut worker = Worker::new(TimedSource::new(reads, clock.clone(), machine.storage.clone()));
    let mut device = DeviceSink::new(clock.clone(), machine.device.clone(), machine.device_depth);
    let mut pour = Pour::new();
    // Each side goes on only when something woke it: a wake-up that got lost would end the run below.
    let consumer = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&consumer));
    world.memory.0.store(true, Ordering::Relaxed);
    loop {
        if world.memory.take() {
            let _ = worker.fill(&world, &world);
        }
        if consumer.take() {
            match pour.poll(&mut Consumer(&world), &mut device, &mut Context::from_waker(&waker)) {
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(PourError::Stream(error))) => return Err(error),
                Poll::Ready(Err(PourError::Sink(never))) => match never {},
                Poll::Pending => continue,
            }
        }
        match (worker.source().next_due(), device.next_due()) {
            (Some(read), upload) if upload.is_none_or(|upload| read <= upload) => {
                clock.advance_to(read);
                match worker.collect(&world, &world) {
                    Ok(()) => world.memory.0.store(true, Ordering::Relaxed),
                    Err(never) => match never {},
                }
            }
            (_, Some(upload)) => {
                clock.advance_to(upload);
                device.wake();
            }
            _ => return Err(Error::Contract { what: "neither a read nor an upload can go on" }),
        }
    }
    let pool = world.pool.stats(0, 0);
    Ok(Streamed { tensors: device.into_memory(), elapsed: clock.now(), pool })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use floodtide_core::{DirectLimits, Order};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    /// The size of a tensor, and the unit of the rates.
    const UNIT: u64 = 128 << 10;
    const SECOND: u64 = 1_000_000_000;

    /// A checkpoint of so many tensors in each file, and what is in it.
    fn checkpoint(files: usize, tensors: usize) -> (Rc<[Vec<u8>]>, Loaded) {
        let mut expected = Loaded::new();
        let file = |f: usize| {
            let data: Vec<(String, Vec<u8>)> = (0..tensors)
                .map(|t| {
                    (format!("{f}.{t:03}"), (0..UNIT as usize).map(|i| (i * 31 + i / 255 + t * 7 + f) as u8).collect())
                })
                .collect();
            expected.extend(data.iter().cloned());
            let views = data.iter().map(|(name, bytes)| {
                (name.as_str(), TensorView::new(Dtype::U8, vec![bytes.len()], bytes).expect("one byte each"))
            });
            safetensors::serialize(views, None).expect("serializes")
        };
        let files: Vec<Vec<u8>> = (0..files).map(file).collect();
        (files.into(), expected)
    }

    fn buffers(count: u64, order: Order) -> Buffers {
        Buffers { gather: 2 * UNIT, limit: count * 2 * UNIT, split: true, order }
    }

    fn options(files: usize) -> PlanOptions {
        let alignment = Alignment::new(512).expect("a power of two");
        let limits = Some(DirectLimits { offset: alignment, memory: alignment });
        PlanOptions { direct: vec![limits; files], chunk_bytes: UNIT / 2, ..PlanOptions::default() }
    }

    /// Reads at so many units a second, uploads at so many.
    fn machine(read: u64, upload: u64) -> Machine {
        Machine {
            storage: Link::new(SECOND / 10_000, read * UNIT),
            storage_depth: 8,
            storage_alignment: Alignment::new(512).expect("a power of two"),
            device: Link::new(SECOND / 50_000, upload * UNIT),
            device_depth: 2,
        }
    }

    fn run((files, expected): &(Rc<[Vec<u8>]>, Loaded), staging: u64, read: u64, upload: u64) -> u64 {
        let machine = machine(read, upload);
        let streamed = stream(files.clone(), &Selection::All, buffers(staging, Order::Arrival), options(2), &machine)
            .expect("streams");
        assert_eq!(&streamed.tensors, expected);
        assert_eq!(streamed.pool.lent, 0);
        streamed.elapsed
    }

    #[test]
    fn reading_and_uploading_overlap() {
        let checkpoint = checkpoint(2, 24);
        let run = |staging, read, upload| run(&checkpoint, staging, read, upload);
        for (read, upload) in [(1000, 1000), (1000, 3000), (3000, 1000), (200, 10_000), (10_000, 200)] {
            let (reading, uploading) = (run(4, read, 0), run(4, 0, upload));
            let (both, longer, sum) = (run(4, read, upload), reading.max(uploading), reading + uploading);
            assert!(both >= longer, "{read}/{upload}: {both} is less than {longer}");
            // What cannot overlap: the first buffer's reading and the last one's uploading, two tensors of 48 each.
            assert!(both * 100 <= longer * 100 + sum * 6, "{read}/{upload}: {both}, alone {reading} and {uploading}");
        }
        // With a single buffer there is nothing to overlap: the measurement can tell.
        let (reading, uploading, both) = (run(1, 1000, 0), run(1, 0, 1000), run(1, 1000, 1000));
        assert!(both * 10 >= (reading + uploading) * 9, "{both}, alone {reading} and {uploading}");
    }

    #[test]
    fn every_order_and_limit_delivers_everything_within_the_limit() {
        let (files, expected) = checkpoint(3, 5);
        for order in [Order::Arrival, Order::File, Order::Listed] {
            for count in [1, 2, 5] {
                for split in [true, false] {
                    let buffers = Buffers { split, ..buffers(count, order) };
                    let names = Selection::names(expected.keys().rev());
                    for selection in [Selection::All, names] {
                        let selection = if order == Order::Listed { selection } else { Selection::All };
                        let streamed = stream(files.clone(), &selection, buffers, options(3), &machine(1000, 1000))
                            .expect("streams");
                        assert_eq!(streamed.tensors, expected);
                        assert!(streamed.pool.retained as u64 <= buffers.limit && streamed.pool.lent == 0);
                    }
                }
            }
        }
    }

    #[test]
    fn storage_that_refuses_direct_reads_is_read_through_the_cache() {
        let (files, expected) = checkpoint(1, 3);
        let refusing = Machine { storage_alignment: Alignment::HUGE_PAGE, ..machine(1000, 1000) };
        let buffers = buffers(2, Order::Arrival);
        let streamed = stream(files.clone(), &Selection::All, buffers, options(1), &refusing).expect("streams");
        assert_eq!(streamed.tensors, expected);
    }
}
