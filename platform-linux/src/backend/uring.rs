//! Reads by io_uring: one ring per worker, registered files, and buffers owned until completion.

use super::{LocalFiles, Registration, fault, file_of, pause};
use crate::file::LocalFile;
use crate::probe;
use floodtide_core::{
    Backend, Completion, Fault, FileId, Outcome, ReadId, ReadOp, ReadSource, ReadStyle, Rejected, SourceError,
    WriteOnly,
};
use floodtide_memory::StableBuffer;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::ReadWriteFlags;
use std::io;
use std::os::fd::AsRawFd;

/// The backend of io_uring, with one ring per worker.
pub const URING: Backend = Backend::new("uring", ReadStyle::Queue, "io_uring, one ring per worker");

/// A FUSE mount that bypasses the page cache synchronously does not report to io_uring how far a
/// read came. The kernel then continues a short read at its start, and fills memory with wrong
/// bytes (seen on Linux 6.18).
const ON_FUSE: &str = "on FUSE, the kernel may continue a short read of io_uring at the wrong offset";

pub(super) const fn registration<B: StableBuffer>() -> Registration<B> {
    Registration {
        backend: URING,
        refusal: |on_fuse| if on_fuse { Some(ON_FUSE.to_owned()) } else { probe::uring_refusal() },
        source: |files, options| match UringSource::new(files, options.capacity, options.dont_cache) {
            Ok(source) => Ok(Box::new(source)),
            Err(error) => Err(probe::explain_ring_error(&error)),
        },
    }
}

/// A read that the kernel has.
#[derive(Debug)]
struct Pending<B> {
    id: ReadId,
    buffer: B,
    /// The file, if the read uses `RWF_DONTCACHE`.
    dont_cache: Option<FileId>,
}

/// A ring of one thread.
pub(crate) struct UringSource<B: StableBuffer> {
    ring: IoUring,
    files: LocalFiles,
    dont_cache: bool,
    /// Whether the files are registered: `2 i` is file i for buffered reads, `2 i + 1` for direct
    /// ones.
    registered: bool,
    /// The reads in flight, by `user_data`.
    pending: Vec<Option<Pending<B>>>,
    free: Vec<u32>,
    in_flight: usize,
}

impl<B: StableBuffer> UringSource<B> {
    /// Creates a ring for the calling thread, the only one that may use it.
    pub(crate) fn new(files: LocalFiles, depth: usize, dont_cache: bool) -> io::Result<Self> {
        let depth = u32::try_from(depth).unwrap_or(u32::MAX).clamp(1, 4096);
        // Completions are processed when this thread waits, which avoids interrupts (Linux 6.1).
        // Older kernels refuse the flags and get a plain ring.
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth).or_else(|error| {
            if error.raw_os_error() == Some(libc::EINVAL) { IoUring::new(depth) } else { Err(error) }
        })?;
        let descriptors: Vec<i32> = files
            .iter()
            .flat_map(|file| match file {
                Some(file) => [file.descriptor(false).as_raw_fd(), file.descriptor(true).as_raw_fd()],
                // The entry stays empty.
                None => [-1, -1],
            })
            .collect();
        // Registration saves a reference count per read. Without it, reads still work.
        let registered = ring.submitter().register_files(&descriptors).is_ok();
        Ok(Self {
            ring,
            files,
            dont_cache,
            registered,
            pending: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            in_flight: 0,
        })
    }

    fn entry(
        &self,
        op: &ReadOp,
        file: &LocalFile,
        flags: ReadWriteFlags,
        mut memory: WriteOnly<'_>,
        slot: u32,
    ) -> squeue::Entry {
        // A read transfers at most 2^31 − 4096 bytes, however long the memory is.
        let (address, len) = (memory.as_mut_ptr(), u32::try_from(memory.len()).unwrap_or(u32::MAX));
        let read = if self.registered {
            let index = 2 * op.file.0 + u32::from(op.direct);
            opcode::Read::new(types::Fixed(index), address, len)
        } else {
            let fd = file.descriptor(op.direct).as_raw_fd();
            opcode::Read::new(types::Fd(fd), address, len)
        };
        read.offset(op.offset).rw_flags(flags.bits().cast_signed()).build().user_data(u64::from(slot))
    }

    /// Waits for a completion, and passes on all that are available.
    fn reap(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => break,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel is short of a resource. Take the completions, or wait a moment.
                    Some(libc::EAGAIN | libc::EBUSY) if self.ring.completion().is_empty() => {
                        std::thread::sleep(std::time::Duration::from_micros(100));
                    }
                    Some(libc::EAGAIN | libc::EBUSY) => break,
                    _ => return Err(error),
                },
            }
        }
        for entry in self.ring.completion() {
            let Ok(slot) = u32::try_from(entry.user_data()) else { continue };
            let Some(Pending { id, buffer, dont_cache }) = self.pending.get_mut(slot as usize).and_then(Option::take)
            else {
                continue;
            };
            self.free.push(slot);
            self.in_flight -= 1;
            let outcome = match entry.result() {
                bytes if bytes >= 0 => Outcome::Read(bytes as usize),
                errno if -errno == libc::EOPNOTSUPP && dont_cache.is_some() => {
                    dont_cache
                        .and_then(|file| file_of(&self.files, file).ok())
                        .inspect(|file| file.refuse_dont_cache());
                    // Retry at once without the flag.
                    Outcome::Failed(Fault::Interrupted)
                }
                errno => Outcome::Failed(fault(-errno)),
            };
            completed(Completion { id, buffer, outcome });
        }
        Ok(())
    }
}

impl<B: StableBuffer> ReadSource for UringSource<B> {
    type Buffer = B;

    fn capacity(&self) -> usize {
        self.pending.len()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, op: ReadOp, mut buffer: B) -> Result<(), Rejected<B>> {
        if let Some(pause) = pause(&op) {
            std::thread::sleep(pause);
        }
        let Some(slot) = self.free.pop() else {
            return Err(Rejected { buffer, fault: Fault::Again });
        };
        let file = match file_of(&self.files, op.file) {
            Ok(file) => file,
            Err(fault) => {
                self.free.push(slot);
                return Err(Rejected { buffer, fault });
            }
        };
        let flags = file.read_flags(op.direct, self.dont_cache);
        let entry = self.entry(&op, file, flags, buffer.memory().part(op.at..op.at + op.len), slot);
        // SAFETY: the entry points into `buffer`, which moves to `pending` below and stays there
        // until the kernel has completed the read. By `StableBuffer`, moving it does not move its
        // memory. The descriptors are open as long as `files`, which `self` holds.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.free.push(slot);
            return Err(Rejected { buffer, fault: Fault::Again });
        }
        self.pending[slot as usize] =
            Some(Pending { id: op.id, buffer, dont_cache: (!flags.is_empty()).then_some(op.file) });
        self.in_flight += 1;
        Ok(())
    }

    fn flush(&mut self) {
        if !self.ring.submission().is_empty() {
            // The next wait submits what the kernel does not accept now, and reports a failure.
            let _ = self.ring.submit();
        }
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), SourceError> {
        if self.in_flight == 0 { Ok(()) } else { self.reap(completed).map_err(|error| SourceError(error.to_string())) }
    }
}

impl<B: StableBuffer> Drop for UringSource<B> {
    /// Waits for the reads in flight. If the ring cannot wait, the buffers are leaked: memory that
    /// the kernel may still write to is never freed.
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.reap(&mut |completion| drop(completion.buffer)).is_err() {
                std::mem::forget(std::mem::take(&mut self.pending));
                return;
            }
        }
    }
}
