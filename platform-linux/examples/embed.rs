//! A custom loader without the facade: core's plan, engine and worker, an arena, and reads by
//! io_uring.
//!
//! `cargo run --release -p floodtide-linux --example embed -- model.safetensors`
//!
//! It loads a checkpoint of one file with one ring on the calling thread, and prints the length of
//! each tensor. A program with its own thread pool, placement rules or scheduler replaces the code
//! around [`Worker::run`].

use floodtide_core::format::{FORMATS, FileKind, FileStart, HeaderState};
use floodtide_core::storage::{SourceOptions, Storage, StorageFile};
use floodtide_core::{
    BufferProvider, CatalogBuilder, ChunkId, Engine, EngineHandle, Error, ExtentId, Location, Plan, PlanOptions,
    Planner, RouteId, Selection, Worker, to_usize,
};
use floodtide_linux::backend::{PREAD, URING};
use floodtide_linux::{LocalFile, LocalStorage};
use floodtide_memory::sync::Mutex;
use floodtide_memory::{Arena, ArenaCache, ChunkBuffer, ScratchPool};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

/// The arena's slices, one per chunk of the plan.
struct Slices {
    plan: Arc<Plan>,
    arena: Arena,
    scratch: ScratchPool,
}

impl BufferProvider for Slices {
    type Buffer = ChunkBuffer;

    fn reserve(&self, _: ExtentId) -> Result<bool, Error> {
        // The arena exists from the start.
        Ok(true)
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<ChunkBuffer, Error> {
        let slice = self.arena.take(chunk.index()).ok_or(Error::Contract { what: "a chunk was taken twice" })?;
        self.scratch.buffer(&self.plan, &self.plan.chunks()[chunk.index()], slice)
    }

    fn complete(&self, _: ChunkId, buffer: ChunkBuffer) -> Result<(), Error> {
        buffer.settle();
        Ok(())
    }
}

/// The engine of one worker. Several workers would share it and sleep in
/// [`wait_for_capacity`](EngineHandle::wait_for_capacity).
struct OneWorker(Mutex<Engine>);

impl EngineHandle for OneWorker {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        f(&mut self.0.lock())
    }

    fn wait_for_capacity(&self, _: RouteId) {
        // No other worker has reads in flight, so there is capacity.
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let path = std::env::args_os().nth(1).ok_or("expected the path of a checkpoint's file")?;
    let file = Arc::new(LocalFile::open(Path::new(&path))?);

    // Parse the header into a catalog of one file. The parser returns how much of the file it
    // needs.
    let mut start = vec![0; to_usize(file.len().min(16 << 10))];
    file.read_at(0, &mut start)?;
    let FileKind::Checkpoint(format) = FileKind::sniff(FORMATS, &start) else { return Err("not a checkpoint".into()) };
    let parser = format.parser().ok_or("the file needs its index")?;
    let mut builder = CatalogBuilder::new(parser.format());
    loop {
        let read = FileStart { name: file.name(), len: file.len(), bytes: &start };
        match parser.parse(read, &mut builder)? {
            HeaderState::Complete => break,
            HeaderState::Needs(len) => start.resize(to_usize(len), 0),
        }
        file.read_at(0, &mut start)?;
    }
    let catalog = Arc::new(parser.finish(builder)?.catalog);

    // Plan every read and the address of every byte.
    let selected = Selection::All.resolve(&catalog)?;
    let options = PlanOptions { direct: vec![file.direct_limits()], chunk_bytes: 2 << 20, ..PlanOptions::default() };
    let plan = Arc::new(Planner::new(options).plan(&catalog, &selected)?);

    // Allocate the memory, in huge pages where available.
    let len = plan.arena_bytes();
    let memory = ArenaCache::allocate_uncached(len)?;
    let _ = memory.advise_huge_pages(len);
    let slots = plan.chunks().iter().map(|chunk| plan.dest_range(chunk)).collect();
    let arena = Arena::new(memory, len, slots)?;
    let slices = Slices { plan: Arc::clone(&plan), arena, scratch: ScratchPool::new(&plan) };

    // Use a ring, or plain reads where rings are forbidden.
    let storage: &dyn Storage<ChunkBuffer> = &LocalStorage::new();
    let files: [Arc<dyn StorageFile>; 1] = [file.clone()];
    let source = |backend| storage.source(&files, SourceOptions { backend, capacity: 8, dont_cache: false });
    let source = source(URING).or_else(|_| source(PREAD))?;
    let engine = OneWorker(Mutex::new(Engine::new(Arc::clone(&catalog), Arc::clone(&plan), 16 << 20)));
    Worker::new(source, RouteId(0)).run(&engine, &slices);
    engine.with(|engine| engine.result())?;
    file.check_unchanged()?;

    let arena = slices.arena.freeze().ok_or("a chunk is not returned")?;
    for (index, placement) in plan.placements().iter().enumerate() {
        if let Location::Arena(start) = placement.location {
            let bytes = &arena.as_bytes()[start..start + to_usize(plan.byte_len(index))];
            println!("{}: {} bytes", catalog.tensor(placement.tensor).name, bytes.len());
        }
    }
    Ok(())
}
