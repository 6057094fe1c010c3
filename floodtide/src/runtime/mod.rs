//! A running load: its shared state and its workers.
//!
//! A [`LoadTask`] has the engine, the files, the strategy and a [`BufferProvider`]. Each worker
//! connects the engine with its own source of reads until no work is left. It serves one route: the
//! files of one device.
//!
//! A worker holds memory through its chunks in flight, so that a dropped load does not wait for its
//! workers. They stop, wait for the reads that the kernel still has, and the last one frees the
//! memory.
//!
//! This file has the shared state; `workers` starts and runs workers, `tuning` applies what the
//! tuner learns, `report` makes the report.

#[cfg(all(test, loom))]
mod interleavings;
mod report;
mod tuning;
mod workers;

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
use crate::opaque::Opaque;
use crate::trace::{Phase, Phases};
use crate::warning::Warning;
use floodtide_core::strategy::{Decision, Strategy};
use floodtide_core::{
    BufferProvider, Catalog, ChunkId, Engine, EngineHandle, Error as CoreError, ExtentId, Plan, Progress, Readiness,
    RouteId, Verification,
};
use floodtide_memory::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering};
use floodtide_memory::{ChunkBuffer, FilledBytes};
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tuning::Tuning;

/// The interval at which a waiting thread reports progress and checks for workers that have died.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// The caller's progress callback.
pub(crate) type ProgressCallback = Opaque<dyn Fn(Progress) + Send + Sync>;

/// A planned load, before the first read.
#[derive(Debug)]
pub(crate) struct PlannedLoad {
    pub(crate) started: Instant,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) strategy: Strategy,
    /// Whether the caller chose the backend, so that no other may replace it.
    pub(crate) strict: bool,
    pub(crate) files: OpenFiles,
    pub(crate) warnings: Vec<Warning>,
    /// The checks of completed tensors, if the load is verified.
    pub(crate) verification: Option<Verification>,
    pub(crate) on_progress: Option<ProgressCallback>,
    pub(crate) phases: Phases,
}

/// The state that the workers of a load share.
#[derive(Debug)]
pub(crate) struct LoadTask<P> {
    pub(crate) planned: PlannedLoad,
    pub(crate) provider: P,
    /// A handle to itself, with which a worker starts more threads.
    me: Weak<Self>,
    engine: Mutex<Engine>,
    changed: Condvar,
    /// The number of waiters for `changed`; accessed only with the engine locked. A wake-up costs a
    /// system call even without waiters.
    waiting: AtomicUsize,
    /// The state of each route.
    routes: Vec<RouteTask>,
    /// The threads that are not joined yet.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether memory may have been returned since the provider was last asked.
    memory_available: AtomicBool,
    active: Mutex<usize>,
    idle: Condvar,
    /// The decisions taken during the load.
    decisions: Mutex<Vec<Decision>>,
}

/// The state that the workers of one route share.
#[derive(Debug)]
struct RouteTask {
    /// The tuner. Locked before the engine, never after.
    tuning: Mutex<Tuning>,
    /// The numbers of started threads and of threads to run, if each keeps one read in flight.
    started_threads: AtomicUsize,
    target_threads: AtomicUsize,
}

