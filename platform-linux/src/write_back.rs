//! Writes pages of a range back while a program continues to write.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// How far to write a range back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteBack {
    /// Start the writes.
    Start,
    /// Wait for the writes.
    Finish,
}

/// Writes the dirty pages of a range back (`sync_file_range(2)`), without metadata. The file must
/// still be synced at the end.
///
/// # Errors
/// Fails if the disk did not accept the writes.
pub fn sync_range(file: &File, range: &Range<u64>, to: WriteBack) -> io::Result<()> {
    let flags = match to {
        WriteBack::Start => libc::SYNC_FILE_RANGE_WRITE,
        WriteBack::Finish => {
            libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER
        }
    };
    let (offset, bytes) = (range.start as libc::off64_t, (range.end - range.start) as libc::off64_t);
    // SAFETY: the call takes numbers and an open descriptor, and touches no memory of this process.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, bytes, flags) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Not all file systems and kernels support it.
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
