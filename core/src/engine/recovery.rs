//! Classifies the outcome of a read: complete, to be resumed, or the end of the load.

use super::{Engine, Event, InFlight};
use crate::error::Error;
use crate::plan::{Location, Method, Placement};
use crate::seeded_bug::seeded_bug;
use crate::source::{Fault, Outcome};
use crate::units::to_usize;
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::ops::Range;

/// The maximum number of retries after faults that are usually transient.
///
/// A device error is retried twice: a transient one is gone by then, and a failing disk should not
/// be hammered.
const MAX_BUSY: u32 = 1000;
const MAX_IO: u32 = 2;

/// The attempts of one chunk since its last progress.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attempts {
    busy: u32,
    io: u32,
}

impl Attempts {
    pub(super) fn without_progress(self) -> u32 {
        self.busy + self.io
    }
}

impl Engine {
    /// Updates `read` by its outcome. Returns true if its chunk is complete, false if `read` must
    /// be submitted again.
    pub(super) fn classify(&mut self, read: &mut InFlight, outcome: Outcome) -> Result<bool, Error> {
        match outcome {
            Outcome::Read(bytes) if bytes > read.len => {
                Err(Error::Contract { what: "a read returned more bytes than were requested" })
            }
            Outcome::Read(bytes) => self.advance(read, bytes),
            Outcome::Failed(fault) => self.retry(read, fault).map(|()| false),
        }
    }

    fn advance(&mut self, read: &mut InFlight, bytes: usize) -> Result<bool, Error> {
        let chunk = &self.plan.chunks()[read.chunk.index()];
        let reached = read.filled + bytes;
        if reached + usize::from(seeded_bug!(OffByOneAtChunkEnd)) >= chunk.payload_len
            || (seeded_bug!(ShortReadIgnored) && bytes > 0)
        {
            return Ok(true);
        }
        if bytes == 0 && !read.direct {
            // A buffered read of zero bytes is the end of the file. The bytes up to `payload_len`
            // existed when its header was read.
            if seeded_bug!(EndOfFileIsSuccess) {
                return Ok(true);
            }
            self.retry_stats.truncated += 1;
            return Err(self.truncated(read));
        }
        self.retry_stats.resumed += 1;
        let progress = reached > read.furthest;
        read.filled = reached;
        read.furthest = read.furthest.max(reached);
        if progress || !read.direct {
            read.attempts = Attempts::default();
        }
        let aligned = match chunk.alignment.up(reached as u64) {
            Some(up) if seeded_bug!(WrongRealign) => to_usize(up),
            _ => to_usize(chunk.alignment.down(reached as u64)),
        };
        // A direct read resumes at the last aligned byte. If it makes no progress from there, it
        // has met the end of the file or an offset that the device rejects. A buffered read accepts
        // any offset and distinguishes the two.
        if read.direct && progress {
            self.retry_stats.realigned += u64::from(aligned < reached);
            // Bytes that the next read may overwrite do not count until they arrive again.
            read.filled = aligned;
            read.len = chunk.buffer_range.len() - aligned;
        } else {
            self.go_buffered(read);
        }
        Ok(false)
    }

    fn retry(&mut self, read: &mut InFlight, fault: Fault) -> Result<(), Error> {
        let tries = match fault {
            Fault::Invalid | Fault::NotSupported if read.direct => {
                let file = self.plan.chunks()[read.chunk.index()].file;
                if !core::mem::replace(&mut self.direct_disabled[file.index()], true) {
                    self.events.push_back(Event::DirectRefused(file));
                    self.retry_stats.direct_disabled += 1;
                }
                self.go_buffered(read);
                return Ok(());
            }
            Fault::Interrupted | Fault::Again | Fault::NoMemory | Fault::TimedOut | Fault::Throttled => {
                (&mut read.attempts.busy, MAX_BUSY)
            }
            Fault::Io => (&mut read.attempts.io, MAX_IO),
            _ => return Err(self.read_error(read, fault)),
        };
        if *tries.0 >= tries.1 {
            return Err(self.read_error(read, fault));
        }
        *tries.0 += u32::from(!seeded_bug!(RetriedForever));
        self.retry_stats.retried += 1;
        // Direct reads of the file may have been disabled meanwhile.
        let chunk = &self.plan.chunks()[read.chunk.index()];
        if read.direct && chunk.method == Method::Direct && self.direct_disabled[chunk.file.index()] {
            self.go_buffered(read);
        }
        Ok(())
    }

    fn go_buffered(&mut self, read: &mut InFlight) {
        self.retry_stats.buffered += 1;
        let chunk = &self.plan.chunks()[read.chunk.index()];
        read.direct = false;
        read.filled +=
            usize::from(seeded_bug!(WrongFallback) && read.filled > 0 && read.filled + 1 < chunk.payload_len);
        read.len = chunk.payload_len - read.filled;
    }

    /// Returns the tensor of the first missing byte of a read, and the tensor's range in the file.
    fn tensor_at(&self, read: &InFlight) -> (String, Range<u64>) {
        let chunk = &self.plan.chunks()[read.chunk.index()];
        let offset = chunk.offset + read.filled as u64;
        // The missing bytes may precede the next tensor, which may start in a later chunk of the
        // run.
        let last = self.plan.extents()[chunk.extent.index()].tensors.end;
        let placements = &self.plan.placements()[chunk.tensors.start..last];
        let is_it = |p: &&Placement| p.range.end() > offset && !p.range.is_empty() && p.location != Location::Mapped;
        placements.iter().find(is_it).map_or_else(
            || (String::new(), offset..chunk.offset + chunk.payload_len as u64),
            |p| (self.catalog.tensor(p.tensor).name.to_owned(), p.range.start()..p.range.end()),
        )
    }

    fn truncated(&self, read: &InFlight) -> Error {
        let chunk = &self.plan.chunks()[read.chunk.index()];
        let (tensor, place) = self.tensor_at(read);
        let file = self.catalog.file(chunk.file).path.clone();
        Error::Truncated { file, tensor, expected: place.end, found: chunk.offset + read.filled as u64 }
    }

    fn read_error(&self, read: &InFlight, fault: Fault) -> Error {
        let chunk = &self.plan.chunks()[read.chunk.index()];
        let (tensor, place) = self.tensor_at(read);
        let file = self.catalog.file(chunk.file).path.clone();
        // Alignment may have started the read before the tensor.
        let offset = place.start.max(chunk.offset + read.filled as u64);
        Error::Read { file, tensor, offset, fault }
    }
}
