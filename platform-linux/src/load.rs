//! A load under way: the workers, what they share, and how it ends.
//!
//! Each worker couples the shared engine with a source of its own until nothing is left for it. A worker holds its part of
//! the arena through the chunks it has in flight, so that a load that is dropped can leave its workers to themselves: they
//! are told to stop, wait for what the kernel still has, and the last one to end frees the memory.

use crate::arena::{Arena, ArenaChunk};
use crate::error::Error;
use crate::files::OpenFile;
use crate::mapping::Mappings;
use crate::probe;
use crate::source::{PreadSource, UringSource};
use crate::tensors::{Report, Storage, Tensors};
use floodtide_core::strategy::{Backend, Strategy};
use floodtide_core::{
    BufferSupply, Catalog, ChunkId, Engine, EngineHandle, Error as CoreError, Event, Plan, Progress, Worker,
};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a waiting load reports its progress.
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

/// Everything decided, nothing read yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) started: Instant,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) strategy: Strategy,
    /// Whether the caller chose the backend, so that another is no answer.
    pub(crate) strict: bool,
    pub(crate) files: Arc<[OpenFile]>,
    pub(crate) mappings: Mappings,
    pub(crate) populate: bool,
    pub(crate) mlock: bool,
    pub(crate) warnings: Vec<String>,
    pub(crate) on_progress: Option<ProgressCallback>,
}

/// What the workers of a load share.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    changed: Condvar,
    active: Mutex<usize>,
    idle: Condvar,
    arena: Option<Arena>,
    prepared: Prepared,
    mapped_done: AtomicU64,
    mapped_total: u64,
    cancelled: AtomicBool,
    notes: Mutex<Vec<String>>,
}

/// Locks although a holder panicked: the engine's state is then whatever it was between two calls, and the load's end is
/// judged by its ledger.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EngineHandle for Shared {
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let mut engine = lock(&self.engine);
        let before = engine.in_flight();
        let result = f(&mut engine);
        if engine.in_flight() < before || engine.is_exhausted() {
            self.changed.notify_all();
        }
        result
    }

    fn wait_for_room(&self) {
        let engine = lock(&self.engine);
        let stuck = |engine: &mut Engine| engine.in_flight() > 0 && !engine.is_exhausted();
        // A worker that dies of a panic tells nobody, so the wait looks again now and then.
        drop(self.changed.wait_timeout_while(engine, TICK, stuck).unwrap_or_else(PoisonError::into_inner));
    }
}

impl BufferSupply for Shared {
    type Buffer = ArenaChunk;

    fn take(&self, chunk: ChunkId) -> Result<ArenaChunk, CoreError> {
        let arena = self.arena.as_ref();
        arena.and_then(|arena| arena.take(chunk.index())).ok_or(CoreError::Contract { what: "a chunk was taken twice" })
    }

    fn landed(&self, _: ChunkId, buffer: ArenaChunk) {
        // In a whole load the buffer is the final place; giving it back is all.
        drop(buffer);
    }
}

impl Shared {
    pub(crate) fn new(mut prepared: Prepared) -> Result<Self, Error> {
        let plan = &prepared.plan;
        let arena = if plan.chunks().is_empty() {
            None
        } else {
            let slots = plan.chunks().iter().map(|chunk| chunk.slot.clone()).collect();
            let bytes = plan.arena_bytes();
            let arena = Arena::new(bytes, slots).map_err(|source| Error::Memory { bytes: bytes as u64, source })?;
            if let Err(error) = arena.advise_huge_pages() {
                prepared.strategy.reason += &format!("; no huge pages ({error}), so page faults take longer");
            }
            Some(arena)
        };
        let strategy = &prepared.strategy;
        let requests = (strategy.workers.max(1) * strategy.depth.max(1)) as u64;
        // A direct read is up to one alignment longer than a chunk; a page each is more than enough.
        let limit = requests.saturating_mul(strategy.chunk_bytes.saturating_add(4096));
        let mapped_total = plan.mapped().iter().map(|(_, range)| range.len()).sum();
        Ok(Self {
            engine: Mutex::new(Engine::new(Arc::clone(&prepared.catalog), Arc::clone(plan), limit)),
            changed: Condvar::new(),
            active: Mutex::new(0),
            idle: Condvar::new(),
            arena,
            mapped_done: AtomicU64::new(0),
            mapped_total: if prepared.populate { mapped_total } else { 0 },
            cancelled: AtomicBool::new(false),
            notes: Mutex::new(Vec::new()),
            prepared,
        })
    }

