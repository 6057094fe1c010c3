//! What concerns the whole process: its limits, and what is for its program to decide.

use floodtide_memory::resource_limit;
use rustix::process::{Resource, Rlimit, setrlimit};

/// Has writes beyond the limit of a file's size (`ulimit -f`) fail with an error, in place of a signal (SIGXFSZ) that ends the process at once, without
/// a word and without cleaning up. For programs that write large files, at their start.
pub fn report_file_size_limit() {
    // SAFETY: ignoring a signal runs no code of ours, and nothing else here depends on it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Raises the limit of open files as far as this process may: a checkpoint of many shards needs two descriptors for each. Where
/// that is refused the limit stays, and opening says so if it is met. For programs, at their start.
pub fn raise_open_file_limit() {
    if let Ok(Rlimit { maximum, .. }) = resource_limit(Resource::Nofile) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
