//! A file mapped into memory.

use floodtide_core::storage::FileView;
use floodtide_memory::lock_memory;
use memmap2::{Advice, Mmap};
use std::fs::File;
use std::io;
use std::ops::Range;

/// A whole mapped file.
#[derive(Debug)]
pub(super) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file. Nothing is read yet.
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the file does not change while the mapping is alive (contract of
        // `StorageFile::view`, which `MMAP` repeats). The bytes are handed out only as `&[u8]`,
        // never as values with invariants.
        Ok(Self(unsafe { Mmap::map(file) }?))
    }
}

impl FileView for MappedFile {
    fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Faults a range in.
    ///
    /// `MADV_POPULATE_READ` (Linux 5.14) does this in one call, and reports what would be a SIGBUS
    /// as EFAULT. On older kernels this requests read-ahead and touches each page.
    fn make_resident(&self, range: Range<usize>) -> Result<(), String> {
        let (map, start, len) = (&self.0, range.start, range.len());
        match map.advise_range(Advice::PopulateRead, start, len) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                map.advise_range(Advice::WillNeed, start, len).map_err(|error| error.to_string())?;
                let page = rustix::param::page_size();
                let sum = map[range.clone()].iter().step_by(page).fold(0_u8, |sum, byte| sum ^ byte);
                std::hint::black_box(sum ^ map[range].last().copied().unwrap_or(0));
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                Err("the file is shorter than when it was opened, or its device fails (EFAULT)".to_owned())
            }
            result => result.map_err(|error| error.to_string()),
        }
    }

    fn lock(&self, range: Range<usize>) -> Result<(), String> {
        lock_memory(&self.0[range], &mut 0).map_err(|error| error.to_string())
    }
}
