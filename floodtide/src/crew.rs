//! The workers of a load, and what they share: the engine, the files, the strategy, and a [`Supply`] of memory.
//!
//! Each worker couples the engine with a source of its own until nothing is left for it. A worker holds its part of the memory
//! through the chunks it has in flight, so that a load that is dropped can leave its workers to themselves: they are told
//! to stop, wait for what the kernel still has, and the last one to end frees the memory.

#[cfg(feature = "tokio")]
pub(crate) mod tokio;
mod tuning;

use crate::error::Error;
use crate::tensors::Report;
use crate::trace::{Phase, Phases, ReadTrace, Reads};
use floodtide_core::middleware::{Faults, Faulty, Traced};
use floodtide_core::strategy::{Backend, Decision, Strategy};
use floodtide_core::{
    BufferSupply, Catalog, Engine, EngineHandle, Error as CoreError, Escaped, Event, FileId, Plan, Progress,
    ReadSource, Readiness, Verification, Worker,
};
use floodtide_linux::OpenFile;
use floodtide_linux::probe;
use floodtide_linux::source::{PreadSource, UringSource};
use floodtide_memory::sync::{AtomicBool, AtomicUsize, Ordering};
use floodtide_memory::sync::{Condvar, Mutex};
use floodtide_memory::{Landed, StableBuffer};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tuning::Tuning;

/// How often whoever waits for a load looks up: to report its progress, or whether a worker has died.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// A caller's progress function.
#[derive(Clone)]
pub(crate) struct ProgressCallback(pub(crate) Arc<dyn Fn(Progress) + Send + Sync>);

impl ProgressCallback {
    pub(crate) fn call(&self, progress: Progress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}

/// The faults that tests put around every worker's source: each worker makes its own, on its own thread.
#[derive(Clone)]
pub(crate) struct MakeFaults(pub(crate) Arc<dyn Fn() -> Box<dyn Faults> + Send + Sync>);

impl fmt::Debug for MakeFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeFaults")
    }
}

/// Everything decided, nothing read yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) started: Instant,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) strategy: Strategy,
    /// What was decided before the load, the strategy first.
    pub(crate) decisions: Vec<Decision>,
    /// Whether the caller chose the backend, so that another is no answer.
    pub(crate) strict: bool,
    pub(crate) files: Arc<[OpenFile]>,
    pub(crate) warnings: Vec<String>,
    /// What is checked as it lands, if anything is.
    pub(crate) verification: Option<Verification>,
    pub(crate) on_progress: Option<ProgressCallback>,
    pub(crate) faults: Option<MakeFaults>,
    pub(crate) phases: Phases,
}

/// Where the workers' memory comes from, and what becomes of what has landed.
pub(crate) trait Supply:
    BufferSupply<Buffer: StableBuffer + Landed> + fmt::Debug + Send + Sync + 'static
{
    /// Nothing more will land: the load has failed, or else every worker is gone. May come more than once.
    fn over(&self, failed: bool) {
        let _ = failed;
    }
}

/// The workers' common state.
#[derive(Debug)]
pub(crate) struct Crew<S> {
    pub(crate) prepared: Prepared,
    pub(crate) supply: S,
    engine: Mutex<Engine>,
    changed: Condvar,
    /// How many wait for `changed`; only touched with the engine locked. A wake-up costs a system call even when nobody sleeps.
    waiting: AtomicUsize,
    /// What is learned while it runs. Locked before the engine, never after.
    tuning: Mutex<Tuning>,
    /// Threads that were started, and that there should be, where each keeps one read in flight.
    started: AtomicUsize,
    wanted: AtomicUsize,
    /// The threads that nobody has joined.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Memory may have come back since the supply was last asked.
    memory: AtomicBool,
    active: Mutex<usize>,
    idle: Condvar,
    /// What was decided during the load.
    notes: Mutex<Vec<Decision>>,
}

