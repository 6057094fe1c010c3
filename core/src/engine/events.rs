//! Events and states of an engine.

#[cfg(doc)]
use super::Engine;
use crate::source::ReadOp;
use crate::units::{ChunkId, ExtentId, TensorId};

/// An event of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Every byte of this tensor has arrived. A strided slice must still be gathered from its
    /// [complete](Disposition::Complete) chunks.
    TensorReady(TensorId),
    /// Direct reads of this file were refused. Its remaining reads are buffered.
    DirectRefused(crate::units::FileId),
}

/// What happens to the buffer of a completed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// The chunk is complete. Its buffer goes back to its owner.
    Complete(ChunkId),
    /// The buffer goes into this read.
    Resubmit(ReadOp),
    /// The load is over. The buffer is no longer needed.
    Abandoned,
}

/// Whether the engine can hand out a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// A read is available.
    Ready,
    /// The next extent of a stream needs a buffer first: see [`Engine::admit`].
    NeedsBuffer(ExtentId),
    /// The limit of reads in flight is reached. A completion must come first.
    Full,
    /// No read remains, or the load is over.
    Exhausted,
}

/// The progress of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of bytes that have arrived.
    pub bytes_done: u64,
    /// The number of bytes to load.
    pub bytes_total: u64,
    /// The number of complete tensors.
    pub tensors_done: usize,
    /// The number of selected tensors.
    pub tensors_total: usize,
}

/// How often the engine recovered from a problem, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryStats {
    /// Short reads that were continued.
    pub resumed: u64,
    /// Direct reads that continued from an earlier, aligned byte.
    pub realigned: u64,
    /// Reads that were retried after a fault.
    pub retried: u64,
    /// Reads that continued as buffered reads.
    pub buffered: u64,
    /// Files whose direct reads were disabled.
    pub direct_disabled: u64,
    /// Files that ended early.
    pub truncated: u64,
}
