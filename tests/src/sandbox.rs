//! Restricted environments: seccomp filters, resource limits, control groups and small file
//! systems.

use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits the command's address space, as `ulimit -v` does.
pub fn limit_address_space(command: &mut Command, bytes: u64) {
    let limit = move || Ok(setrlimit(Resource::As, Rlimit { current: Some(bytes), maximum: Some(bytes) })?);
    // SAFETY: `setrlimit` is one system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(limit) };
}

/// Limits the command's data, as `ulimit -d` does.
pub fn limit_data(command: &mut Command, bytes: u64) {
    let limit = move || Ok(setrlimit(Resource::Data, Rlimit { current: Some(bytes), maximum: Some(bytes) })?);
    // SAFETY: `setrlimit` is one system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(limit) };
}

/// Limits the command's open files, as `ulimit -S -n` and `ulimit -H -n` do.
pub fn limit_open_files(command: &mut Command, soft: u64, hard: u64) {
    let limit = move || Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(hard) })?);
    // SAFETY: `setrlimit` is one system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(limit) };
}

/// Answers EPERM to every `io_uring_setup`, as container runtimes' default filters do.
pub fn forbid_io_uring(command: &mut Command) {
    let program = refusing(&[libc::SYS_io_uring_setup], libc::EPERM);
    let apply = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the filter is compiled already; applying it is two system calls.
    unsafe { command.pre_exec(apply) };
}

/// Allows `io_uring_setup`, and answers EPERM to every use of a ring.
pub fn forbid_use_of_rings(command: &mut Command) {
    let program = refusing(&[libc::SYS_io_uring_enter], libc::EPERM);
    let apply = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the filter is compiled already; applying it is two system calls.
    unsafe { command.pre_exec(apply) };
}

/// Answers EPERM to every `io_uring_setup` of this thread and the threads that it starts.
pub fn forbid_io_uring_here() {
    seccompiler::apply_filter(&refusing(&[libc::SYS_io_uring_setup], libc::EPERM)).expect("applies");
}

/// Keeps this thread from starting others, as the limit of processes does (except for root).
pub fn forbid_threads_here() {
    seccompiler::apply_filter(&refusing(&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN)).expect("applies");
}

/// Keeps the command from starting threads.
pub fn forbid_threads(command: &mut Command) {
    let program = refusing(&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN);
    let apply = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the filter is compiled already; applying it is two system calls.
    unsafe { command.pre_exec(apply) };
}

/// Hides the free space of a disk from the command, and keeps it from allocating space, so that a
/// write finds the disk full.
pub fn forbid_reserving_disk(command: &mut Command) {
    let blind = refusing(&[libc::SYS_statfs, libc::SYS_fstatfs], libc::ENOSYS);
    let refused = refusing(&[libc::SYS_fallocate], libc::EOPNOTSUPP);
    let apply = move || {
        seccompiler::apply_filter(&blind).and_then(|()| seccompiler::apply_filter(&refused)).map_err(io::Error::other)
    };
    // SAFETY: the filters are compiled already; applying each is two system calls.
    unsafe { command.pre_exec(apply) };
}

/// Answers this error to renames that exchange two folders or must not replace, as file systems
/// without support do.
pub fn forbid_rename_flags(command: &mut Command) {
    let program = refusing(&[libc::SYS_renameat2], libc::EINVAL);
    let apply = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the filter is compiled already; applying it is two system calls.
    unsafe { command.pre_exec(apply) };
}

/// Answers EPERM to calls that read or change limits, as systemd's `SystemCallFilter=~@resources`
/// does.
pub fn forbid_resource_limits(command: &mut Command) {
    let program = refusing(&[libc::SYS_prlimit64], libc::EPERM);
    let apply = move || seccompiler::apply_filter(&program).map_err(io::Error::other);
    // SAFETY: the filter is compiled already; applying it is two system calls.
    unsafe { command.pre_exec(apply) };
}

fn refusing(calls: &[libc::c_long], errno: i32) -> seccompiler::BpfProgram {
    use seccompiler::{SeccompAction, SeccompFilter};
    let rules = calls.iter().map(|&call| (call, vec![])).collect();
    let refuse = SeccompAction::Errno(errno as u32);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into().expect("known"));
    filter.expect("a filter").try_into().expect("compiles")
}

/// Limits the memory that the command may lock, as `ulimit -l` does, even for root.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) {
    // `linux/capability.h`. Without it in the bounding set, a program that root starts does not
    // have it.
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = move || {
        setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
        // SAFETY: this operation takes a number and touches no memory.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: two system calls, which are allowed between fork and exec.
    unsafe { command.pre_exec(limit) };
}

/// Gives the command no huge pages, even on request.
pub fn forbid_huge_pages(command: &mut Command) {
    let forbid = || {
        // SAFETY: this operation takes numbers and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(forbid) };
}

/// Limits the command to one processor, the first that this process may use.
pub fn limit_processors(command: &mut Command) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).expect("tells");
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).expect("one"));
    let limit = move || Ok(sched_setaffinity(None, &one)?);
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe { command.pre_exec(limit) };
}

/// A control group with a memory limit, removed on drop.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    /// Creates a control group, or returns why it cannot.
    ///
    /// # Errors
    /// Returns an error if this machine has no writable memory hierarchy, of either version.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let (parent, limit) = if Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            (Path::new("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            // Only below a group that passes the controller on.
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let group = Self { folder: parent.join(format!("floodtide-test-{process}-{number}")) };
        fs::create_dir(&group.folder)?;
        fs::write(group.folder.join(limit), bytes.to_string())?;
        Ok(group)
    }

    /// Makes the command join the group before it starts.
    pub fn confine(&self, command: &mut Command) {
        let procs = self.folder.join("cgroup.procs");
        let join = move || fs::write(&procs, "0");
        // SAFETY: the path is made already; the write is open, write and close (the allocation for
        // the path's terminator is on the stack for short paths).
        unsafe { command.pre_exec(join) };
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes have ended with the test; a group that is still busy stays until the next
        // boot.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A file system in memory with a size limit, unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one, or returns why it cannot.
    ///
    /// # Errors
    /// Returns an error if this process may not mount.
    pub fn new(bytes: u64) -> io::Result<Self> {
        Self::with(&format!("size={bytes}"))
    }

    /// Mounts one with these options of tmpfs, or returns why it cannot.
    ///
    /// # Errors
    /// Returns an error if this process may not mount.
    pub fn with(options: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let size = std::ffi::CString::new(options)?;
        rustix::mount::mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(size.as_c_str()),
        )?;
        Ok(Self { folder })
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A busy mount is detached, and disappears with its last user.
        let _ = rustix::mount::unmount(self.folder.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
