//! Reads by `pread(2)` on the worker's own thread: one at a time, on any kernel, in any sandbox.

use super::{LocalFiles, Registration, fault, file_of, pause};
use floodtide_core::{Backend, Buffer, Completion, Outcome, ReadOp, ReadSource, ReadStyle, Rejected, SourceError};
use floodtide_memory::StableBuffer;
use rustix::io::Errno;

/// Worker threads that call `pread`.
pub const PREAD: Backend = Backend::new("pread", ReadStyle::Blocking, "threads that call pread");

pub(super) const fn registration<B: StableBuffer>() -> Registration<B> {
    Registration {
        backend: PREAD,
        refusal: |_| None,
        source: |files, options| Ok(Box::new(PreadSource::new(files, options.dont_cache))),
    }
}

/// A source that has read by the time it is asked.
#[derive(Debug)]
pub(crate) struct PreadSource<B> {
    files: LocalFiles,
    dont_cache: bool,
    done: Option<Completion<B>>,
}

impl<B: Buffer> PreadSource<B> {
    pub(crate) fn new(files: LocalFiles, dont_cache: bool) -> Self {
        Self { files, dont_cache, done: None }
    }
}

/// Carries out one read, into the part of the buffer that it names.
pub(super) fn read<B: Buffer>(files: &LocalFiles, op: &ReadOp, buffer: &mut B, dont_cache: bool) -> Outcome {
    if let Some(pause) = pause(op) {
        std::thread::sleep(pause);
    }
    let file = match file_of(files, op.file) {
        Ok(file) => file,
        Err(fault) => return Outcome::Failed(fault),
    };
    let mut memory = buffer.memory().part(op.at..op.at + op.len);
    // SAFETY: the bytes are initialised, whatever they hold, and ours alone while `memory` lives; the kernel only writes.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr(), memory.len()) };
    let (descriptor, flags) = (file.descriptor(op.direct), file.read_flags(op.direct, dont_cache));
    if !flags.is_empty() {
        let read = rustix::io::preadv2(descriptor, &mut [std::io::IoSliceMut::new(memory)], op.offset, flags);
        // Neither of the two knows the flags where this comes from an older kernel.
        if !matches!(read, Err(Errno::OPNOTSUPP | Errno::NOSYS)) {
            return outcome(read);
        }
        file.refuse_dont_cache();
    }
    outcome(rustix::io::pread(descriptor, memory, op.offset))
}

fn outcome(read: rustix::io::Result<usize>) -> Outcome {
    read.map_or_else(|errno| Outcome::Failed(fault(errno.raw_os_error())), Outcome::Read)
}

impl<B: Buffer> ReadSource for PreadSource<B> {
    type Buffer = B;

    fn capacity(&self) -> usize {
        1
    }

    fn in_flight(&self) -> usize {
        usize::from(self.done.is_some())
    }

    fn submit(&mut self, op: ReadOp, mut buffer: B) -> Result<(), Rejected<B>> {
        let outcome = read(&self.files, &op, &mut buffer, self.dont_cache);
        self.done = Some(Completion { id: op.id, buffer, outcome });
        Ok(())
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), SourceError> {
        if let Some(completion) = self.done.take() {
            completed(completion);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{DONT_CACHE, LocalFile};
    use crate::probe::resident_share;
    use floodtide_core::{ChunkId, FileId, ReadId, WriteOnly};
    use std::path::Path;
    use std::sync::Arc;

    struct Memory(Vec<u8>);

    impl Buffer for Memory {
        fn memory(&mut self) -> WriteOnly<'_> {
            WriteOnly::new(&mut self.0)
        }
    }

    const BYTES: usize = 4 << 20;

    /// A read of so many bytes from the first file's start, through the page cache.
    fn buffered(len: usize) -> ReadOp {
        let (id, chunk, file) = (ReadId::numbered(0), ChunkId(0), FileId(0));
        ReadOp { id, chunk, file, offset: 0, at: 0, len, direct: false, attempt: 0 }
    }

    /// Reads all of a file that is cold, uncached if asked, and tells what is cached of it then; `None` if it cannot be made cold.
    fn cached_after(folder: &Path, dont_cache: bool) -> Option<(f32, Arc<LocalFile>)> {
        let path = folder.join("model.safetensors");
        std::fs::write(&path, vec![7; BYTES]).expect("writes");
        let file = LocalFile::open(&path).expect("opens");
        file.buffered().sync_all().expect("syncs");
        rustix::fs::fadvise(file.buffered(), 0, None, rustix::fs::Advice::DontNeed).expect("advises");
        let cold = resident_share(file.buffered()) == Some(0.0);
        let file = Arc::new(file);
        let files: LocalFiles = [Some(Arc::clone(&file))].into();
        let mut memory = Memory(vec![0; BYTES]);
        assert_eq!(read(&files, &buffered(BYTES), &mut memory, dont_cache), Outcome::Read(BYTES));
        assert!(memory.0.iter().all(|&byte| byte == 7));
        Some((resident_share(file.buffered())?, file)).filter(|_| cold)
    }

    #[test]
    fn an_uncached_read_leaves_nothing_behind_and_another_does() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let Some((left, file)) = cached_after(folder.path(), true) else {
            return println!("skipped: files cannot be made cold here");
        };
        if file.read_flags(false, true).is_empty() {
            return println!("skipped: no RWF_DONTCACHE here");
        }
        assert!(left < 0.1, "{left} of it is cached");
        assert!(file.read_flags(true, true).is_empty(), "a direct read leaves nothing anyhow");
        let (left, _) = cached_after(folder.path(), false).expect("it was possible before");
        assert!(left > 0.9, "{left} of it is cached");
    }

    #[test]
    fn a_file_system_without_uncached_reads_is_read_all_the_same() {
        let shared = Path::new("/dev/shm");
        let Ok(folder) = tempfile::tempdir_in(shared) else { return println!("skipped: no tmpfs here") };
        let path = folder.path().join("file");
        std::fs::write(&path, "bytes").expect("writes");
        let file = LocalFile::open(&path).expect("opens");
        if rustix::io::preadv2(file.buffered(), &mut [std::io::IoSliceMut::new(&mut [0])], 0, DONT_CACHE).is_ok() {
            return println!("skipped: it has them");
        }
        // Nothing of it can be cold, but all of it must be right.
        assert!(cached_after(folder.path(), true).is_none());
        let file = LocalFile::open(&path).expect("opens");
        assert_eq!(file.read_flags(false, true), DONT_CACHE);
        let file = Arc::new(file);
        let files: LocalFiles = [Some(Arc::clone(&file))].into();
        let mut memory = Memory(vec![0; 5]);
        assert_eq!(read(&files, &buffered(5), &mut memory, true), Outcome::Read(5));
        assert_eq!(memory.0, b"bytes");
        assert!(file.read_flags(false, true).is_empty(), "it is not asked again");
    }
}
