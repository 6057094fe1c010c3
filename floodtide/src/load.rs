//! A running load, into one arena or in mapped files.

use crate::error::Error;
use crate::runtime::{LoadTask, PlannedLoad};
use crate::small_file::SmallFile;
use crate::tensors::{LoadedMemory, Tensors};
use crate::trace::{Phase, Populated};
use crate::views::{PopulateError, Views};
use crate::warning::Warning;
use floodtide_core::strategy::Decision;
use floodtide_core::{BufferProvider, ChunkId, Error as CoreError, ErrorKind, Escaped, ExtentId, Plan, Progress};
use floodtide_memory::sync::{AtomicBool, AtomicU64, Ordering};
use floodtide_memory::{Arena, ArenaCache, ChunkBuffer, FrozenArena, ScratchPool, lock_memory, node_of_caller};
use std::sync::Arc;

/// The memory of a load.
#[derive(Debug)]
pub(crate) struct OwnedLoad {
    plan: Arc<Plan>,
    arena: Option<Arena>,
    scratch: ScratchPool,
    views: Views,
    mapped_done: AtomicU64,
    /// The mapped bytes to make resident.
    mapped_total: u64,
    cancelled: AtomicBool,
    mlock: bool,
}

impl BufferProvider for OwnedLoad {
    type Buffer = ChunkBuffer;

    fn reserve(&self, _: ExtentId) -> Result<bool, CoreError> {
        // The arena exists from the start.
        Ok(true)
    }

    fn buffer_for(&self, chunk: ChunkId) -> Result<ChunkBuffer, CoreError> {
        let slice = self.arena.as_ref().and_then(|arena| arena.take(chunk.index()));
        let slice = slice.ok_or(CoreError::Contract { what: "a chunk was taken twice" })?;
        self.scratch.buffer(&self.plan, &self.plan.chunks()[chunk.index()], slice)
    }

    fn complete(&self, _: ChunkId, buffer: ChunkBuffer) -> Result<(), CoreError> {
        buffer.settle();
        Ok(())
    }
}

/// The workers of a load.
pub(crate) type OwnedLoadTask = LoadTask<OwnedLoad>;

impl OwnedLoadTask {
    /// Allocates the memory and creates the task.
    ///
    /// The memory comes from `arena_cache` and returns to it, unless it is locked. `populate` makes
    /// mapped bytes resident, as verification does. `small_file` holds the bytes of the only file
    /// if they were read already; they replace the mapping.
    pub(crate) fn load(
        mut planned: PlannedLoad,
        arena_cache: &Arc<ArenaCache>,
        small_file: Option<SmallFile>,
        populate: bool,
        mlock: bool,
    ) -> Result<Arc<Self>, Error> {
        let plan = &planned.plan;
        let mapped_bytes = || plan.mapped().iter().map(|(_, range)| range.len()).sum();
        let verifies = planned.verification.is_some();
        let mapped_total = if populate || verifies { mapped_bytes() } else { 0 };
        let mapped_done = AtomicU64::new(0);
        let views = match small_file {
            Some(file) if verifies => Views::of_small_file(file, plan.mapped()),
            Some(file) => {
                mapped_done.store(mapped_bytes(), Ordering::Relaxed);
                Views::of_small_file(file, &[])
            }
            None => Views::new(&planned.files, plan.mapped())?,
        };
        let arena = if plan.chunks().is_empty() {
            None
        } else {
            let slots = plan.chunks().iter().map(|chunk| plan.dest_range(chunk)).collect();
            let bytes = plan.arena_bytes();
            let memory = if mlock { ArenaCache::allocate_uncached(bytes) } else { arena_cache.take(bytes) };
            let arena = memory.and_then(|memory| Arena::new(memory, bytes, slots));
            let arena = arena.map_err(|cause| Error::Allocation { bytes: bytes as u64, cause })?;
            let huge_pages = planned.strategy.huge_pages;
            let decisions = &mut planned.strategy.decisions;
            let mut decided = |what, why: String| decisions.push(Decision::new(what, why));
            if arena.memory().reused() > 0 {
                decided("memory", "reused the memory of an earlier load, which is resident".to_owned());
            }
            if huge_pages && let Err(error) = arena.memory().advise_huge_pages(bytes) {
                decided("huge pages", format!("no huge pages ({error}), so page faults take longer"));
            }
            // The workers run on any node. The caller, who uses the tensors, runs on this one.
            if let Some(node) = node_of_caller() {
                match arena.memory().prefer_node(node) {
                    // Pages that are resident already stay where they are.
                    Ok(()) if arena.memory().reused() >= bytes => {}
                    Ok(()) => decided("NUMA", format!("allocated on node {node}, where the caller runs")),
                    Err(error) => decided("NUMA", format!("allocated on any node ({error})")),
                }
            }
            Some(arena)
        };
        let cancelled = AtomicBool::new(false);
        let (plan, scratch) = (Arc::clone(plan), ScratchPool::new(plan));
        let load = OwnedLoad { plan, arena, scratch, views, mapped_done, mapped_total, cancelled, mlock };
        Ok(Self::new(planned, |_| load))
    }

