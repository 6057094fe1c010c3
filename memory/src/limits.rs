//! The memory that a load may use: free memory, and the limits of control groups, address space and
//! data.
//!
//! Sources: `proc(5)` on `MemAvailable`, and the kernel's documents cgroup-v1/memory and cgroup-v2
//! on `memory.max`, `memory.limit_in_bytes` and `memory.stat`.

use floodtide_core::MemoryLimit;
use rustix::process::{Resource, Rlimit};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Returns the tightest limit, with its name. Page cache counts as free, because the kernel evicts
/// it under pressure.
#[must_use]
pub fn memory_limit() -> MemoryLimit {
    memory_limits().into_iter().min_by_key(|limit| limit.available).unwrap_or_else(no_limit)
}

/// Returns all known limits.
pub fn memory_limits() -> Vec<MemoryLimit> {
    let mut limits = vec![
        address_space_left(Resource::As, "the address-space limit, ulimit -v"),
        address_space_left(Resource::Data, "the limit of data, ulimit -d"),
    ];
    limits.push(meminfo("MemAvailable:").map(|available| limit(available, "free memory".to_owned())));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    limits.extend(groups_with_limits(&groups, &mounts).into_iter().map(|group| group.left()));
    limits.into_iter().flatten().collect()
}

/// Returns the limit for systems that report none.
pub fn no_limit() -> MemoryLimit {
    limit(u64::MAX, "no limit known".to_owned())
}

fn limit(available: u64, limit: String) -> MemoryLimit {
    MemoryLimit { available, limit }
}

fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix(key))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The address space in bytes that a load needs besides its tensors, for stacks and allocator
/// arenas.
///
/// Without it an allocation fails somewhere, and the process aborts.
const ADDRESS_RESERVE: u64 = 64 << 20;

/// Returns the rest of the address space, or of private data (`setrlimit(2)`, `proc_pid_statm(5)`).
///
/// If a filter forbids the question, no limit is known. The system then refuses the mapping.
fn address_space_left(resource: Resource, name: &str) -> Option<MemoryLimit> {
    let maximum = resource_limit(resource).ok()?.current?;
    let field = if resource == Resource::As { 0 } else { 5 };
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(field)?.parse().ok()?;
    let used = pages * rustix::param::page_size() as u64;
    Some(limit(maximum.saturating_sub(used).saturating_sub(ADDRESS_RESERVE), name.to_owned()))
}

/// Returns a resource limit of this process.
///
/// `rustix::process::getrlimit` assumes that the call succeeds. A filter may forbid it (systemd's
/// `SystemCallFilter=~@resources` does), and the result would then be uninitialised.
///
/// # Errors
/// Fails if the system forbids the call.
pub fn resource_limit(resource: Resource) -> io::Result<Rlimit> {
    let mut answer = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call writes only to the structure, which outlives it.
    if unsafe { libc::getrlimit(resource as _, &raw mut answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = |bytes| (bytes != libc::RLIM_INFINITY).then_some(bytes);
    Ok(Rlimit { current: limit(answer.rlim_cur), maximum: limit(answer.rlim_max) })
}

/// A control group's directory and the names of its files.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    v2: bool,
}

impl Group {
    /// Returns the rest of the group's limit, if it has one. Its page cache can be evicted, so it
    /// does not count as used.
    fn left(&self) -> Option<MemoryLimit> {
        let (max, current, cache) = if self.v2 {
            ("memory.max", "memory.current", ["inactive_file ", "active_file "])
        } else {
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ["total_inactive_file ", "total_active_file "])
        };
        let number = |name: &str| fs::read_to_string(self.directory.join(name)).ok()?.trim().parse::<u64>().ok();
        // "max" (v2) is not a number. v1 writes a huge one, which is never the tightest.
        let maximum = number(max)?;
        let statistics = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        let cached = cache
            .iter()
            .filter_map(|key| statistics.lines().find_map(|line| line.strip_prefix(key))?.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        let used = number(current)?.saturating_sub(cached);
        Some(limit(maximum.saturating_sub(used), format!("the memory limit of cgroup {}", self.directory.display())))
    }
}

/// Returns the memory groups of this process, from its own to the root. A limit applies to all
/// groups below.
fn groups_with_limits(groups: &str, mounts: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|controller| controller == "memory") {
            continue;
        }
        let Some((root, mount)) = memory_mount(mounts, v2) else { continue };
        // In a container the mount may show only this group's subtree or another's. The mount
        // itself is then this group.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let mut directory = Path::new(mount).join(below);
        while directory.starts_with(mount) {
            found.push(Group { directory: directory.clone(), v2 });
            if !directory.pop() {
                break;
            }
        }
    }
    found
}

/// Returns the root and the mount point of the memory hierarchy in `/proc/self/mountinfo`.
fn memory_mount(mounts: &str, v2: bool) -> Option<(&str, &str)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let fits = if v2 { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == "memory") };
        let mut left = left.split(' ').skip(3);
        fits.then_some(())?;
        Some((left.next()?, left.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_walked_to_the_root() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      40 31 0:37 /pod /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        let found = groups_with_limits("4:memory:/a/b\n0::/pod/c\n", mounts);
        let paths: Vec<_> = found.iter().map(|group| (group.directory.to_str().expect("utf-8"), group.v2)).collect();
        assert_eq!(
            paths,
            [
                ("/sys/fs/cgroup/memory/a/b", false),
                ("/sys/fs/cgroup/memory/a", false),
                ("/sys/fs/cgroup/memory", false),
                ("/sys/fs/cgroup/unified/c", true),
                ("/sys/fs/cgroup/unified", true),
            ]
        );
    }

    #[test]
    fn a_groups_limit_counts_its_cache_as_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("writes");
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 300\ninactive_file 150\nactive_file 250\n");
        let group = Group { directory: folder.path().to_owned(), v2: true };
        assert_eq!(group.left().map(|limit| limit.available), Some(700));
        write("memory.max", "max\n");
        assert_eq!(group.left(), None);
    }

    #[cfg(not(miri))]
    #[test]
    fn limits_are_those_that_the_kernel_lists() {
        let list = fs::read_to_string("/proc/self/limits").expect("is there");
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

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no resource limits")]
    fn this_machine_has_memory() {
        assert!(memory_limit().available > 0);
    }
}
