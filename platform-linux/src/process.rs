//! Settings of the whole process, which only its program should change.

use floodtide_memory::resource_limit;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Makes writes beyond the file size limit (`ulimit -f`) fail with an error.
///
/// Otherwise the signal SIGXFSZ ends the process at once, without a message or cleanup. To be
/// called at the start of programs that write large files.
pub fn ignore_file_size_signal() {
    // SAFETY: ignoring a signal runs no code of ours, and nothing else here depends on it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Raises the limit of open files as much as this process may.
///
/// A checkpoint needs two descriptors per shard. If raising fails, the limit stays, and opening a
/// file reports it. To be called at the start of programs.
pub fn raise_open_file_limit() {
    if let Ok(Rlimit { maximum, .. }) = resource_limit(Resource::Nofile) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
