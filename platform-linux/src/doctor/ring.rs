//! Checks io_uring by creating rings, because a seccomp filter can forbid them whatever the sysctl
//! says.

use super::subject::Subject;
use super::{Finding, Status};
use crate::probe::{FUSE, uring_refusal};
use io_uring::IoUring;
use std::fs;
use std::io;

/// From the section "Loading" of `benches/RESULTS.md`, pread and uring; a cold page cache, the
/// larger model.
const COST: &str = "threads are as fast from a virtual disk (1.6 GiB/s), and reach 4.1 instead of 4.7 GiB/s from zram (benches/RESULTS.md)";

pub(super) fn io_uring(subject: &Subject) -> Finding {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let sysctl = sysctl.map_or_else(|_| "absent".to_owned(), |text| text.trim().to_owned());
    let setting = format!("kernel.io_uring_disabled: {sysctl}");
    if let Some(why) = uring_refusal() {
        return Finding::new("io_uring", Status::Missing, format!("{why}; {setting}"), "threads read instead")
            .cost(COST)
            .remedy(remedy(&why, &sysctl));
    }
    if subject.file_system == FUSE {
        let meaning = "on FUSE the kernel may continue a short read of a ring at the wrong offset, so threads read";
        return Finding::new("io_uring", Status::Limited, format!("works, but not on FUSE; {setting}"), meaning)
            .cost(COST);
    }
    // Create it as loads do.
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
        .remedy("upgrade the kernel; 6.1 has both"),
    }
}

fn remedy(why: &str, sysctl: &str) -> &'static str {
    match (sysctl, why) {
        ("1", _) => "sysctl kernel.io_uring_disabled=0, or join the group of kernel.io_uring_group",
        ("2", _) => "sysctl kernel.io_uring_disabled=0",
        (_, why) if why.contains("EPERM") => {
            "a seccomp filter refuses it: use a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register (docker run --security-opt seccomp=PROFILE.json)"
        }
        (_, why) if why.contains("ENOMEM") => "raise the limit of locked memory (ulimit -l)",
        (_, why) if why.contains("ENOSYS") => {
            "use a kernel with io_uring (5.6 or newer), and a sandbox that does not hide it (gVisor does)"
        }
        _ => "use a kernel with io_uring (5.6 or newer)",
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