impl<P: Provider> LoadTask<P> {
    /// Creates the task. `provider` receives a handle to it.
    pub(crate) fn new(planned: PlannedLoad, provider: impl FnOnce(&Weak<Self>) -> P) -> Arc<Self> {
        let (strategy, plan) = (&planned.strategy, &planned.plan);
        if let Some(trace) = planned.phases.trace() {
            let files: Vec<&str> = planned.files.iter().map(|file| file.name()).collect();
            trace.decided(&files, strategy);
        }
        planned.phases.enter(Some(Phase::Load));
        let mut engine =
            Engine::with_routes(Arc::clone(&planned.catalog), Arc::clone(plan), strategy.route_of.clone(), 0);
        let mut window = 0;
        let routes = strategy.routes.iter().enumerate().map(|(number, route)| {
            let tuning = Tuning::new(route, plan);
            tuning.begin(RouteId::from_index(number), route, &mut engine);
            window += tuning.window();
            RouteTask {
                tuning: Mutex::new(tuning),
                started_threads: AtomicUsize::new(0),
                target_threads: AtomicUsize::new(0),
            }
        });
        let routes = routes.collect();
        if let Some(trace) = planned.phases.trace() {
            trace.tuned(window, None);
        }
        Arc::new_cyclic(|me| Self {
            engine: Mutex::new(engine),
            routes,
            threads: Mutex::default(),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            memory_available: AtomicBool::new(false),
            active: Mutex::new(0),
            idle: Condvar::new(),
            decisions: Mutex::default(),
            provider: provider(me),
            me: Weak::clone(me),
            planned,
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.engine.lock().progress()
    }

    pub(crate) fn fail(&self, error: CoreError) {
        self.with(|engine| engine.fail(error));
    }

    /// Wakes workers that wait for memory, so that they ask the provider again.
    pub(crate) fn memory_returned(&self) {
        // Under the lock, so that a worker has either not checked the flag yet or sleeps, and one
        // that sees the flag sees the memory too.
        let _engine = self.engine.lock();
        self.memory_available.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Returns true if no read is in flight and the next one waits for memory.
    pub(crate) fn is_starved(&self) -> bool {
        self.with(|engine| {
            let starved = |route| matches!(engine.readiness(RouteId::from_index(route)), Readiness::NeedsBuffer(_));
            engine.in_flight() == 0 && (0..self.routes.len()).any(starved)
        })
    }

    /// Waits until every worker is done, and calls `tick` at intervals.
    pub(crate) fn wait_idle(&self, mut tick: impl FnMut()) {
        let mut active = self.active.lock();
        while *active > 0 {
            let timed_out;
            (active, timed_out) = self.idle.wait_timeout(active, TICK);
            if timed_out {
                drop(active);
                tick();
                active = self.active.lock();
            }
        }
    }

    /// Returns true if a worker is still running.
    pub(crate) fn is_active(&self) -> bool {
        *self.active.lock() > 0
    }

    /// Records a decision taken during the load, once.
    pub(crate) fn note(&self, decision: Decision) {
        let mut decisions = self.decisions.lock();
        if !decisions.contains(&decision) {
            decisions.push(decision);
        }
    }

    /// Returns an error unless the finished load has read every byte, as expected.
    pub(crate) fn result(&self) -> Result<(), Error> {
        self.with(|engine| engine.result())?;
        if let Some(verification) = &self.planned.verification {
            verification.finish()?;
        }
        Ok(())
    }

    /// As [`result`](Self::result), and also fails if a file has changed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.result()?;
        self.planned.files.check_unchanged()
    }
}

/// The memory of a load.
pub(crate) trait Provider: BufferProvider<Buffer = ChunkBuffer> + fmt::Debug + Send + Sync + 'static {}

impl<P: BufferProvider<Buffer = ChunkBuffer> + fmt::Debug + Send + Sync + 'static> Provider for P {}

impl<P: Provider> EngineHandle for LoadTask<P> {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = self.engine.lock();
        let before = (engine.in_flight(), engine.admitted(), engine.max_in_flight_bytes());
        let result = f(&mut engine);
        let woken = engine.in_flight() < before.0
            || engine.admitted() > before.1
            || engine.max_in_flight_bytes() > before.2
            || engine.is_exhausted();
        if woken && self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
        let failed = engine.has_failed();
        drop(engine);
        if failed {
            self.provider.finish(true);
        }
        result
    }

    fn wait_for_capacity(&self, route: RouteId) {
        let engine = self.engine.lock();
        let stuck = |engine: &mut Engine| match engine.readiness(route) {
            Readiness::Full => true,
            Readiness::NeedsBuffer(_) => !self.memory_available.swap(false, Ordering::Relaxed),
            Readiness::Ready | Readiness::Exhausted => false,
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let engine = self.changed.wait_timeout_while(engine, TICK, stuck);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(engine);
    }
}

/// The provider of the memory, extended by what the load does when a chunk completes.
impl<P: Provider> BufferProvider for LoadTask<P> {
    type Buffer = ChunkBuffer;

    fn reserve(&self, extent: ExtentId) -> Result<bool, CoreError> {
        self.provider.reserve(extent)
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<ChunkBuffer, CoreError> {
        self.provider.buffer_for(chunk)
    }

    fn complete(&self, chunk: ChunkId, buffer: ChunkBuffer) -> Result<(), CoreError> {
        let (file, payload_len) = {
            let chunk = &self.planned.plan.chunks()[chunk.index()];
            (chunk.file, chunk.payload_len)
        };
        if let Some(verification) = &self.planned.verification {
            verification.add_chunk(chunk, buffer.filled(payload_len))?;
        }
        self.provider.complete(chunk, buffer)?;
        let route = self.planned.strategy.route_of[file.index()];
        self.tune(route, payload_len as u64);
        self.call_in_threads(route);
        Ok(())
    }

    fn completion_is_slow(&self) -> bool {
        self.planned.verification.is_some()
    }
}
