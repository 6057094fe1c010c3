//! Reports the events of a load: its phases, and every read with its worker.
//!
//! A [`Loader`](crate::Loader::trace) takes a [`Trace`]. Each load has its own [`LoadTrace`], and
//! each of its workers a [`ReadTrace`], which core's [`Traced`](floodtide_core::middleware::Traced)
//! calls. [`TraceFile`] writes all events to a file for Perfetto. Without a trace, the load reads
//! no clock and calls nothing.
//!
//! `file` and `reads` use each other: a file makes the trace of each worker, whose reads it writes.

mod event;
mod file;
mod reads;

pub use file::TraceFile;

use crate::opaque::Opaque;
use floodtide_core::FileId;
use floodtide_core::direct_io_fallback::FallbackDecision;
use floodtide_core::middleware::Tracer;
use floodtide_core::strategy::Strategy;
use floodtide_memory::sync::Mutex;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Observes loads and streams.
pub trait Trace: Send + Sync + 'static {
    /// Called when a load or stream starts. Its workers keep the returned trace until the last read
    /// is done.
    fn load(&self) -> Arc<dyn LoadTrace>;
}

/// Observes one load or stream. Any of its threads may call.
pub trait LoadTrace: Send + Sync {
    /// Called when the load is planned. Later events name the files by [`FileId`].
    fn decided(&self, files: &[&str], strategy: &Strategy);

    /// Called when a phase has ended. Phases do not overlap.
    fn phase(&self, phase: Phase, began: Instant, ended: Instant);

    /// Called when a worker starts. The worker reports its reads to the returned trace.
    fn worker(&self, reads: Reads) -> Box<dyn ReadTrace>;

    /// Called with the target of reads in flight, first at the start and then at every change, and
    /// with the rate measured before in bytes per second, if any.
    fn tuned(&self, reads: u32, bytes_per_second: Option<u64>) {
        let _ = (reads, bytes_per_second);
    }

    /// Called when a load changes between direct and buffered reads, because direct reads are much
    /// slower than the profile.
    fn fell_back(&self, decision: FallbackDecision) {
        let _ = decision;
    }

    /// Called when a part of a mapped file has been made resident.
    fn populated(&self, step: &Populated);
}

/// Observes the reads of one worker.
pub trait ReadTrace: Tracer + Send {}

impl<T: Tracer + Send> ReadTrace for T {}

/// The phases of a load, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Finds the files, and reads and parses their headers.
    Headers,
    /// Measures the system, plans the load, and maps its memory. A stream enters this phase twice,
    /// because it allocates on first use.
    Plan,
    /// Reads the tensors.
    Load,
    /// Checks that the files have not changed, and locks the memory if requested.
    Settle,
}

impl Phase {
    /// Returns the name of the phase.
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

/// How a worker reads, which defines where the queue time of a read ends and its service time
/// starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reads {
    /// With `pread(2)` on the worker's thread. A read does not queue. Its service time is that of
    /// the system call, including the pause before a retry.
    Calls,
    /// With a ring, or with tasks of a runtime. A read queues until the ring is entered
    /// (`io_uring_enter`). Its service time lasts until the worker takes the completion, which may
    /// be later than the device if other completions come first.
    Queued,
}

/// A part of a mapped file that a thread has made resident.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Populated {
    /// The number of the populating thread, from 0.
    pub thread: usize,
    /// The file.
    pub file: FileId,
    /// The range in the file.
    pub range: Range<u64>,
    /// The start time.
    pub began: Instant,
    /// The end time.
    pub ended: Instant,
    /// Whether the range is resident now.
    pub done: bool,
}

/// The trace of a loader.
pub(crate) type SharedTrace = Opaque<dyn Trace>;

/// Reports the phases of a load to its trace, if it has one. The last phase ends on drop.
#[derive(Default)]
pub(crate) struct Phases {
    trace: Option<Arc<dyn LoadTrace>>,
    now: Mutex<Option<(Phase, Instant)>>,
}

impl Phases {
    pub(crate) fn new(traces: Option<&SharedTrace>) -> Self {
        Self { trace: traces.map(|traces| traces.0.load()), now: Mutex::default() }
    }

    pub(crate) fn trace(&self) -> Option<&Arc<dyn LoadTrace>> {
        self.trace.as_ref()
    }

    /// Ends the current phase, and starts the next one, if any.
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
