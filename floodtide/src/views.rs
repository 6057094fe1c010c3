//! Views of files, whole or in part, which are made resident on request.

use crate::checkpoint_files::OpenFiles;
use crate::error::Error;
use crate::small_file::SmallFile;
use crate::trace::Populated;
use floodtide_core::storage::{FileView, StorageError};
use floodtide_core::{ByteRange, Error as CoreError, FileId};
use floodtide_memory::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::io;
use std::ops::Range;
use std::time::Instant;

/// The bytes that one call makes resident: small enough for progress and for sharing among threads,
/// large enough to be cheap.
const STEP: usize = 8 << 20;

/// The views of a load, by file; `None` for a file without a view.
#[derive(Debug, Default)]
pub(crate) struct Views {
    views: Vec<Option<Box<dyn FileView>>>,
    /// The only file, read whole, which replaces all views.
    small_file: Option<SmallFile>,
    ranges: Vec<(FileId, Range<usize>)>,
}

impl Views {
    /// Returns views of the bytes of the only file. [`populate`](Self::populate) checks `ranges` of
    /// it.
    pub(crate) fn of_small_file(file: SmallFile, ranges: &[(FileId, ByteRange)]) -> Self {
        let ranges = ranges.iter().map(|(id, range)| (*id, range.indices()));
        Self { small_file: Some(file), ranges: ranges.collect(), ..Self::default() }
    }

    /// Views the files of `ranges`, without reading.
    pub(crate) fn new(files: &OpenFiles, ranges: &[(FileId, ByteRange)]) -> Result<Self, Error> {
        let mut all = Self { views: (0..files.len()).map(|_| None).collect(), ..Self::default() };
        for (id, range) in ranges {
            let file = files.get(*id);
            let view = &mut all.views[id.index()];
            let viewed = match view {
                Some(view) => view.as_bytes().len(),
                None => match file.view()? {
                    Some(opened) => view.insert(opened).as_bytes().len(),
                    None => {
                        return Err(CoreError::Contract { what: "the plan maps a file that has no view" }.into());
                    }
                },
            };
            if range.end() > viewed as u64 {
                // The file was truncated after its header was read.
                file.check_unchanged()?;
                let source = io::Error::from(io::ErrorKind::UnexpectedEof).into();
                return Err(StorageError::Memory { bytes: file.len(), source }.into());
            }
            all.ranges.push((*id, range.indices()));
        }
        Ok(all)
    }

    /// Returns true if the file was read whole by one call.
    pub(crate) fn is_small_file(&self) -> bool {
        self.small_file.is_some()
    }

    /// Returns the bytes that this call has read.
    pub(crate) fn small_file_len(&self) -> Option<u64> {
        self.small_file.as_ref().map(|file| file.as_bytes().len() as u64)
    }

    pub(crate) fn as_bytes(&self, file: FileId) -> &[u8] {
        match &self.small_file {
            Some(file) => file.as_bytes(),
            None => self.views.get(file.index()).and_then(Option::as_ref).map_or(&[], |view| view.as_bytes()),
        }
    }

    /// Makes the ranges resident with up to `threads` threads, and passes each to `check`. Adds the
    /// bytes of each range to `done`, and stops early when `cancelled` returns true.
    pub(crate) fn populate(
        &self,
        threads: usize,
        done: &AtomicU64,
        cancelled: &(impl Fn() -> bool + Sync),
        trace: Option<&(dyn Fn(&Populated) + Sync)>,
        check: &(impl Fn(FileId, u64, &[u8]) -> Result<(), CoreError> + Sync),
    ) -> Result<(), PopulateError> {
        let steps: Vec<(FileId, Range<usize>)> = self
            .ranges
            .iter()
            .flat_map(|&(file, Range { start, end })| {
                (start..end).step_by(STEP).map(move |at| (file, at..(at + STEP).min(end)))
            })
            .collect();
        let (next, next_thread) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let failed = AtomicBool::new(false);
        let bring = |thread, file: FileId, bytes: &Range<usize>| {
            let start = bytes.start as u64;
            if let Some(Some(view)) = self.views.get(file.index()) {
                let began = trace.map(|trace| (trace, Instant::now()));
                let made = view.make_resident(bytes.clone());
                if let Some((trace, began)) = began {
                    let range = start..bytes.end as u64;
                    let done = made.is_ok();
                    trace(&Populated { thread, file, range, began, ended: Instant::now(), done });
                }
                made.map_err(|why| PopulateError::Refused(file, why))?;
            }
            check(file, start, &self.as_bytes(file)[bytes.clone()]).map_err(PopulateError::Check)
        };
        let work = || -> Result<(), PopulateError> {
            let thread = next_thread.fetch_add(1, Ordering::Relaxed);
            while let Some((file, bytes)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                if cancelled() || failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                bring(thread, *file, bytes).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
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

    /// Locks the ranges in memory, and adds them to the locked bytes.
    pub(crate) fn lock(&self, locked: &mut u64) -> Result<(), String> {
        for (file, bytes) in &self.ranges {
            if let Some(Some(view)) = self.views.get(file.index()) {
                view.lock(bytes.clone())?;
                *locked += bytes.len() as u64;
            }
        }
        Ok(())
    }
}

/// Why viewed bytes could not be made resident.
#[derive(Debug)]
pub(crate) enum PopulateError {
    /// The bytes cannot be read.
    Refused(FileId, String),
    /// The bytes are wrong.
    Check(CoreError),
}

// Miri does not support mappings.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use floodtide_linux::{LocalFile, LocalStorage};
    use std::sync::Arc;

    #[test]
    fn a_file_that_is_cut_off_before_it_is_mapped_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(10_000).expect("grows");
        let mut opened = OpenFiles::default();
        let local: Arc<crate::checkpoint_files::LoadStorage> = Arc::new(LocalStorage::new());
        opened.add(&local, [Arc::new(LocalFile::open(file.path()).expect("opens")) as _]);
        let ranges = [
            (FileId(0), ByteRange::new(0, 4096).expect("forwards")),
            (FileId(0), ByteRange::new(8192, 10_000).expect("forwards")),
        ];
        assert!(Views::new(&opened, &ranges).is_ok());
        file.as_file().set_len(9000).expect("shrinks");
        let error = Views::new(&opened, &ranges).expect_err("too short");
        assert!(matches!(error, Error::Storage(StorageError::Changed { .. })), "{error}");
    }
}
