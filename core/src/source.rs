//! The traits that a platform implements: a source of reads, and the buffers that reads fill.
//!
//! A source owns each buffer from submission to completion. A dropped load therefore never frees
//! memory that the kernel still writes to.

use crate::units::{ChunkId, FileId};
use crate::write_only::WriteOnly;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Identifies a read from [`Engine::next_read`](crate::Engine::next_read) to its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId {
    pub(crate) slot: u32,
    /// Distinguishes the uses of a slot, so that a duplicate completion is detected.
    pub(crate) generation: u32,
}

/// One read: `len` bytes of `file` at `offset`, into a chunk's buffer at `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOp {
    /// The id to return with the completion.
    pub id: ReadId,
    /// The chunk whose buffer the read fills.
    pub chunk: ChunkId,
    /// The file to read.
    pub file: FileId,
    /// The offset of the first byte in the file.
    pub offset: u64,
    /// The offset of that byte in the chunk's buffer.
    pub at: usize,
    /// The number of bytes to read. A direct read at the end of a file extends past the end, up to
    /// the alignment.
    pub len: usize,
    /// Whether to use direct I/O (`O_DIRECT`).
    pub direct: bool,
    /// The number of earlier attempts without progress. A source may wait longer as it grows.
    pub attempt: u32,
}

/// Why a read failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// `EINTR`.
    Interrupted,
    /// `EAGAIN`.
    Again,
    /// `EINVAL`. For a direct read, usually an alignment that the file system does not accept.
    Invalid,
    /// `EOPNOTSUPP`.
    NotSupported,
    /// `EIO`.
    Io,
    /// `ENOMEM` or `ENOBUFS`.
    NoMemory,
    /// A server did not answer in time.
    TimedOut,
    /// A server asked for fewer requests (HTTP 429 or 503).
    Throttled,
    /// The file is no longer the version that was opened.
    Changed,
    /// Any other error number.
    Os(i32),
    /// Any other failure, described in words.
    Other(&'static str),
}

impl ReadId {
    /// Returns the id with this [number](Self::number), for reads outside an engine, such as a
    /// measurement.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half of the number is taken")]
    pub const fn numbered(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }

    /// Returns a number that is unique among the reads in flight.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("the read was interrupted repeatedly (EINTR)"),
            Self::Again => f.write_str("the system stayed too busy for the read (EAGAIN)"),
            Self::Invalid => f.write_str("the system rejects the read as invalid (EINVAL)"),
            Self::NotSupported => f.write_str("the file system does not support such reads (EOPNOTSUPP)"),
            Self::Io => f.write_str("the device reports an error (EIO); check the system's log and the disk's health"),
            Self::NoMemory => f.write_str("the system has no memory for the read (ENOMEM)"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::Throttled => f.write_str("the server kept asking for fewer requests"),
            Self::Changed => f.write_str("the file changed during the load; load it again when nothing writes to it"),
            Self::Os(number) => write!(f, "system error {number}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The number of bytes read. Fewer than requested is a short read. Zero is the end of the file.
    Read(usize),
    /// The read failed. No byte was read.
    Failed(Fault),
}

/// Memory that a read fills.
pub trait Buffer: Send + 'static {
    /// Returns the bytes to fill.
    fn memory(&mut self) -> WriteOnly<'_>;
}

/// A finished read and its buffer.
#[derive(Debug)]
pub struct Completion<B> {
    /// The id of the read.
    pub id: ReadId,
    /// The buffer of its chunk.
    pub buffer: B,
    /// How the read ended.
    pub outcome: Outcome,
}

/// A read that a source could not accept, and its buffer.
#[derive(Debug)]
pub struct Rejected<B> {
    /// The buffer, untouched.
    pub buffer: B,
    /// Why the source rejected the read. The engine decides how to continue.
    pub fault: Fault,
}

/// Why a source as a whole cannot continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError(pub String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SourceError {}

/// Accepts reads and completes them: an io_uring, a thread that calls `pread`, a simulated device.
///
/// Dropping a source with reads in flight must wait for the reads or leak their buffers. It must
/// never free them.
pub trait ReadSource {
    /// The memory that reads fill.
    type Buffer: Buffer;

    /// Returns the maximum number of reads in flight, at least one.
    fn capacity(&self) -> usize;

    /// Returns the number of reads in flight.
    fn in_flight(&self) -> usize;

    /// Submits a read with its buffer.
    ///
    /// The caller must ensure that [`in_flight`](Self::in_flight) is below the capacity.
    ///
    /// # Errors
    /// Returns the buffer if the read cannot be accepted.
    fn submit(&mut self, op: ReadOp, buffer: Self::Buffer) -> Result<(), Rejected<Self::Buffer>>;

    /// Starts the submitted reads without waiting for any.
    ///
    /// A source whose reads otherwise start in [`wait`](Self::wait) implements this. The caller has
    /// other work to do before it waits.
    fn flush(&mut self) {}

    /// Waits until at least one read has completed, and passes on every completed read.
    ///
    /// # Errors
    /// Fails if no further read can complete. The buffers in flight stay with the source.
    fn wait(&mut self, completed: &mut dyn FnMut(Completion<Self::Buffer>)) -> Result<(), SourceError>;
}

impl<S: ReadSource + ?Sized> ReadSource for Box<S> {
    type Buffer = S::Buffer;

    fn capacity(&self) -> usize {
        (**self).capacity()
    }

    fn in_flight(&self) -> usize {
        (**self).in_flight()
    }

    fn submit(&mut self, op: ReadOp, buffer: S::Buffer) -> Result<(), Rejected<S::Buffer>> {
        (**self).submit(op, buffer)
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<S::Buffer>)) -> Result<(), SourceError> {
        (**self).wait(completed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;

    #[test]
    fn no_two_reads_have_one_number() {
        let ends = [0, 1, u32::MAX];
        let ids = ends.iter().flat_map(|&slot| ends.iter().map(move |&generation| ReadId { slot, generation }));
        assert_eq!(ids.map(ReadId::number).collect::<BTreeSet<u64>>().len(), 9);
    }

    #[test]
    fn a_fault_names_what_the_system_calls_it() {
        for (fault, name) in [
            (Fault::Interrupted, "EINTR"),
            (Fault::Again, "EAGAIN"),
            (Fault::Invalid, "EINVAL"),
            (Fault::NotSupported, "EOPNOTSUPP"),
            (Fault::Io, "EIO"),
            (Fault::NoMemory, "ENOMEM"),
            (Fault::Os(5), "error 5"),
            (Fault::TimedOut, "in time"),
            (Fault::Throttled, "fewer requests"),
            (Fault::Changed, "changed"),
            (Fault::Other("the cable is out"), "cable"),
        ] {
            assert!(fault.to_string().contains(name), "{fault}");
        }
    }
}
