//! What concerns the whole process, and so is for its program to decide.

/// Has writes beyond the limit of a file's size (`ulimit -f`) fail with an error, in place of a signal (SIGXFSZ) that ends the process at once, without
/// a word and without cleaning up. For programs that write large files, at their start.
pub fn report_file_size_limit() {
    // SAFETY: ignoring a signal runs no code of ours, and nothing else here depends on it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
