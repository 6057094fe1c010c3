//! A trace that counts reads.

use floodtide::trace::{LoadTrace, Phase, Populated, ReadTrace, Reads, Trace};
use floodtide_core::middleware::Tracer;
use floodtide_core::strategy::Strategy;
use floodtide_core::{Fault, Outcome, ReadId, ReadOp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The numbers of events so far. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Submitted reads.
    pub submitted: Arc<AtomicU64>,
    /// Completed reads.
    pub completed: Arc<AtomicU64>,
    /// Completed reads that failed.
    pub failed: Arc<AtomicU64>,
    /// Rejected reads.
    pub rejected: Arc<AtomicU64>,
    /// Workers.
    pub workers: Arc<AtomicU64>,
}

impl Tracer for Counts {
    fn submitted(&mut self, _: &ReadOp) {
        self.submitted.fetch_add(1, Ordering::Relaxed);
    }

    fn rejected(&mut self, _: &ReadOp, _: Fault) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    fn completed(&mut self, _: ReadId, outcome: Outcome) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(u64::from(matches!(outcome, Outcome::Failed(_))), Ordering::Relaxed);
    }
}

impl Trace for Counts {
    fn load(&self) -> Arc<dyn LoadTrace> {
        Arc::new(self.clone())
    }
}

impl LoadTrace for Counts {
    fn decided(&self, _: &[&str], _: &Strategy) {}

    fn phase(&self, _: Phase, _: Instant, _: Instant) {}

    fn worker(&self, _: Reads) -> Box<dyn ReadTrace> {
        self.workers.fetch_add(1, Ordering::Relaxed);
        Box::new(self.clone())
    }

    fn populated(&self, _: &Populated) {}
}
