//! Where reads go on Linux: one file a backend, each a [`ReadSource`](floodtide_core::ReadSource) (or, for async callers, the same
//! engine driven by awaits). To add one, write it here and start it in `crew::Crew::work`.

mod pread;
mod uring;

pub use pread::{PreadSource, read};
pub use uring::UringSource;

use floodtide_core::{Fault, ReadOp};
use std::time::Duration;

/// An error number as core's fault.
fn fault(errno: i32) -> Fault {
    match errno {
        libc::EINTR => Fault::Interrupted,
        libc::EAGAIN => Fault::Again,
        libc::EINVAL => Fault::Invalid,
        libc::EOPNOTSUPP => Fault::NotSupported,
        libc::EIO => Fault::Io,
        libc::ENOMEM | libc::ENOBUFS => Fault::NoMemory,
        other => Fault::Os(other),
    }
}

/// How long to wait before a read is tried again: not at all at first, then up to 5 ms, so that a thousand tries of a busy
/// system end within seconds.
fn pause(op: &ReadOp) -> Option<Duration> {
    (op.attempt > 3).then(|| Duration::from_micros(50 << op.attempt.min(10)).min(Duration::from_millis(5)))
}
