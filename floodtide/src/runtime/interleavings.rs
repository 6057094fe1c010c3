//! Every interleaving of the ways in which a worker sleeps and is woken, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p floodtide --release --lib interleavings`.
//!
//! loom's condition variables never time out, so a wake-up that is lost ends in a deadlock, which
//! loom reports.

use super::{LoadTask, PlannedLoad};
use crate::checkpoint_files::OpenFiles;
use crate::trace::Phases;
use floodtide_core::strategy::{Route, Strategy};
use floodtide_core::{
    Access, Backend, BufferProvider, Buffers, ByteRange, Catalog, CatalogBuilder, ChunkId, DType, EngineHandle, Error,
    ExtentId, Order, Outcome, Plan, PlanOptions, Planner, ReadOp, ReadStyle, Readiness, RouteId, Selection,
};
use floodtide_memory::ChunkBuffer;
use floodtide_memory::sync::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc;
use std::time::Instant;

const CHUNK: u64 = 64 << 10;
const ROUTE: RouteId = RouteId(0);

/// Gives memory once it is there, and no buffer: nothing is read.
#[derive(Debug)]
struct Memory {
    is_there: AtomicBool,
}

impl BufferProvider for Memory {
    type Buffer = ChunkBuffer;

    fn reserve(&self, _: ExtentId) -> Result<bool, Error> {
        Ok(self.is_there.load(Ordering::Relaxed))
    }

    fn buffer_for(&self, _: ChunkId) -> Result<ChunkBuffer, Error> {
        Err(Error::Contract { what: "nothing is read" })
    }

    fn complete(&self, _: ChunkId, _: ChunkBuffer) -> Result<(), Error> {
        Ok(())
    }
}

/// The plan of one tensor that is read in two chunks.
fn plan(access: Access) -> (Arc<Catalog>, Arc<Plan>) {
    let mut builder = CatalogBuilder::new(floodtide_core::format::SAFETENSORS);
    let file = builder.add_file("file", 2 * CHUNK).expect("adds");
    let range = ByteRange::new(0, 2 * CHUNK).expect("forwards");
    builder.add_tensor(file, "tensor", DType::U8.into(), &[2 * CHUNK], range).expect("adds");
    let catalog = Arc::new(builder.finish().expect("valid"));
    let selected = Selection::All.resolve(&catalog).expect("resolves");
    let options = PlanOptions { access, chunk_bytes: CHUNK, ..PlanOptions::default() };
    let plan = Planner::new(options).plan(&catalog, &selected).expect("plans");
    (catalog, Arc::new(plan))
}

/// A load that keeps one read in flight.
fn task((catalog, plan): &(Arc<Catalog>, Arc<Plan>)) -> Arc<LoadTask<Memory>> {
    let route = Route {
        backend: Backend::new("test", ReadStyle::Blocking, ""),
        chunk_bytes: CHUNK,
        depth: 1,
        max_in_flight: 1,
        profiled_direct_rate: None,
        dont_cache: false,
        workers: 1,
    };
    let strategy = Strategy {
        routes: vec![route],
        route_of: vec![ROUTE],
        direct: vec![false],
        huge_pages: false,
        decisions: Vec::new(),
    };
    let planned = PlannedLoad {
        started: Instant::now(),
        catalog: Arc::clone(catalog),
        plan: Arc::clone(plan),
        strategy,
        strict: false,
        files: OpenFiles::default(),
        warnings: Vec::new(),
        verification: None,
        on_progress: None,
        phases: Phases::new(None),
    };
    LoadTask::new(planned, |_| Memory { is_there: AtomicBool::new(false) })
}

fn next_read(task: &LoadTask<Memory>) -> Option<ReadOp> {
    task.with(|engine| engine.next_read(ROUTE))
}

fn complete(task: &LoadTask<Memory>, op: ReadOp) {
    let _ = task.with(|engine| engine.complete(op.id, Outcome::Read(op.len)));
}

#[test]
fn a_worker_that_waits_for_capacity_is_woken_by_a_completion() {
    let plan = plan(Access::Copy);
    loom::model(move || {
        let task = task(&plan);
        let first = next_read(&task).expect("one is always let through");
        let other = Arc::clone(&task);
        let worker = thread::spawn(move || {
            loop {
                match next_read(&other) {
                    Some(op) => return complete(&other, op),
                    None => other.wait_for_capacity(ROUTE),
                }
            }
        });
        complete(&task, first);
        worker.join().expect("no panic");
        task.with(|engine| engine.result()).expect("both are in");
    });
}

#[test]
fn a_worker_that_waits_for_capacity_is_woken_by_a_failure() {
    let plan = plan(Access::Copy);
    loom::model(move || {
        let task = task(&plan);
        let first = next_read(&task).expect("one is always let through");
        let other = Arc::clone(&task);
        let worker = thread::spawn(move || {
            while other.with(|engine| engine.readiness(ROUTE)) == Readiness::Full {
                other.wait_for_capacity(ROUTE);
            }
        });
        task.fail(Error::Cancelled);
        worker.join().expect("no panic");
        complete(&task, first);
        assert_eq!(task.with(|engine| engine.result()), Err(Error::Cancelled));
    });
}

#[test]
fn a_worker_that_waits_for_memory_is_woken_when_some_comes_back() {
    let buffers = Buffers { buffer_bytes: 2 * CHUNK, limit: 1 << 20, split: false, order: Order::File };
    let plan = plan(Access::Stream(buffers));
    loom::model(move || {
        let task = task(&plan);
        let other = Arc::clone(&task);
        let worker = thread::spawn(move || {
            while let Readiness::NeedsBuffer(extent) = other.with(|engine| engine.readiness(ROUTE)) {
                if other.reserve(extent).expect("never fails") {
                    other.with(|engine| engine.admit(extent));
                } else {
                    other.wait_for_capacity(ROUTE);
                }
            }
        });
        task.provider.is_there.store(true, Ordering::Relaxed);
        task.memory_returned();
        worker.join().expect("no panic");
        assert!(next_read(&task).is_some());
    });
}