    pub(crate) fn whole_progress(&self) -> Progress {
        let mut progress = self.progress();
        let mapped_done = self.provider.mapped_done.load(Ordering::Relaxed);
        progress.bytes_done += mapped_done;
        progress.bytes_total += self.provider.mapped_total.max(mapped_done);
        progress
    }

    pub(crate) fn report_progress(&self) {
        if let Some(callback) = &self.planned.on_progress {
            (callback.0)(self.whole_progress());
        }
    }

    fn cancel(&self) {
        self.provider.cancelled.store(true, Ordering::Relaxed);
        self.fail(CoreError::Cancelled);
    }

    fn populates(&self) -> bool {
        self.provider.mapped_total > 0
    }

    /// Starts a thread that [populates](Self::populate), unless there is nothing to make resident.
    fn populate_beside(self: &Arc<Self>) {
        if !self.populates() {
            return;
        }
        if self.provider.views.is_small_file() {
            return self.populate();
        }
        if let Err(error) = self.spawn(|task| task.populate()) {
            self.note_thread_shortage(&error);
            self.populate();
        }
    }

    /// Makes mapped bytes resident, and verifies them if requested.
    fn populate(&self) {
        let threads = self.planned.strategy.main_route().workers.max(1);
        let cancelled = || self.provider.cancelled.load(Ordering::Relaxed);
        let trace = self.planned.phases.trace().map(|trace| move |step: &Populated| trace.populated(step));
        let verification = self.planned.verification.as_ref();
        let check = |file, start, bytes: &[u8]| match verification {
            Some(verification) => verification.add_mapped(file, start, bytes),
            None => Ok(()),
        };
        match self.provider.views.populate(
            threads,
            &self.provider.mapped_done,
            &cancelled,
            trace.as_ref().map(|trace| trace as _),
            &check,
        ) {
            Ok(()) => {}
            Err(PopulateError::Check(error)) => self.fail(error),
            Err(PopulateError::Refused(file, error)) => {
                let name = self.planned.files.get(file).name();
                let message = format!(
                    "{}: cannot make the mapped file resident: {error}; load it again when no program writes to it, or use \
                     another backend",
                    Escaped(name)
                );
                self.fail(CoreError::Platform { kind: ErrorKind::Io, message });
            }
        }
    }

    /// Freezes the arena of a complete load, and locks it if requested.
    fn settle(&self) -> Result<(Option<FrozenArena>, Vec<Warning>, u64), Error> {
        let load = &self.provider;
        let arena = match load.arena.as_ref().map(Arena::freeze) {
            Some(None) => {
                return Err(CoreError::Contract { what: "a chunk is in flight although every read is done" }.into());
            }
            Some(frozen) => frozen,
            None => None,
        };
        let (mut warnings, mut locked) = (Vec::new(), 0);
        if load.mlock {
            let arena_bytes = arena.as_ref().map_or(&[][..], |arena| arena.as_bytes());
            if let Err(why) = lock_memory(arena_bytes, &mut locked)
                .map_err(|error| error.to_string())
                .and_then(|()| load.views.lock(&mut locked))
            {
                warnings.push(Warning::NotLocked { why });
            }
        }
        Ok((arena, warnings, locked))
    }
}

