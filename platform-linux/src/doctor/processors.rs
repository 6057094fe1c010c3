//! Checks the processors that this process may use, and the memory near them.

use super::{Finding, Status};
use crate::probe::cpus as usable;
use std::fs;

pub(super) fn cpus() -> Finding {
    const NAME: &str = "processors";
    let online = fs::read_to_string("/sys/devices/system/cpu/online").map(|text| list(&text).len()).unwrap_or(0);
    let allowed = allowed().len();
    let usable = usable();
    let mut found = format!("{usable} of {} online are usable", online.max(usable));
    if allowed > 0 && allowed < online {
        found += &format!("; affinity allows {allowed}");
    }
    if usable < allowed {
        found += &format!("; the control group's quota allows {usable}");
    }
    let meaning = "a load uses one ring or two threads per processor, for up to 8; they also fault in memory and copy cached bytes";
    if usable >= online {
        return Finding::new(NAME, Status::Good, found, meaning);
    }
    let remedy = "allow more by taskset, or by cpu.max of the control group (docker run --cpus)";
    Finding::new(NAME, Status::Limited, found, meaning).remedy(remedy)
}

pub(super) fn numa() -> Finding {
    const NAME: &str = "NUMA";
    let nodes = fs::read_to_string("/sys/devices/system/node/online").map(|text| list(&text)).unwrap_or_default();
    let allowed = allowed();
    let near = |node: &usize| {
        let text = fs::read_to_string(format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
        list(&text).iter().any(|cpu| allowed.contains(cpu))
    };
    let spanned: Vec<usize> = nodes.iter().copied().filter(near).collect();
    let found = match nodes.len() {
        0 => "the system reports no nodes".to_owned(),
        1 => "one node".to_owned(),
        n => format!("{n} nodes; the usable processors are on {}", spanned.len().max(1)),
    };
    if spanned.len() <= 1 {
        return Finding::new(NAME, Status::Good, found, "all memory is equally near to all usable processors");
    }
    let node = spanned[0];
    let meaning = "a load requests memory of its caller's node; a stream uses the node of the thread that reads, which may be far from the consumer";
    Finding::new(NAME, Status::Limited, found, meaning)
        .remedy(format!("numactl --cpunodebind={node} --membind={node}, with the node that uses the tensors"))
}

fn allowed() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Parses a list of the kernel such as `0-3,8`.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..=last.min(first.saturating_add(1 << 16)))
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(list("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(list("5"), [5]);
        assert!(list("\n").is_empty());
    }
}
