//! The traits that a platform implements: where reads go, and what they fill.
//!
//! Buffers are owned by the source from submission to completion, so that giving a load up can never free memory that
//! the kernel still writes to.

use crate::units::{ChunkId, FileId};
use crate::write_only::WriteOnly;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Identifies a read from [`Engine::next_read`](crate::Engine::next_read) to its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId {
    pub(crate) slot: u32,
    /// Tells a slot's uses apart, so that a completion that comes twice is noticed.
    pub(crate) generation: u32,
}

/// One read: `len` bytes of `file` from `offset` on, into the chunk's buffer from its byte `at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOp {
    /// To be given back with the completion.
    pub id: ReadId,
    /// The chunk whose buffer it fills.
    pub chunk: ChunkId,
    /// The file to read.
    pub file: FileId,
    /// The first byte in the file.
    pub offset: u64,
    /// Where in the chunk's buffer that byte goes.
    pub at: usize,
    /// How many bytes to ask for; for a direct read at a file's end it reaches past the end, up to the alignment.
    pub len: usize,
    /// Whether the read goes past the page cache (O_DIRECT).
    pub direct: bool,
    /// How often this read has been tried before without a byte of progress; a source may wait longer as it grows.
    pub attempt: u32,
}

/// Why a read failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// EINTR.
    Interrupted,
    /// EAGAIN.
    Again,
    /// EINVAL: for a direct read, most often an alignment that the file system does not take.
    Invalid,
    /// EOPNOTSUPP.
    NotSupported,
    /// EIO.
    Io,
    /// ENOMEM or ENOBUFS.
    NoMemory,
    /// A server did not answer in time.
    TimedOut,
    /// A server asked for fewer requests (HTTP 429 or 503).
    Throttled,
    /// The file is not the version that was opened.
    Changed,
    /// Any other error number.
    Os(i32),
    /// Anything else, in words.
    Other(&'static str),
}

impl ReadId {
    /// The id with that [number](Self::number), for reads that no engine has asked for, such as a measurement's.
    #[must_use]
    pub const fn numbered(number: u64) -> Self {
        Self { slot: number as u32, generation: (number >> 32) as u32 }
    }

    /// A number that no other read has while this one is in flight.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted again and again (EINTR)"),
            Self::Again => f.write_str("the system stayed too busy to take the read (EAGAIN)"),
            Self::Invalid => f.write_str("the system calls the read invalid (EINVAL)"),
            Self::NotSupported => f.write_str("the file system does not support such reads (EOPNOTSUPP)"),
            Self::Io => {
                f.write_str("the device reports an error (EIO); look at the system's log and the disk's health")
            }
            Self::NoMemory => f.write_str("the system has no memory for the read (ENOMEM)"),
            Self::TimedOut => f.write_str("the server did not answer in time"),
            Self::Throttled => f.write_str("the server kept asking for fewer requests"),
            Self::Changed => {
                f.write_str("the file changed while it was loaded; load it again when nothing writes to it")
            }
            Self::Os(number) => write!(f, "system error {number}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// So many bytes were read; fewer than asked for is a short read, none is the end of the file.
    Read(usize),
    /// Nothing was read.
    Failed(Fault),
}

/// Memory that a read fills.
pub trait Buffer: Send + 'static {
    /// The bytes to fill.
    fn memory(&mut self) -> WriteOnly<'_>;
}

/// A finished read with its buffer.
#[derive(Debug)]
pub struct Completion<B> {
    /// The read.
    pub id: ReadId,
    /// Its chunk's buffer.
    pub buffer: B,
    /// How it ended.
    pub outcome: Outcome,
}

/// A read that a source could not take, with its buffer.
#[derive(Debug)]
pub struct Rejected<B> {
    /// The buffer, untouched.
    pub buffer: B,
    /// Why; the engine decides what becomes of the read.
    pub fault: Fault,
}

/// Why a source as a whole can go on no more, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceError(pub String);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SourceError {}

/// Takes reads and completes them: an io_uring, a thread that calls `pread`, a simulated device.
///
/// Dropping a source with reads in flight must wait for them or leak their buffers; it must never free them.
pub trait ReadSource {
    /// The memory it fills.
    type Buffer: Buffer;

    /// How many reads it keeps in flight at most; at least one.
    fn capacity(&self) -> usize;

    /// How many reads are in flight now.
    fn in_flight(&self) -> usize;

    /// Takes a read and its buffer. Called only while [`in_flight`](Self::in_flight) is below the capacity.
    ///
    /// # Errors
    /// When the read cannot be taken, with the buffer.
    fn submit(&mut self, op: ReadOp, buffer: Self::Buffer) -> Result<(), Rejected<Self::Buffer>>;

    /// Lets the device begin with what was submitted, if that would else wait for [`wait`](Self::wait): the caller has other work to do before
    /// that. Never waits for a read.
    fn flush(&mut self) {}

    /// Waits until at least one read in flight has completed, and passes on all that have.
    ///
    /// # Errors
    /// When no completion can come any more; the buffers in flight stay with the source.
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