impl<S: Supply> EngineHandle for Crew<S> {
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
            self.supply.over(true);
        }
        result
    }

    fn wait_for_room(&self) {
        let engine = self.engine.lock();
        let stuck = |engine: &mut Engine| match engine.readiness() {
            Readiness::Full => true,
            Readiness::Starved(_) => !self.memory.swap(false, Ordering::Relaxed),
            Readiness::Ready | Readiness::Exhausted => false,
        };
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let engine = self.changed.wait_timeout_while(engine, TICK, stuck);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        drop(engine);
    }
}

impl<S: Supply> BufferSupply for Crew<S> {
    type Buffer = S::Buffer;

    fn provide(&self, extent: floodtide_core::ExtentId) -> Result<bool, CoreError> {
        self.supply.provide(extent)
    }

    fn take(&self, chunk: floodtide_core::ChunkId) -> Result<S::Buffer, CoreError> {
        self.supply.take(chunk)
    }

    fn landed(&self, chunk: floodtide_core::ChunkId, buffer: S::Buffer) -> Result<(), CoreError> {
        let want = self.prepared.plan.chunks()[chunk.index()].want;
        if let Some(verification) = &self.prepared.verification {
            verification.chunk_landed(chunk, buffer.landed(want))?;
        }
        self.supply.landed(chunk, buffer)?;
        self.tune(want as u64);
        Ok(())
    }

    fn lands_slowly(&self) -> bool {
        self.prepared.verification.is_some()
    }
}

fn as_reads(reads: usize) -> u32 {
    u32::try_from(reads).unwrap_or(u32::MAX)
}

fn gathers(plan: &Plan) -> bool {
    plan.chunks().iter().any(|chunk| chunk.gathered)
}

/// A worker's view of its crew, from which it can call in more threads.
struct Member<'a, S>(&'a Arc<Crew<S>>);

impl<S: Supply> EngineHandle for Member<'_, S> {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        self.0.with(f)
    }

    fn wait_for_room(&self) {
        self.0.wait_for_room();
    }
}

impl<S: Supply> BufferSupply for Member<'_, S> {
    type Buffer = S::Buffer;

    fn provide(&self, extent: floodtide_core::ExtentId) -> Result<bool, CoreError> {
        self.0.provide(extent)
    }

    fn take(&self, chunk: floodtide_core::ChunkId) -> Result<S::Buffer, CoreError> {
        self.0.take(chunk)
    }

    fn landed(&self, chunk: floodtide_core::ChunkId, buffer: S::Buffer) -> Result<(), CoreError> {
        self.0.landed(chunk, buffer)?;
        self.0.call_in_threads();
        Ok(())
    }

    fn lands_slowly(&self) -> bool {
        self.0.lands_slowly()
    }
}

impl<S: Supply> Crew<S> {
    pub(crate) fn new(prepared: Prepared, supply: S) -> Self {
        let strategy = &prepared.strategy;
        if let Some(trace) = prepared.phases.trace() {
            let files: Vec<_> = prepared.files.iter().map(OpenFile::path).collect();
            trace.decided(&files, strategy, &prepared.decisions);
        }
        prepared.files.iter().for_each(|file| file.set_uncached(strategy.uncached));
        prepared.phases.enter(Some(Phase::Load));
        let tuning = Tuning::new(strategy, &prepared.plan);
        let mut engine = Engine::new(Arc::clone(&prepared.catalog), Arc::clone(&prepared.plan), 0);
        tuning.begin(strategy, &mut engine);
        if let Some(trace) = prepared.phases.trace() {
            trace.tuned(tuning.window(), None);
        }
        Self {
            engine: Mutex::new(engine),
            tuning: Mutex::new(tuning),
            started: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            threads: Mutex::default(),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            memory: AtomicBool::new(false),
            active: Mutex::new(0),
            idle: Condvar::new(),
            notes: Mutex::new(Vec::new()),
            supply,
            prepared,
        }
    }

