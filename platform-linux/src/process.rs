//! What concerns the whole process: its limits, and what is for its program to decide.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;

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

/// A limit of this process. Not by `rustix::process::getrlimit`, which takes it that the system always answers: a filter may forbid the
/// question (systemd's `SystemCallFilter=~@resources` does), and the answer is then whatever was in memory.
///
/// # Errors
/// When the system does not tell.
pub(crate) fn resource_limit(resource: Resource) -> io::Result<Rlimit> {
    let mut answer = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call writes to the structure, which lives across it, and to nothing else.
    if unsafe { libc::getrlimit(resource as _, &raw mut answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = |bytes| (bytes != libc::RLIM_INFINITY).then_some(bytes);
    Ok(Rlimit { current: limit(answer.rlim_cur), maximum: limit(answer.rlim_max) })
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_that_the_kernel_lists() {
        let list = std::fs::read_to_string("/proc/self/limits").expect("is there");
        for (name, resource) in [
            ("Max open files", Resource::Nofile),
            ("Max address space", Resource::As),
            ("Max data size", Resource::Data),
        ] {
            let line = list.lines().find_map(|line| line.strip_prefix(name)).expect("is listed");
            let listed: Vec<Option<u64>> = line.split_whitespace().take(2).map(|word| word.parse().ok()).collect();
            let limit = resource_limit(resource).expect("tells");
            assert_eq!(listed, [limit.current, limit.maximum], "{name}");
        }
    }
}
