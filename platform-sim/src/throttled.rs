//! Core's workers over a slow storage, in virtual time: the duration of a load is known to the
//! nanosecond.

use crate::{Clock, SimChunk};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::format::SAFETENSORS;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::storage::{
    COPY, LatencyClass, MemoryStorage, Opened, SourceOptions, Storage, StorageFile, Throttle, Throttled,
};
use floodtide_core::{
    BufferProvider, CatalogBuilder, ChunkId, Engine, EngineHandle, Error, ExtentId, Plan, PlanOptions, Planner,
    RouteId, Selection, Worker, WorkerState, to_usize,
};

const MIB: usize = 1 << 20;
const MILLISECOND: u64 = 1_000_000;
/// A MiB takes a millisecond.
const BANDWIDTH: u64 = 1000 * MIB as u64;
const CHUNKS: usize = 16;

/// A load and its memory.
struct Task {
    engine: RefCell<Engine>,
    plan: Arc<Plan>,
    memory: RefCell<Vec<u8>>,
}

impl EngineHandle for Task {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        f(&mut self.engine.borrow_mut())
    }

    fn wait_for_capacity(&self, _: RouteId) {
        unreachable!("workers are asked again instead");
    }
}

impl BufferProvider for Task {
    type Buffer = SimChunk;

    fn reserve(&self, _: ExtentId) -> Result<bool, Error> {
        Ok(true)
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<SimChunk, Error> {
        let len = self.plan.chunks()[chunk.index()].buffer_range.len();
        Ok(SimChunk { address: 0, bytes: vec![0; len] })
    }

    fn complete(&self, chunk: ChunkId, buffer: SimChunk) -> Result<(), Error> {
        let range = self.plan.chunks()[chunk.index()].buffer_range.clone();
        self.memory.borrow_mut()[range].copy_from_slice(&buffer.bytes);
        Ok(())
    }
}

/// Returns the nanoseconds that `workers` workers take to load a tensor of [`CHUNKS`] MiB.
fn elapsed<S: Storage<SimChunk>>(storage: &S, clock: &Clock, workers: usize) -> u64 {
    let Opened::File(file) = storage.open("model.safetensors").expect("opens") else { panic!("a folder") };
    let mut start = vec![0; 8];
    file.read_at(0, &mut start).expect("reads");
    let header = header_range(&start, file.len()).expect("valid");
    let mut json = vec![0; to_usize(header.len())];
    file.read_at(header.start(), &mut json).expect("reads");
    let mut catalog = CatalogBuilder::new(SAFETENSORS);
    let header = Header::parse(&json, file.len()).expect("valid");
    header.add_to(&mut catalog, file.name(), file.len()).expect("adds");
    let catalog = catalog.finish().expect("valid");
    let selected = Selection::All.resolve(&catalog).expect("all");
    let options = PlanOptions { direct: vec![None], chunk_bytes: MIB as u64, ..PlanOptions::default() };
    let plan = Arc::new(Planner::new(options).plan(&catalog, &selected).expect("plans"));
    assert_eq!(plan.chunks().len(), CHUNKS);
    let task = Task {
        engine: RefCell::new(Engine::new(Arc::new(catalog), Arc::clone(&plan), u64::MAX)),
        memory: RefCell::new(vec![0; plan.arena_bytes()]),
        plan,
    };
    let files: [Arc<dyn StorageFile>; 1] = [file];
    let worker = |_| {
        let options = SourceOptions { backend: COPY, capacity: 1, dont_cache: false };
        Worker::new(storage.source(&files, options).expect("reads"), RouteId(0))
    };
    let mut workers: Vec<_> = (0..workers).map(worker).collect();
    // What came with the header has no part in it.
    clock.advance_to_alarm();
    let began = clock.now();
    loop {
        let mut done = true;
        for worker in &mut workers {
            if worker.fill(&task, &task) == WorkerState::AwaitingCompletion {
                worker.collect(&task, &task).expect("goes on");
                done &= worker.fill(&task, &task) == WorkerState::Done;
            }
        }
        if done {
            break;
        }
        clock.advance_to_alarm();
    }
    task.with(|engine| engine.result()).expect("loads");
    assert!(task.memory.borrow().iter().enumerate().all(|(i, &byte)| byte == (i / 255).to_le_bytes()[0]));
    clock.now() - began
}

fn memory() -> MemoryStorage {
    let bytes = CHUNKS * MIB;
    let json = format!(r#"{{"t":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.extend((0..bytes).map(|i| (i / 255).to_le_bytes()[0]));
    let storage = MemoryStorage::new();
    storage.insert("model.safetensors", file);
    storage
}

fn throttle(latency: u64, bytes_per_second: u64) -> Throttle {
    Throttle { latency, bytes_per_second, class: LatencyClass::Network }
}

#[test]
fn latency_overlaps_and_bandwidth_is_shared() {
    const LATENCY: u64 = 10 * MILLISECOND;
    let load = |latency, bandwidth, workers| {
        let clock = Clock::default();
        elapsed(&Throttled::new(memory(), throttle(latency, bandwidth), clock.clone()), &clock, workers)
    };
    for workers in [1, 2, 4, 16] {
        assert_eq!(load(LATENCY, 0, workers), LATENCY * (CHUNKS / workers) as u64, "{workers}: the latency alone");
        // Headers are read before: their few bytes are on the way still.
        let share = load(0, BANDWIDTH, workers);
        assert!((16 * MILLISECOND..16 * MILLISECOND + 1000).contains(&share), "{workers}: {share}");
    }
    let both = load(LATENCY, BANDWIDTH, 16);
    assert!((26 * MILLISECOND..26 * MILLISECOND + 1000).contains(&both), "{both}");
}

#[test]
fn a_slow_storage_around_a_slow_one_takes_the_longer_time() {
    let clock = Clock::default();
    let inner = Throttled::new(memory(), throttle(30 * MILLISECOND, 0), clock.clone());
    let outer = Throttled::new(inner, throttle(10 * MILLISECOND, 0), clock.clone());
    let took = elapsed(&outer, &clock, 16);
    assert_eq!(took, 30 * MILLISECOND);
    // Twice is the same, to the nanosecond.
    let again = Clock::default();
    let inner = Throttled::new(memory(), throttle(30 * MILLISECOND, 0), again.clone());
    let outer = Throttled::new(inner, throttle(10 * MILLISECOND, 0), again.clone());
    assert_eq!(elapsed(&outer, &again, 16), took);
}
