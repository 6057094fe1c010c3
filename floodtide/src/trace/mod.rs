//! What happens in a load, told as it happens: its phases, and every read with the worker that made it.
//!
//! [`Trace`] is what a [`Loader`](crate::Loader::trace) is given; each load has a [`LoadTrace`] of its own, and each of its
//! workers a [`ReadTrace`], which core's [`Traced`](floodtide_core::middleware::Traced) tells. [`TraceFile`] writes all of it
//! into a file that Perfetto shows. Without a trace no clock is read and nothing is called.

mod event;
mod file;
mod reads;

pub use file::TraceFile;

use floodtide_core::FileId;
use floodtide_core::direct_io_fallback::FallbackDecision;
use floodtide_core::middleware::Tracer;
use floodtide_core::strategy::Strategy;
use floodtide_memory::sync::Mutex;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Watches loads and streams.
pub trait Trace: Send + Sync + 'static {
    /// One begins. Whoever works on it keeps what this returns, until its last read is done.
    fn load(&self) -> Arc<dyn LoadTrace>;
}

/// Watches one load or stream; is called from any of its threads.
pub trait LoadTrace: Send + Sync {
    /// The load is decided. `files` are named by [`FileId`] from here on.
    fn decided(&self, files: &[&str], strategy: &Strategy);

    /// A phase has ended. Phases follow one another.
    fn phase(&self, phase: Phase, began: Instant, ended: Instant);

    /// A worker begins; it tells what returns of its reads.
    fn worker(&self, reads: Reads) -> Box<dyn ReadTrace>;

    /// From now on so many reads are to be in flight, first of all and whenever a load changes that; and what those before brought, in bytes
    /// per second, if it was measured.
    fn tuned(&self, reads: u32, bytes_per_second: Option<u64>) {
        let _ = (reads, bytes_per_second);
    }

    /// A load takes another way to read, as direct reads bring far less than the profile says.
    fn fell_back(&self, decision: FallbackDecision) {
        let _ = decision;
    }

    /// A part of a mapped file has been made resident.
    fn populated(&self, step: &Populated);
}

/// Watches one worker's reads.
pub trait ReadTrace: Tracer + Send {}

impl<T: Tracer + Send> ReadTrace for T {}

/// What a load goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The files are found, and their headers read and parsed.
    Headers,
    /// The system is measured, the load is decided, and its memory is mapped. A stream does this when it is first used, so that it
    /// is in this phase twice.
    Plan,
    /// The reads.
    Load,
    /// The files are compared with what they were, and the memory is locked if that was asked for.
    Settle,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Plan => "plan",
            Self::Load => "load",
            Self::Settle => "settle",
        }
    }
}

/// How a worker reads, and so where a read's queue time ends and its service time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reads {
    /// By `pread(2)` on its own thread: a read does not queue, and its service is the system call (with the pause before it, when a
    /// read is tried again and again).
    Calls,
    /// By a ring, or by tasks of a runtime: a read queues until the ring is entered (`io_uring_enter`), and its service lasts until the worker
    /// takes its completion, which is some time after the device was done if other completions came first.
    Queued,
}

/// A part of a mapped file that a thread has made resident.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Populated {
    /// Which of the load's populating threads, from 0 on.
    pub thread: usize,
    /// The file.
    pub file: FileId,
    /// The bytes of it.
    pub range: Range<u64>,
    /// When the thread began with it.
    pub began: Instant,
    /// When it was done.
    pub ended: Instant,
    /// Whether it is resident now.
    pub done: bool,
}

/// A loader's trace.
#[derive(Clone)]
pub(crate) struct Traces(pub(crate) Arc<dyn Trace>);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traces")
    }
}

/// The phases of a load, of which its trace is told, if it has one. The last one ends when this is dropped.
#[derive(Default)]
pub(crate) struct Phases {
    trace: Option<Arc<dyn LoadTrace>>,
    now: Mutex<Option<(Phase, Instant)>>,
}

impl Phases {
    pub(crate) fn new(traces: Option<&Traces>) -> Self {
        Self { trace: traces.map(|traces| traces.0.load()), now: Mutex::default() }
    }

    pub(crate) fn trace(&self) -> Option<&Arc<dyn LoadTrace>> {
        self.trace.as_ref()
    }

    /// Ends the present phase, and begins the next one, if there is one.
    pub(crate) fn enter(&self, next: Option<Phase>) {
        let Some(trace) = &self.trace else { return };
        let now = Instant::now();
        let before = std::mem::replace(&mut *self.now.lock(), next.map(|next| (next, now)));
        if let Some((phase, began)) = before {
            trace.phase(phase, began, now);
        }
    }
}

impl Drop for Phases {
    fn drop(&mut self) {
        self.enter(None);
    }
}

impl fmt::Debug for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phases").field("now", &self.now).finish_non_exhaustive()
    }
}
