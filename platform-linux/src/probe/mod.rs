//! Probes the system. Each answer comes from a try, not from a version number. [`profile`] keeps
//! the measurements of a device for later loads.

pub mod device;
pub mod profile;

pub(crate) mod residency;

pub use floodtide_memory::memory_limit;

pub use floodtide_core::storage::Residency;
pub use residency::{residency, resident_share};

use floodtide_core::{Alignment, DirectLimits};
use io_uring::{IoUring, opcode};
use rustix::fs::{AtFlags, StatxFlags};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;

/// Returns what direct reads of a file must be aligned to, or `None` if it does not support them.
///
/// Memory file systems count as without direct reads, although some accept them, because there is
/// no page cache to bypass. Elsewhere the answer comes from `statx(2)`: `STATX_DIOALIGN` (Linux
/// 6.1), and the smaller alignment of reads in `STATX_DIO_READ_ALIGN` (6.14). If the kernel reports
/// neither, a test read decides between 512 and 4096 bytes.
pub(crate) fn direct_limits(file: &File) -> Option<DirectLimits> {
    if is_memory(file) {
        return None;
    }
    const READ_ALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2_0000);
    let requested = StatxFlags::DIOALIGN | READ_ALIGN;
    let answer = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, requested).ok()?;
    let mask = answer.stx_mask;
    if mask & StatxFlags::DIOALIGN.bits() == 0 {
        return probe_limits(file);
    }
    let read = if mask & READ_ALIGN.bits() == 0 { 0 } else { answer.stx_dio_read_offset_align };
    let offset = if read == 0 { answer.stx_dio_offset_align } else { read };
    let (offset, memory) = (Alignment::new(offset.into())?, Alignment::new(answer.stx_dio_mem_align.into())?);
    // An alignment above an arena's cannot be satisfied. No file system has one.
    (offset.max(memory) <= Alignment::HUGE_PAGE).then_some(DirectLimits { offset, memory })
}

/// Reads 512, then 4096 bytes at the start of the file, for kernels without `STATX_DIOALIGN`.
fn probe_limits(file: &File) -> Option<DirectLimits> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(path).ok()?;
    let mut memory = vec![0_u8; 3 * 4096];
    let aligned = memory.as_ptr().align_offset(4096);
    [512_usize, 4096].into_iter().find_map(|bytes| {
        // Start 512 bytes into a page, so that a larger alignment is detected.
        let start = aligned + bytes % 4096;
        direct.read_at(&mut memory[start..start + bytes], 0).ok()?;
        let alignment = Alignment::new(bytes as u64)?;
        Some(DirectLimits { offset: alignment, memory: alignment })
    })
}

/// Returns why io_uring is unavailable, if it is. This creates a ring and tries it, because no
/// sysctl shows a seccomp filter.
///
/// ```
/// match floodtide_linux::probe::uring_refusal() {
///     None => println!("io_uring can be used"),
///     Some(why) => println!("io_uring cannot be used: {why}"),
/// }
/// ```
#[must_use]
pub fn uring_refusal() -> Option<String> {
    let ring = match IoUring::new(2) {
        Ok(ring) => ring,
        Err(error) => return Some(explain_ring_error(&error)),
    };
    let mut probe = io_uring::Probe::new();
    match ring.submitter().register_probe(&mut probe) {
        // A filter may allow creating rings and forbid using them.
        Ok(()) if probe.is_supported(opcode::Read::CODE) => {
            ring.submit().err().map(|error| match error.raw_os_error() {
                Some(libc::EPERM) => "io_uring_enter: EPERM, forbidden by a seccomp filter".to_owned(),
                _ => format!("io_uring_enter: {error}"),
            })
        }
        _ => Some("the kernel's io_uring has no plain reads (Linux 5.6 has them)".to_owned()),
    }
}

/// Describes why a ring could not be created, with the usual cause.
pub fn explain_ring_error(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring_setup: EPERM, forbidden by a seccomp filter or by kernel.io_uring_disabled".to_owned()
        }
        Some(libc::ENOSYS) => "io_uring_setup: ENOSYS, the kernel has no io_uring or a filter hides it".to_owned(),
        Some(libc::ENOMEM) => "io_uring_setup: ENOMEM, over the limit of locked memory (ulimit -l)".to_owned(),
        _ => format!("io_uring_setup: {error}"),
    }
}

/// `TMPFS_MAGIC` and `HUGETLBFS_MAGIC` of `linux/magic.h`.
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;

/// The name that [`file_system`] returns for FUSE.
pub(crate) const FUSE: &str = "FUSE";

/// Returns the name of the file system, and whether it is on another machine. The magic numbers are
/// from `linux/magic.h` and the projects' own.
#[must_use]
pub fn file_system(file: impl AsFd) -> (String, bool) {
    let Ok(answer) = rustix::fs::fstatfs(file) else { return ("an unknown file system".to_owned(), false) };
    let (name, network) = match answer.f_type as u64 & 0xffff_ffff {
        0xef53 => ("ext4", false),
        0x5846_5342 => ("xfs", false),
        0x9123_683e => ("btrfs", false),
        TMPFS => ("tmpfs", false),
        HUGETLBFS => ("hugetlbfs", false),
        0x794c_7630 => ("overlayfs", false),
        0x2fc1_2fc1 => ("zfs", false),
        0xf2f5_2010 => ("f2fs", false),
        0x7371_7368 => ("squashfs", false),
        0xe0f5_e1e2 => ("erofs", false),
        0x6573_5546 => (FUSE, true),
        0x6969 => ("NFS", true),
        0x0bd0_0bd0 => ("Lustre", true),
        0xff53_4d42 | 0xfe53_4d42 => ("SMB", true),
        0x0102_1997 => ("9p", true),
        0x00c3_6400 => ("Ceph", true),
        0x4750_4653 => ("GPFS", true),
        other => return (format!("file system 0x{other:x}"), false),
    };
    (name.to_owned(), network)
}

/// Returns true if the file's contents are only memory: tmpfs, ramfs, hugetlbfs.
pub(crate) fn is_memory(file: &File) -> bool {
    rustix::fs::fstatfs(file)
        .is_ok_and(|answer| matches!(answer.f_type as u64 & 0xffff_ffff, TMPFS | HUGETLBFS | 0x8584_58f6))
}

/// Returns the number of processors that this process may use, from its affinity and its cgroup
/// quota.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