    pub(crate) fn files(&self) -> &Arc<[OpenFile]> {
        &self.prepared.files
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn depth(&self) -> usize {
        self.prepared.strategy.depth.max(1) * self.prepared.strategy.workers.max(1)
    }

    pub(crate) fn progress(&self) -> Progress {
        let mut progress = lock(&self.engine).progress();
        progress.bytes_done += self.mapped_done.load(Ordering::Relaxed);
        progress.bytes_total += self.mapped_total;
        progress
    }

    pub(crate) fn report_progress(&self) {
        if let Some(callback) = &self.prepared.on_progress {
            callback.call(self.progress());
        }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.with(|engine| engine.fail(CoreError::Cancelled));
    }

    /// The workers that the strategy asks for.
    fn jobs(&self) -> Vec<Job> {
        let strategy = &self.prepared.strategy;
        let wanted = strategy.workers.max(1).min(self.prepared.plan.chunks().len());
        let mut jobs = match strategy.backend {
            Backend::Uring => vec![Job::Uring; wanted],
            #[cfg(feature = "tokio")]
            Backend::Tokio => vec![Job::Tokio; wanted.min(1)],
            // The mapped backend copies by `pread` what it cannot show in place.
            _ => vec![Job::Pread; wanted],
        };
        if self.mapped_total > 0 {
            jobs.push(Job::Populate);
        }
        jobs
    }

    fn run(&self, job: Job) {
        match job {
            Job::Uring => match UringSource::new(Arc::clone(self.files()), self.prepared.strategy.depth) {
                Ok(source) => Worker::new(source).run(self, self),
                Err(error) => self.without_ring(&error),
            },
            Job::Pread => Worker::new(PreadSource::new(Arc::clone(self.files()))).run(self, self),
            #[cfg(feature = "tokio")]
            Job::Tokio => match tokio::runtime::Builder::new_current_thread().build() {
                Ok(runtime) => runtime.block_on(crate::source::tokio::drive(self, self.files(), self.depth(), || {})),
                Err(error) => {
                    let message = format!("tokio's runtime cannot be started: {error}");
                    self.with(|engine| engine.fail(CoreError::Platform { message }));
                }
            },
            Job::Populate => {
                let threads = self.prepared.strategy.workers.max(1);
                let cancelled = || self.cancelled.load(Ordering::Relaxed);
                let mappings = &self.prepared.mappings;
                if let Err(error) = mappings.populate(threads, &self.mapped_done, &cancelled) {
                    let message = format!("cannot bring a mapped file into memory: {error}");
                    self.with(|engine| engine.fail(CoreError::Platform { message }));
                }
            }
        }
    }

    /// A ring that was possible when it was probed and is not now: threads go on, unless the caller insists.
    fn without_ring(&self, error: &io::Error) {
        let why = probe::explain_ring_error(error);
        if self.prepared.strict {
            let message = format!("the backend uring cannot be used here: {why}");
            return self.with(|engine| engine.fail(CoreError::Platform { message }));
        }
        self.note(format!("a worker reads by pread, as its ring was refused ({why})"));
        Worker::new(PreadSource::new(Arc::clone(self.files()))).run(self, self);
    }

    fn note(&self, note: String) {
        let mut notes = lock(&self.notes);
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Turns a finished load into its tensors.
    pub(crate) fn finish(self: &Arc<Self>) -> Result<(Option<crate::arena::FrozenArena>, Report), Error> {
        self.with(|engine| engine.result())?;
        let prepared = &self.prepared;
        for file in prepared.files.iter() {
            file.check_unchanged()?;
        }
        let arena = match self.arena.as_ref().map(Arena::freeze) {
            Some(None) => return Err(CoreError::Contract { what: "a chunk is out although every read is done" }.into()),
            Some(frozen) => frozen,
            None => None,
        };
        let mut warnings = prepared.warnings.clone();
        let mut locked_bytes = 0;
        if prepared.mlock {
            let arena_bytes = arena.as_ref().map_or(&[][..], |arena| arena.bytes());
            match lock_memory(arena_bytes).and_then(|bytes| Ok(bytes + prepared.mappings.lock()?)) {
                Ok(bytes) => locked_bytes = bytes,
                Err(error) => warnings.push(format!(
                    "the tensors are not locked in memory: {error}; raise the limit of locked memory (ulimit -l)"
                )),
            }
        }
        while let Some(event) = self.with(Engine::poll_event) {
            if let Event::DirectRefused(file) = event {
                let path = prepared.files[file.index()].path().display();
                self.note(format!("{path} refused direct reads, so it was read through the page cache"));
            }
        }
        let mut reason = prepared.strategy.reason.clone();
        for note in lock(&self.notes).iter() {
            reason += &format!("; {note}");
        }
        let report = Report {
            format: prepared.catalog.format(),
            files: prepared.files.len(),
            tensors: prepared.plan.placements().len(),
            bytes: prepared.plan.selected_bytes(),
            elapsed: prepared.started.elapsed(),
            backend: prepared.strategy.backend,
            reason,
            warnings,
            locked_bytes,
        };
        tracing::debug!(bytes = report.bytes, elapsed = ?report.elapsed, backend = %report.backend, "loaded");
        Ok((arena, report))
    }
}

fn lock_memory(bytes: &[u8]) -> io::Result<u64> {
    if bytes.is_empty() {
        return Ok(0);
    }
    // SAFETY: the bytes are ours and mapped; locking changes no contents.
    unsafe { rustix::mm::mlock(bytes.as_ptr().cast_mut().cast(), bytes.len()) }?;
    Ok(bytes.len() as u64)
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Uring,
    Pread,
    #[cfg(feature = "tokio")]
    Tokio,
    Populate,
}

/// Counts a worker off, also when it panics.
struct Active<'a>(&'a Shared);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        *lock(&self.0.active) -= 1;
        self.0.idle.notify_all();
    }
}

