//! Written pages of a range, sent to the disk while a program goes on writing.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// How far a range is brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteBack {
    /// The writes begin.
    Start,
    /// The writes are done.
    Finish,
}

/// Writes the dirty pages of a range back (`sync_file_range(2)`). Metadata is not covered: a file is synced at the end all the same.
///
/// # Errors
/// When the disk did not take what had been written.
pub fn sync_range(file: &File, range: &Range<u64>, to: WriteBack) -> io::Result<()> {
    let flags = match to {
        WriteBack::Start => libc::SYNC_FILE_RANGE_WRITE,
        WriteBack::Finish => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let (offset, bytes) = (range.start as libc::off64_t, (range.end - range.start) as libc::off64_t);
    // SAFETY: the call takes numbers and a descriptor that is open, and touches no memory of this process.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Not of all file systems and kernels.
        error
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE | libc::EOPNOTSUPP)) =>
        {
            match to {
                WriteBack::Start => Ok(()),
                WriteBack::Finish => file.sync_data(),
            }
        }
        error => Err(error),
    }
}
