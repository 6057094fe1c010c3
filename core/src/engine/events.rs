//! What an engine reports.

#[cfg(doc)]
use super::Engine;
use crate::source::ReadOp;
use crate::units::{ChunkId, ExtentId, TensorId};

/// What happened in the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Every byte of this tensor is in its place; of a strided slice, once what has [landed](Disposition::Landed) is gathered.
    TensorReady(TensorId),
    /// Direct reads of this file are refused; it is read through the page cache from here on.
    DirectRefused(crate::units::FileId),
}

/// What becomes of a completed read's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// The chunk is whole: its buffer goes to its owner.
    Landed(ChunkId),
    /// The same buffer goes into this read.
    Resubmit(ReadOp),
    /// The load is over; the buffer is of no use any more.
    Abandoned,
}

/// What the engine could do if it were asked for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Hand one out.
    Ready,
    /// Nothing before the next extent of a stream has a buffer: see [`Engine::admit`].
    NeedsBuffer(ExtentId),
    /// Nothing before a read in flight completes, as enough is in flight.
    Full,
    /// Nothing any more: all is issued, or the load is over.
    Exhausted,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes that have landed.
    pub bytes_done: u64,
    /// The bytes that must land.
    pub bytes_total: u64,
    /// The tensors that are whole.
    pub tensors_done: usize,
    /// The tensors that were selected.
    pub tensors_total: usize,
}

/// How often the engine had to make good for what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryStats {
    /// Short reads that were read on.
    pub resumed: u64,
    /// Direct reads that went on from an earlier, aligned byte.
    pub realigned: u64,
    /// Reads that were tried again after a fault.
    pub retried: u64,
    /// Reads that went on through the page cache.
    pub buffered: u64,
    /// Files of which direct reads were refused.
    pub direct_disabled: u64,
    /// Files that ended early.
    pub truncated: u64,
}