/// A load under way. Dropping it cancels it: nothing more is asked for, and the memory is freed when the last read that
/// the kernel already has is done; the drop itself does not wait for that.
#[derive(Debug)]
pub struct Load {
    shared: Option<Arc<Shared>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the workers.
    pub(crate) fn start(prepared: Prepared) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(prepared)?);
        let mut load = Self { shared: None, threads: Vec::new() };
        for job in shared.jobs() {
            let worker = Arc::clone(&shared);
            *lock(&shared.active) += 1;
            let spawned = std::thread::Builder::new().name("floodtide".to_owned()).spawn(move || {
                let _active = Active(&worker);
                worker.run(job);
            });
            match spawned {
                Ok(thread) => load.threads.push(thread),
                Err(error) => {
                    *lock(&shared.active) -= 1;
                    // Other workers take over the reads, but not another job, nor when there is no other worker.
                    if load.threads.is_empty() || matches!(job, Job::Populate) {
                        shared.run(job);
                    }
                    shared.note(format!("the system gave no more threads ({error})"));
                }
            }
        }
        load.shared = Some(shared);
        Ok(load)
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.as_ref().map_or_else(Progress::default, |shared| shared.progress())
    }

    /// Whether every worker is done, so that [`wait`](Self::wait) returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| *lock(&shared.active) == 0)
    }

    /// Waits for the end, reporting progress meanwhile.
    ///
    /// # Errors
    /// What made the load fail.
    pub fn wait(mut self) -> Result<Tensors, Error> {
        let Some(shared) = self.shared.take() else { return Err(CoreError::Cancelled.into()) };
        let mut active = lock(&shared.active);
        while *active > 0 {
            let waited = shared.idle.wait_timeout(active, TICK);
            let timed_out;
            (active, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            if timed_out.timed_out() {
                drop(active);
                shared.report_progress();
                active = lock(&shared.active);
            }
        }
        drop(active);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                shared.with(|engine| engine.fail(CoreError::Contract { what: "a worker panicked" }));
            }
        }
        conclude(shared)
    }

    /// Gives the load up and waits until nothing of it is left: no thread, no read, no memory.
    pub fn cancel(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.cancel();
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked is gone as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.cancel();
        }
    }
}

/// Carries a load out on the calling thread alone.
pub(crate) fn run_here(prepared: Prepared) -> Result<Tensors, Error> {
    let shared = Arc::new(Shared::new(prepared)?);
    for job in shared.jobs() {
        shared.run(job);
    }
    conclude(shared)
}

/// The end of every load: its workers are gone, so this is the last holder of what they shared.
pub(crate) fn conclude(shared: Arc<Shared>) -> Result<Tensors, Error> {
    let (arena, report) = shared.finish()?;
    shared.report_progress();
    let shared = Arc::into_inner(shared)
        .ok_or(CoreError::Contract { what: "a worker still holds the load although it has ended" })?;
    let Prepared { catalog, plan, mappings, .. } = shared.prepared;
    Ok(Tensors::new(catalog, plan, Storage { arena, mappings }, report))
}