/// A running load, which is cancelled on drop.
///
/// After a cancellation no more reads are submitted. The memory is freed when the last read in
/// flight completes; the drop itself does not wait for that.
#[derive(Debug)]
pub struct Load {
    task: Option<Arc<OwnedLoadTask>>,
}

impl Load {
    /// Starts the workers.
    pub(crate) fn start(task: Arc<OwnedLoadTask>) -> Self {
        if let Err(error) = task.start() {
            task.note_thread_shortage(&error);
            task.work_here();
        }
        task.populate_beside();
        Self { task: Some(task) }
    }

    /// Returns the progress of the load.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.task.as_ref().map_or_else(Progress::default, |task| task.whole_progress())
    }

    /// Returns true if every worker is done, so that [`wait`](Self::wait) returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(|task| !task.is_active())
    }

    /// Returns a handle that cancels the load while another thread waits for it.
    #[cfg(feature = "tokio")]
    pub(crate) fn canceller(&self) -> Option<Canceller> {
        self.task.as_ref().map(|task| Canceller(Arc::downgrade(task)))
    }

    /// Waits for the end of the load and reports progress meanwhile.
    ///
    /// # Errors
    /// Returns an error if the load has failed.
    ///
    /// # Panics
    /// If the progress callback panics. The load is cancelled then.
    pub fn wait(mut self) -> Result<Tensors, Error> {
        if let Some(task) = &self.task {
            task.wait_idle(|| task.report_progress());
        }
        let Some(task) = self.task.take() else { return Err(CoreError::Cancelled.into()) };
        task.join();
        conclude(task)
    }

    /// Cancels the load and waits until no thread, read or memory of it is left.
    pub fn cancel(mut self) {
        if let Some(task) = self.task.take() {
            task.cancel();
            task.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.cancel();
        }
    }
}

/// Cancels the load, if it is still running.
#[cfg(feature = "tokio")]
pub(crate) struct Canceller(std::sync::Weak<OwnedLoadTask>);

#[cfg(feature = "tokio")]
impl Canceller {
    pub(crate) fn cancel(&self) {
        if let Some(task) = self.0.upgrade() {
            task.cancel();
        }
    }
}

/// Runs a load on the calling thread. Only pages of a mapping are made resident by other threads.
pub(crate) fn run_here(task: Arc<OwnedLoadTask>) -> Result<Tensors, Error> {
    task.work_here();
    task.populate_beside();
    Load { task: Some(task) }.wait()
}

/// Finishes a load. Its workers have ended, so this is the last holder of the task.
pub(crate) fn conclude(task: Arc<OwnedLoadTask>) -> Result<Tensors, Error> {
    task.planned.phases.enter(Some(Phase::Settle));
    let load = &task.provider;
    if load.views.is_small_file() && load.arena.is_none() {
        // One call has read the whole file, and the file had not changed after it. Later changes do
        // not matter.
        task.result()?;
    } else {
        task.check()?;
    }
    let (arena, warnings, locked_bytes) = task.settle()?;
    let mut report = task.report(warnings, locked_bytes);
    if let Some(bytes) = task.provider.views.small_file_len() {
        // The bytes count as read, not as mapped.
        report.read_bytes = task.planned.plan.read_bytes() + bytes;
    }
    task.planned.phases.enter(None);
    task.report_progress();
    let task = Arc::into_inner(task)
        .ok_or(CoreError::Contract { what: "a worker still holds the load although it has ended" })?;
    let PlannedLoad { catalog, plan, .. } = task.planned;
    Ok(Tensors::new(catalog, plan, LoadedMemory { arena, views: task.provider.views }, report))
}
