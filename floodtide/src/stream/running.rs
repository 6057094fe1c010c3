//! A running stream, from the consumer's side.

use super::buffers::{Next, StreamBuffers};
use crate::error::{Error, no_thread};
use crate::report::Report;
use crate::runtime::{LoadTask, PlannedLoad, TICK};
use crate::trace::Phase;
use crate::warning::Warning;
use floodtide_core::stream::{FilledBuffer, FilledBufferStream};
use floodtide_core::{Buffers, EngineHandle, Error as CoreError, Progress};
use floodtide_memory::pool::{Pool, PoolBuffer};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The workers of a stream and its complete buffers. Dropping it cancels the rest without waiting.
#[derive(Debug)]
pub(super) struct Running {
    task: Arc<LoadTask<StreamBuffers>>,
    /// The result of the stream, if it has ended.
    report: Option<Report>,
    ended: bool,
    last_progress: Instant,
    stall: Stall,
    memory: OwnMemory,
}

/// The properties of the stream's pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnMemory {
    /// Whether the pool belongs to this stream alone.
    pub(super) owned: bool,
    /// Whether its memory should be locked.
    pub(super) locked: bool,
}

/// Detects that the consumer holds all memory itself.
#[derive(Debug)]
struct Stall {
    timeout: Duration,
    /// The time of the last change, and the number of bytes lent then.
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
            StreamBuffers::new((pool, !memory.owned), &plan, buffers.buffer_bytes, buffers.order, task.clone())
        });
        // The threads end by themselves; their completions mark the end of the stream.
        if let Err(source) = task.start() {
            task.provider.close();
            return Err(no_thread("read", &source).into());
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

    /// Waits for the next buffer, for a consumer that holds none: other users of the pool may hold
    /// the memory.
    pub(super) fn next_patiently(&mut self) -> Option<Result<FilledBuffer<PoolBuffer>, Error>> {
        loop {
            if let Poll::Ready(next) = self.poll(None) {
                return next;
            }
            self.task.provider.wait(TICK);
        }
    }

    /// Waits for the next buffer.
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

    /// Reports progress if it is due.
    pub(super) fn tick(&mut self) {
        if let Some(callback) = &self.task.planned.on_progress
            && self.last_progress.elapsed() >= TICK
        {
            (callback.0)(self.task.progress());
            self.last_progress = Instant::now();
        }
    }

    /// Returns the bytes that the consumer holds, if nothing has changed for so long that it must
    /// be waiting for itself.
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
        // A failed stream is incomplete, so buffers that completed meanwhile are useless too.
        let failed = self.task.with(|engine| engine.has_failed());
        match self.task.provider.poll(waker) {
            _ if failed => self.end(),
            Next::Nothing => Poll::Pending,
            Next::Buffer(extent, buffer) => {
                if !self.memory.owned {
                    // A buffer that is taken no longer counts as read ahead, so more may be read.
                    self.task.memory_returned();
                }
                let PlannedLoad { catalog, plan, .. } = &self.task.planned;
                Poll::Ready(Some(Ok(FilledBuffer::new(Arc::clone(catalog), Arc::clone(plan), extent, buffer))))
            }
            Next::Done | Next::Over => self.end(),
        }
    }

    /// Ends the stream: stores the report, or returns the error as the last item.
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
        let warning = (unlocked > 0).then_some(Warning::BuffersNotLocked { bytes: unlocked as u64 });
        if self.memory.owned {
            // Only the report is needed from here on.
            pool.trim();
        }
        let report = self.task.report(warning.into_iter().collect(), locked as u64);
        self.report = Some(Report { memory_limit: Some(stats.limit as u64), ..report });
        if let Some(callback) = &self.task.planned.on_progress {
            (callback.0)(self.task.progress());
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
