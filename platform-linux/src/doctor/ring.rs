//! io_uring, by making rings: a seccomp filter hides behind a sysctl that allows everything.

use super::subject::Subject;
use super::{Finding, Status};
use crate::probe::{FUSE, uring_refusal};
use io_uring::IoUring;
use std::fs;
use std::io;

/// From the section "Loading" of `benches/RESULTS.md`, pread and uring; a cold page cache, the larger model.
const COST: &str = "threads wait for the reads instead: as fast from a virtual disk (1.6 GiB/s), 4.1 in place of 4.7 GiB/s from zram (benches/RESULTS.md)";

pub(super) fn io_uring(subject: &Subject) -> Finding {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let sysctl = sysctl.map_or_else(|_| "not there".to_owned(), |text| text.trim().to_owned());
    let setting = format!("kernel.io_uring_disabled: {sysctl}");
    if let Some(why) = uring_refusal() {
        return Finding::new("io_uring", Status::Missing, format!("{why}; {setting}"), "threads read in its place")
            .cost(COST)
            .remedy(remedy(&why, &sysctl));
    }
    if subject.file_system == FUSE {
        let meaning =
            "on FUSE the kernel may go on with a short read at the wrong place when a ring makes it, so threads read";
        return Finding::new("io_uring", Status::Limited, format!("works, but not on FUSE; {setting}"), meaning)
            .cost(COST);
    }
    // As the loads' rings are made.
    let made: io::Result<IoUring> = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(2);
    match made {
        Ok(_) => Finding::new(
            "io_uring",
            Status::Good,
            format!("works, with SINGLE_ISSUER and DEFER_TASKRUN; {setting}"),
            "a ring keeps direct reads in flight from few threads",
        ),
        Err(error) => Finding::new(
            "io_uring",
            Status::Limited,
            format!("works, without SINGLE_ISSUER and DEFER_TASKRUN ({error}); {setting}"),
            "completions interrupt the threads that submit reads",
        )
        .remedy("Linux 6.1 has both"),
    }
}

fn remedy(why: &str, sysctl: &str) -> &'static str {
    match (sysctl, why) {
        ("1", _) => "sysctl kernel.io_uring_disabled=0, or join the group of kernel.io_uring_group",
        ("2", _) => "sysctl kernel.io_uring_disabled=0",
        (_, why) if why.contains("EPERM") => {
            "a seccomp filter refuses it: run with a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register (docker run --security-opt seccomp=PROFILE.json)"
        }
        (_, why) if why.contains("ENOMEM") => "raise the limit of locked memory (ulimit -l)",
        (_, why) if why.contains("ENOSYS") => {
            "a kernel that has io_uring (5.6 or newer), or a sandbox that does not hide it (gVisor does)"
        }
        _ => "a kernel that has io_uring (5.6 or newer)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_follows_the_cause() {
        assert!(remedy("io_uring_setup: EPERM, …", "0").contains("seccomp filter"));
        assert!(remedy("io_uring_setup: EPERM, …", "2").starts_with("sysctl"));
        assert!(remedy("io_uring_setup: ENOMEM, …", "0").contains("ulimit -l"));
    }
}
