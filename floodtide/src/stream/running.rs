//! A stream under way, from the consumer's side.

use super::staging::{Next, Staging};
use crate::error::Error;
use crate::report::Report;
use crate::runtime::{LoadTask, PlannedLoad, TICK};
use crate::trace::Phase;
use floodtide_core::stream::{FilledBuffer, FilledBufferStream};
use floodtide_core::{Buffers, EngineHandle, Error as CoreError, Progress};
use floodtide_memory::pool::{Pool, PoolBuffer};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The workers of a stream and what they have ready. Dropping it gives the rest up, without waiting.
#[derive(Debug)]
pub(super) struct Running {
    task: Arc<LoadTask<Staging>>,
    /// How the stream ended, if it has.
    report: Option<Report>,
    ended: bool,
    last_progress: Instant,
    stall: Stall,
    memory: OwnMemory,
}

/// What the stream knows of its pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnMemory {
    /// Nobody else has the pool.
    pub(super) owned: bool,
    /// Its memory was to be locked.
    pub(super) locked: bool,
}

/// Notices when the consumer holds everything itself.
#[derive(Debug)]
struct Stall {
    timeout: Duration,
    /// Since when nothing has moved, and how much was lent then.
    since: Option<(Instant, usize)>,
}

impl Running {
    /// Starts the workers.
    pub(super) fn start(
        planned: PlannedLoad,
        buffers: Buffers,
        pool: Pool,
        memory: OwnMemory,
        stall_timeout: Duration,
    ) -> Result<Self, Error> {
        let plan = Arc::clone(&planned.plan);
        let task = LoadTask::new(planned, |task| {
            Staging::new((pool, !memory.owned), &plan, buffers.buffer_bytes, buffers.order, task.clone())
        });
        // The threads end by themselves; the stream's end is told by what they have landed.
        if let Err(source) = task.start() {
            task.provider.close();
            let message =
                format!("the system gave no thread to read with: {source}; raise the limit of processes (ulimit -u)");
            return Err(CoreError::Platform { message }.into());
        }
        let stall = Stall { timeout: stall_timeout, since: None };
        Ok(Self { task, report: None, ended: false, last_progress: Instant::now(), stall, memory })
    }

    pub(super) fn progress(&self) -> Progress {
        self.task.progress()
    }

    pub(super) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    pub(super) fn planned(&self) -> &PlannedLoad {
        &self.task.planned
    }

    pub(super) fn reports_progress(&self) -> bool {
        self.task.planned.on_progress.is_some()
    }

    /// The next buffer, for a consumer that holds none itself; waits for it, as others may have the memory.
    pub(super) fn next_patiently(&mut self) -> Option<Result<FilledBuffer<PoolBuffer>, Error>> {
        loop {
            if let Poll::Ready(next) = self.poll(None) {
                return next;
            }
            self.task.provider.wait(TICK);
        }
    }

    /// The next buffer; waits for it.
    pub(super) fn next(&mut self) -> Option<Result<FilledBuffer<PoolBuffer>, Error>> {
        loop {
            if let Poll::Ready(next) = self.poll(None) {
                return next;
            }
            self.task.provider.wait(TICK);
            self.tick();
            if let Some(held) = self.stalled() {
                return Some(Err(Error::StreamStalled { held, limit: self.task.provider.pool().stats().limit }));
            }
        }
    }

    /// Reports progress if it is time to.
    pub(super) fn tick(&mut self) {
        if let Some(callback) = &self.task.planned.on_progress
            && self.last_progress.elapsed() >= TICK
        {
            callback.call(self.task.progress());
            self.last_progress = Instant::now();
        }
    }

    /// The bytes that the consumer holds, when nothing has moved for so long that it must be waiting for itself.
    fn stalled(&mut self) -> Option<usize> {
        let starved = self.task.is_starved();
        let lent = self.task.provider.pool().stats().lent;
        match self.stall.since {
            Some((since, before)) if starved && before == lent => {
                if since.elapsed() < self.stall.timeout {
                    return None;
                }
                self.stall.since = None;
                Some(lent)
            }
            _ => {
                self.stall.since = starved.then(|| (Instant::now(), lent));
                None
            }
        }
    }

    fn poll(&mut self, waker: Option<&Waker>) -> Poll<Option<Result<FilledBuffer<PoolBuffer>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.tick();
        // What failed is not whole, so what has landed meanwhile is of no use either.
        let failed = self.task.with(|engine| engine.has_failed());
        match self.task.provider.poll(waker) {
            _ if failed => self.end(),
            Next::Nothing => Poll::Pending,
            Next::Buffer(extent, buffer) => {
                if !self.memory.owned {
                    // What is taken is read ahead no more, so that more may be.
                    self.task.memory_returned();
                }
                let PlannedLoad { catalog, plan, .. } = &self.task.planned;
                Poll::Ready(Some(Ok(FilledBuffer::new(Arc::clone(catalog), Arc::clone(plan), extent, buffer))))
            }
            Next::Done | Next::Over => self.end(),
        }
    }

    /// The stream's end: its report is there, or what went wrong is the last that comes.
    fn end(&mut self) -> Poll<Option<Result<FilledBuffer<PoolBuffer>, Error>>> {
        self.ended = true;
        let phases = &self.task.planned.phases;
        phases.enter(Some(Phase::Settle));
        let ended = self.task.check();
        self.task.provider.close();
        phases.enter(None);
        if let Err(error) = ended {
            return Poll::Ready(Some(Err(error)));
        }
        let pool = self.task.provider.pool();
        let (stats, unlocked) = (pool.stats(), pool.unlocked_bytes());
        let locked = if self.memory.locked { (stats.lent + stats.retained).saturating_sub(unlocked) } else { 0 };
        let warning = (unlocked > 0).then(|| {
            format!(
                "{unlocked} bytes of the buffers are not locked in memory; raise the limit of locked memory (ulimit -l)"
            )
        });
        if self.memory.owned {
            // The next stream has its own; only this one's report is still of interest.
            pool.trim();
        }
        let report = self.task.report(warning.into_iter().collect(), locked as u64);
        self.report = Some(Report { memory_limit: Some(stats.limit as u64), ..report });
        if let Some(callback) = &self.task.planned.on_progress {
            callback.call(self.task.progress());
        }
        Poll::Ready(None)
    }
}

impl FilledBufferStream<PoolBuffer> for Running {
    type Error = Error;

    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<PoolBuffer>, Error>>> {
        self.poll(Some(context.waker()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.task.fail(CoreError::Cancelled);
            self.task.provider.close();
        }
    }
}
