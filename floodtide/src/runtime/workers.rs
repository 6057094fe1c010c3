//! The workers of a load: threads that each connect the engine with a source of reads.

use super::{LoadTask, Provider};
use crate::trace::{ReadTrace, Reads};
use floodtide_core::middleware::Traced;
use floodtide_core::storage::{BoxedSource, SourceOptions};
use floodtide_core::strategy::{Decision, Route};
use floodtide_core::{EngineHandle, Error as CoreError, ErrorKind, ReadStyle, Readiness, RouteId, Worker};
use floodtide_memory::ChunkBuffer;
use floodtide_memory::sync::Ordering;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl<P: Provider> LoadTask<P> {
    /// Returns how many workers the strategy wants on a route, but not more than there are reads.
    fn workers(&self, route: &Route) -> usize {
        route.workers.max(1).min(self.planned.plan.chunks().len())
    }

    fn routes(&self) -> impl Iterator<Item = (RouteId, &Route)> {
        self.planned.strategy.routes.iter().enumerate().map(|(number, route)| (RouteId::from_index(number), route))
    }

    /// Starts the workers on their own threads.
    ///
    /// # Errors
    /// Returns an error if the system grants a route no thread at all. Fewer threads than planned
    /// share the work.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        for (id, route) in self.routes() {
            for worker in 0..self.workers(route) {
                match self.spawn(move |task| task.work(id)) {
                    Ok(()) => _ = self.routes[id.index()].started_threads.fetch_add(1, Ordering::Relaxed),
                    Err(error) if worker == 0 => return Err(error),
                    Err(error) => {
                        self.note_thread_shortage(&error);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts the additional threads that the tuner wants on a route.
    pub(super) fn call_in_threads(&self, route: RouteId) {
        let state = &self.routes[route.index()];
        if state.started_threads.load(Ordering::Relaxed) >= state.target_threads.load(Ordering::Relaxed) {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        while state.started_threads.load(Ordering::Relaxed) < state.target_threads.load(Ordering::Relaxed) {
            if self.with(|engine| engine.readiness(route)) == Readiness::Exhausted {
                return;
            }
            if me.spawn(move |task| task.work(route)).is_err() {
                // The system grants no more threads; the existing ones do the work.
                state.target_threads.store(0, Ordering::Relaxed);
                return;
            }
            state.started_threads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for every thread to end. A thread that panicked has failed the load.
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
        self.note(Decision::new("threads", format!("the system granted no more threads ({error})")));
    }

    /// Runs all the work on the calling thread.
    pub(crate) fn work_here(self: &Arc<Self>) {
        for (id, route) in self.routes() {
            if self.workers(route) > 0 {
                self.work(id);
            }
        }
    }

    /// Runs `work` on a thread that counts as active until it ends.
    pub(crate) fn spawn(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> io::Result<()> {
        let task = Arc::clone(self);
        *self.active.lock() += 1;
        let spawned = std::thread::Builder::new().name("floodtide".to_owned()).spawn(move || {
            let _active = WorkerGuard(&*task);
            // Its reads in flight never complete, so the load must fail to end.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&task))) {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let message = format!("a thread of the load panicked: {why}");
                task.fail(CoreError::Platform { kind: ErrorKind::Internal, message });
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

    /// Runs one worker of a route to its end. If its backend is refused, the worker uses the
    /// fallback, unless the caller chose the backend.
    fn work(self: &Arc<Self>, id: RouteId) {
        let planned = &self.planned;
        let route = &planned.strategy.routes[id.index()];
        let Some(file) = planned.strategy.route_of.iter().position(|&route| route == id) else { return };
        let mut options =
            SourceOptions { backend: route.backend, capacity: route.source_capacity(), dont_cache: route.dont_cache };
        let source = planned.files.source(file, options).or_else(|why| {
            let refused = options.backend;
            match planned.files.fallback(file).filter(|&fallback| !planned.strict && fallback != refused) {
                Some(fallback) => {
                    let why = format!("a worker reads by {fallback}, because {refused} was refused ({why})");
                    self.note(Decision::new("fallback", why).of_route(id));
                    options.backend = fallback;
                    planned.files.source(file, options)
                }
                None => Err(why),
            }
        });
        match source {
            Ok(source) => self.work_with(source, id, options.backend.style()),
            Err(why) => self.fail(CoreError::BackendUnavailable { backend: options.backend, why }),
        }
    }

    fn work_with(&self, source: BoxedSource<ChunkBuffer>, route: RouteId, style: ReadStyle) {
        let reads = match style {
            ReadStyle::Queue | ReadStyle::Tasks => Reads::Queued,
            ReadStyle::Blocking | ReadStyle::Mapped => Reads::Calls,
        };
        match self.read_trace(reads) {
            None => Worker::new(source, route).run(self, self),
            Some(trace) => Worker::new(Traced::new(source, trace), route).run(self, self),
        }
    }

    /// Returns the trace of a worker's reads, if the load is traced.
    fn read_trace(&self, reads: Reads) -> Option<Box<dyn ReadTrace>> {
        self.planned.phases.trace().map(|trace| trace.worker(reads))
    }
}

/// Counts a worker as ended on drop.
struct WorkerGuard<'a, P: Provider>(&'a LoadTask<P>);

impl<P: Provider> Drop for WorkerGuard<'_, P> {
    fn drop(&mut self) {
        let mut active = self.0.active.lock();
        *active -= 1;
        let left = *active;
        drop(active);
        self.0.idle.notify_all();
        if left == 0 {
            self.0.provider.finish(false);
        }
    }
}