    /// Starts the threads that the tuner asks for beyond those there are.
    fn call_in_threads(self: &Arc<Self>) {
        while self.started.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed) {
            if self.with(|engine| engine.is_exhausted()) {
                return;
            }
            if self.spawn(Self::work).is_err() {
                // There are no more to be had, and those that are do the work.
                self.wanted.store(0, Ordering::Relaxed);
                return;
            }
            self.started.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn files(&self) -> &Arc<[OpenFile]> {
        &self.prepared.files
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn depth(&self) -> usize {
        self.prepared.strategy.in_flight(gathers(&self.prepared.plan)).0
    }

    pub(crate) fn progress(&self) -> Progress {
        self.engine.lock().progress()
    }

    pub(crate) fn fail(&self, error: CoreError) {
        self.with(|engine| engine.fail(error));
    }

    /// Tells workers that wait for memory to ask the supply again.
    pub(crate) fn memory_came_back(&self) {
        self.memory.store(true, Ordering::Relaxed);
        // Under the lock, so that a worker is either before its look at the flag or asleep.
        let _engine = self.engine.lock();
        self.changed.notify_all();
    }

    /// How many workers the strategy asks for, as far as there is work for them.
    fn workers(&self) -> usize {
        let wanted = self.prepared.strategy.workers.max(1).min(self.prepared.plan.chunks().len());
        // An async driver keeps all reads in flight by itself.
        if self.prepared.strategy.backend == Backend::Tokio { wanted.min(1) } else { wanted }
    }

    /// Starts the workers on threads of their own.
    ///
    /// # Errors
    /// When the system gives not a single thread; with fewer than wanted the work is shared by those.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        for worker in 0..self.workers() {
            match self.spawn(Self::work) {
                Ok(()) => _ = self.started.fetch_add(1, Ordering::Relaxed),
                Err(error) if worker == 0 => return Err(error),
                Err(error) => {
                    self.note_thread_shortage(&error);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits for the end of every thread; one that panicked has failed the load.
    pub(crate) fn join(&self) {
        loop {
            let threads = std::mem::take(&mut *self.threads.lock());
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                let _ = thread.join();
            }
        }
    }

    pub(crate) fn note_thread_shortage(&self, error: &io::Error) {
        self.note("threads", format!("the system gave no more threads ({error})"));
    }

    /// Does all the work on the calling thread.
    pub(crate) fn work_here(self: &Arc<Self>) {
        if self.workers() > 0 {
            self.work();
        }
    }

    /// Runs `work` on a thread that counts as active until it ends.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> io::Result<()> {
        let crew = Arc::clone(self);
        *self.active.lock() += 1;
        let spawned = std::thread::Builder::new().name("floodtide".to_owned()).spawn(move || {
            let _active = Active(&*crew);
            // What it had in flight never lands, so the load cannot end otherwise.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&crew))) {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                crew.fail(CoreError::Platform { message: format!("a thread of the load panicked: {why}") });
            }
        });
        match spawned {
            Ok(thread) => self.threads.lock().push(thread),
            Err(error) => {
                *self.active.lock() -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether a worker is still at work.
    pub(crate) fn is_active(&self) -> bool {
        *self.active.lock() > 0
    }

    /// Waits until every worker is done; calls `tick` now and then.
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

    /// One worker, to its end.
    fn work(self: &Arc<Self>) {
        let strategy = &self.prepared.strategy;
        match strategy.backend {
            Backend::Uring => match UringSource::new(Arc::clone(self.files()), strategy.ring_entries()) {
                Ok(source) => self.work_with(source, Reads::Ring),
                Err(error) => self.without_ring(&error),
            },
            #[cfg(feature = "tokio")]
            Backend::Tokio if !can_spawn() => {
                // The runtime would panic without a thread to block.
                self.note("backend", "a worker reads by pread, as the system gives tokio no thread".to_owned());
                self.work_by_pread();
            }
            #[cfg(feature = "tokio")]
            Backend::Tokio => match ::tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => {
                    let trace = self.read_trace(Reads::Tasks);
                    let (files, depth) = (self.files(), self.depth());
                    runtime.block_on(crate::crew::tokio::drive(self, files, depth, trace, || {}));
                }
                Err(error) => {
                    let message = format!("tokio's runtime cannot be started: {error}");
                    self.fail(CoreError::Platform { message });
                }
            },
            // The mapped backend copies by `pread` what it cannot show in place.
            _ => self.work_by_pread(),
        }
    }

    fn work_by_pread(self: &Arc<Self>) {
        self.work_with(PreadSource::new(Arc::clone(self.files())), Reads::Calls);
    }

    fn work_with(self: &Arc<Self>, source: impl ReadSource<Buffer = S::Buffer>, reads: Reads) {
        match (&self.prepared.faults, self.read_trace(reads)) {
            (None, None) => Worker::new(source).run(&Member(self), &Member(self)),
            (None, Some(trace)) => Worker::new(Traced::new(source, trace)).run(&Member(self), &Member(self)),
            (Some(MakeFaults(make)), trace) => {
                let trace = trace.unwrap_or_else(|| Box::new(()));
                Worker::new(Traced::new(Faulty::new(source, make()), trace)).run(&Member(self), &Member(self));
            }
        }
    }

    /// What a worker tells of its reads, if the load is traced.
    pub(crate) fn read_trace(&self, reads: Reads) -> Option<Box<dyn ReadTrace>> {
        self.prepared.phases.trace().map(|trace| trace.worker(reads))
    }

    /// A ring that was possible when it was probed and is not now: threads go on, unless the caller insists.
    fn without_ring(self: &Arc<Self>, error: &io::Error) {
        let why = probe::explain_ring_error(error);
        if self.prepared.strict {
            let message = format!("the backend uring cannot be used here: {why}");
            return self.fail(CoreError::Platform { message });
        }
        self.note("backend", format!("a worker reads by pread, as its ring was refused ({why})"));
        self.work_by_pread();
    }

    /// Adds a decision to the report, once.
    pub(crate) fn note(&self, what: &'static str, why: String) {
        let note = Decision::new(what, why);
        let mut notes = self.notes.lock();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Whether the finished load brought everything, and what it was to be.
    pub(crate) fn result(&self) -> Result<(), Error> {
        self.with(|engine| engine.result())?;
        if let Some(verification) = &self.prepared.verification {
            verification.finish()?;
        }
        Ok(())
    }

    /// As [`result`](Self::result), and whether every file is still what it was.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.result()?;
        Ok(self.prepared.files.iter().try_for_each(OpenFile::check_unchanged)?)
    }

    /// How a finished load went.
    pub(crate) fn report(&self, more_warnings: Vec<String>, locked_bytes: u64) -> Report {
        let prepared = &self.prepared;
        let refused: Vec<FileId> = self.with(|engine| {
            let events = std::iter::from_fn(|| engine.poll_event());
            events.filter_map(|event| if let Event::DirectRefused(file) = event { Some(file) } else { None }).collect()
        });
        for file in refused {
            let path = prepared.files[file.index()].path().to_string_lossy();
            self.note(
                "reads",
                format!("{} refused direct reads, so it was read through the page cache", Escaped(&path)),
            );
        }
        let mapped: u64 = prepared.plan.mapped().iter().map(|(_, range)| range.len()).sum();
        let report = Report {
            format: prepared.catalog.format(),
            files: prepared.files.len(),
            tensors: prepared.plan.placements().len(),
            bytes: prepared.plan.selected_bytes(),
            read_bytes: prepared.plan.read_bytes() + mapped,
            elapsed: prepared.started.elapsed(),
            backend: prepared.strategy.backend,
            decisions: prepared.decisions.iter().chain(self.notes.lock().iter()).cloned().collect(),
            warnings: prepared.warnings.iter().cloned().chain(more_warnings).collect(),
            locked_bytes,
            verified: prepared.verification.is_some(),
            memory_limit: None,
        };
        tracing::debug!(bytes = report.bytes, elapsed = ?report.elapsed, backend = %report.backend, "loaded");
        report
    }
}

/// Whether the system gives one more thread.
#[cfg(feature = "tokio")]
fn can_spawn() -> bool {
    std::thread::Builder::new().spawn(|| ()).is_ok()
}

/// Counts a worker off.
struct Active<'a, S: Supply>(&'a Crew<S>);

impl<S: Supply> Drop for Active<'_, S> {
    fn drop(&mut self) {
        let mut active = self.0.active.lock();
        *active -= 1;
        let left = *active;
        drop(active);
        self.0.idle.notify_all();
        if left == 0 {
            self.0.supply.over(false);
        }
    }
}
