//! Files mapped into memory, whole or where they are wanted, and made resident on request.

use crate::error::Error;
use crate::files::OpenFile;
use crate::image::Image;
use floodtide_core::{ByteRange, Error as CoreError, FileId};
use floodtide_memory::lock_memory;
use floodtide_memory::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use memmap2::{Advice, Mmap};
use std::io;
use std::ops::Range;
use std::time::Instant;

/// What one call makes resident: small enough for progress and for threads to share, large enough to cost nothing.
const STEP: usize = 8 << 20;

/// The mappings of a load, by file; `None` where nothing of a file is viewed in place.
#[derive(Debug, Default)]
pub struct Mappings {
    maps: Vec<Option<Mmap>>,
    /// In place of them all: the only file, read whole.
    image: Option<Image>,
    wanted: Vec<(usize, usize, usize)>,
}

impl Mappings {
    /// No mapping, but the bytes of the only file. `wanted`: what of it is looked at by [`populate`](Self::populate).
    pub fn of_image(image: Image, wanted: &[(FileId, ByteRange)]) -> Self {
        // Inside the image, so both ends fit in usize.
        let wanted = wanted.iter().map(|(id, range)| (id.index(), range.start() as usize, range.end() as usize));
        Self { image: Some(image), wanted: wanted.collect(), ..Self::default() }
    }

    /// Maps the files of `wanted`; nothing is read yet.
    pub fn new(files: &[OpenFile], wanted: &[(FileId, ByteRange)]) -> Result<Self, Error> {
        let mut mappings = Self { maps: (0..files.len()).map(|_| None).collect(), ..Self::default() };
        for (id, range) in wanted {
            let file = &files[id.index()];
            let map = &mut mappings.maps[id.index()];
            let mapped = if let Some(map) = map {
                map.len()
            } else {
                // SAFETY: the bytes are only ever handed out as `&[u8]` for data, never as values with invariants. That
                // nobody changes the file underneath is what every user of a mapping promises; `Loader` documents it.
                let mapped = unsafe { Mmap::map(file.buffered()) };
                let mapped = mapped.map_err(|source| Error::Memory { bytes: file.bytes(), source })?;
                map.insert(mapped).len()
            };
            if range.end() > mapped as u64 {
                // It has been cut off since its header was read.
                file.check_unchanged()?;
                let source = io::ErrorKind::UnexpectedEof.into();
                return Err(Error::Memory { bytes: file.bytes(), source });
            }
            // Inside the mapping, so both ends fit in usize.
            mappings.wanted.push((id.index(), range.start() as usize, range.end() as usize));
        }
        Ok(mappings)
    }

    /// Whether all is there already, read by one call.
    pub fn is_image(&self) -> bool {
        self.image.is_some()
    }

    /// The bytes that this call has read.
    pub fn image_bytes(&self) -> Option<u64> {
        self.image.as_ref().map(|image| image.bytes().len() as u64)
    }

    pub fn bytes(&self, file: FileId) -> &[u8] {
        match &self.image {
            Some(image) => image.bytes(),
            None => self.maps.get(file.index()).and_then(Option::as_ref).map_or(&[], |map| map),
        }
    }

    /// Makes the wanted ranges resident, with so many threads, and passes each to `check`; `done` counts bytes as they come in. Stops early
    /// when `cancelled` says so.
    pub fn populate(
        &self,
        threads: usize,
        done: &AtomicU64,
        cancelled: &(impl Fn() -> bool + Sync),
        trace: Option<&(dyn Fn(&Populated) + Sync)>,
        check: &(impl Fn(FileId, u64, &[u8]) -> Result<(), CoreError> + Sync),
    ) -> Result<(), PopulateError> {
        let steps: Vec<(usize, usize, usize)> = self
            .wanted
            .iter()
            .flat_map(|&(file, start, end)| (start..end).step_by(STEP).map(move |at| (file, at, (at + STEP).min(end))))
            .collect();
        let (next, next_thread) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failed = AtomicBool::new(false);
        let bring = |thread, file: usize, start, end| {
            let id = FileId(file as u32);
            if let Some(Some(map)) = self.maps.get(file) {
                let began = trace.map(|trace| (trace, Instant::now()));
                let made = make_resident(map, start, end);
                if let Some((trace, began)) = began {
                    let range = start as u64..end as u64;
                    trace(&Populated { thread, file: id, range, began, ended: Instant::now(), done: made.is_ok() });
                }
                made.map_err(|error| PopulateError::Io(id, error))?;
            }
            check(id, start as u64, &self.bytes(id)[start..end]).map_err(PopulateError::Check)
        };
        let work = || -> Result<(), PopulateError> {
            let thread = next_thread.fetch_add(1, Ordering::Relaxed);
            while let Some(&(file, start, end)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                if cancelled() || failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                bring(thread, file, start, end).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                done.fetch_add((end - start) as u64, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads.min(steps.len()))
                .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
                .collect();
            let mut result = work();
            for helper in helpers {
                result = result.and(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            result
        })
    }

    /// Locks the wanted ranges in memory, and adds to what is locked.
    pub fn lock(&self, locked: &mut u64) -> io::Result<()> {
        self.wanted.iter().try_for_each(|&(file, start, end)| match self.maps.get(file) {
            Some(Some(map)) => lock_memory(&map[start..end], locked),
            _ => Ok(()),
        })
    }
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

/// Why what is mapped could not be brought in.
#[derive(Debug)]
pub enum PopulateError {
    /// The file's bytes cannot be had.
    Io(FileId, io::Error),
    /// They were found to be wrong.
    Check(CoreError),
}

/// `MADV_POPULATE_READ` (Linux 5.14) faults a range in by one call, and reports what would be a SIGBUS as EFAULT. Older
/// kernels are asked to read ahead, and each page is touched.
fn make_resident(map: &Mmap, start: usize, end: usize) -> io::Result<()> {
    match map.advise_range(Advice::PopulateRead, start, end - start) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            map.advise_range(Advice::WillNeed, start, end - start)?;
            let page = rustix::param::page_size();
            let sum = map[start..end].iter().step_by(page).fold(0_u8, |sum, byte| sum ^ byte);
            std::hint::black_box(sum ^ map[end - 1]);
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            Err(io::Error::other("the file is shorter than when it was opened, or its device fails (EFAULT)"))
        }
        result => result,
    }
}

// Miri has no mappings.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_off_before_it_is_mapped_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(10_000).expect("grows");
        let opened = [OpenFile::open(file.path()).expect("opens")];
        let wanted = [
            (FileId(0), ByteRange::new(0, 4096).expect("forwards")),
            (FileId(0), ByteRange::new(8192, 10_000).expect("forwards")),
        ];
        assert!(Mappings::new(&opened, &wanted).is_ok());
        file.as_file().set_len(9000).expect("shrinks");
        let error = Mappings::new(&opened, &wanted).expect_err("too short");
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }
}
