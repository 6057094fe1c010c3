//! Checks the limits of this process: memory, locked memory, open files.

use super::subject::Subject;
use super::{Finding, Status};
use floodtide_core::HumanBytes;
use floodtide_memory::memory_limits;
use floodtide_memory::resource_limit;
use memmap2::MmapMut;
use rustix::process::Resource;
use std::fs;

/// The memory in bytes below which only small models fit.
const LOW_MEMORY_BYTES: u64 = 1 << 30;
const NO_LIMIT: u64 = 1 << 60;
/// The number of shards of the largest checkpoints, each with two descriptors.
const RECOMMENDED_OPEN_FILES: u64 = 2 * 512;

pub(super) fn memory(subject: &Subject) -> Finding {
    const NAME: &str = "memory";
    let mut limits = memory_limits();
    // Version 1 of control groups writes a huge number for no limit.
    limits.retain(|limit| limit.available < NO_LIMIT);
    limits.sort_by_key(|limit| limit.available);
    let Some(tightest) = limits.first() else {
        return Finding::new(
            NAME,
            Status::Limited,
            "the system does not report it",
            "loads are not refused for memory",
        );
    };
    let words: Vec<String> =
        limits.iter().take(4).map(|limit| format!("{} ({})", HumanBytes(limit.available), limit.limit)).collect();
    let found = format!(
        "{} available, {}",
        words[0],
        match &words[1..] {
            [] => "with no lower limit from a control group or ulimit".to_owned(),
            more => format!("then {}", more.join(", ")),
        }
    );
    let needed = subject.checkpoint.map_or(0, |(_, bytes)| bytes);
    let ulimit = |option| tightest.limit.contains(option);
    let remedy = format!(
        "stream or map the checkpoint, or load fewer tensors; or raise the tightest limit: {}",
        if tightest.limit.contains("cgroup") {
            "memory.max of the control group (docker run --memory)"
        } else if ulimit("ulimit -v") {
            "ulimit -v unlimited"
        } else if ulimit("ulimit -d") {
            "ulimit -d unlimited, LimitDATA=infinity for systemd"
        } else {
            "end other programs"
        }
    );
    if needed > tightest.available {
        let meaning = format!("the checkpoint's {} do not fit, so loading all of it is refused", HumanBytes(needed));
        return Finding::new(NAME, Status::Limited, found, meaning).remedy(remedy);
    }
    if tightest.available < LOW_MEMORY_BYTES {
        return Finding::new(NAME, Status::Limited, found, "only small checkpoints can be loaded whole").remedy(remedy);
    }
    let meaning = match subject.checkpoint {
        Some(_) => format!("the checkpoint's {} fit", HumanBytes(needed)),
        None => "checkpoints up to the tightest of these can be loaded whole".to_owned(),
    };
    Finding::new(NAME, Status::Good, found, meaning)
}

pub(super) fn locked_memory() -> Finding {
    const NAME: &str = "locked memory";
    let limit = resource_limit(Resource::Memlock).map(|limits| limits.current);
    let words = match &limit {
        Ok(None) => "no limit".to_owned(),
        Ok(Some(bytes)) => format!("a limit of {}", HumanBytes(*bytes)),
        Err(error) => format!("the system does not report the limit ({error})"),
    };
    let meaning = "a load that is locked in memory (mlock) stays there whole";
    if may_lock_anything() {
        return Finding::new(NAME, Status::Good, format!("{words}, which does not apply to this user"), meaning);
    }
    let remedy = "ulimit -l unlimited, LimitMEMLOCK=infinity for systemd, docker run --ulimit memlock=-1";
    let without = "only for loads that are locked";
    match (lock_a_page(), limit) {
        (Ok(()), Ok(None)) => Finding::new(NAME, Status::Good, words, meaning),
        (Ok(()), _) => Finding::new(
            NAME,
            Status::Limited,
            words,
            "loads up to this size are locked on request; larger ones warn that they are not; streams are locked up to it",
        )
        .cost(without)
        .remedy(remedy),
        (Err(error), _) => {
            Finding::new(NAME, Status::Missing, format!("{words}; {error}"), "a request to lock a load locks nothing and warns")
                .cost(without)
                .remedy(remedy)
        }
    }
}

/// Returns true if the process has `CAP_IPC_LOCK` of `linux/capability.h`, which lifts the limit.
fn may_lock_anything() -> bool {
    const IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).is_some_and(|set| set >> IPC_LOCK & 1 == 1)
}

fn lock_a_page() -> std::io::Result<()> {
    let page = MmapMut::map_anon(rustix::param::page_size())?;
    page.lock()?;
    page.unlock()
}

pub(super) fn open_files(subject: &Subject) -> Finding {
    const NAME: &str = "open files";
    let limits = match resource_limit(Resource::Nofile) {
        Ok(limits) => limits,
        Err(error) => {
            let found = format!("the system does not report the limit ({error})");
            let meaning = "the command cannot raise it either; each shard takes two descriptors";
            return Finding::new(NAME, Status::Limited, found, meaning)
                .remedy("a filter of system calls that allows prlimit64 (systemd's set @resources)");
        }
    };
    let Some(limit) = limits.maximum else {
        return Finding::new(NAME, Status::Good, "no limit", "a checkpoint of any number of shards can be opened");
    };
    let now = limits.current.map_or_else(|| "none now".to_owned(), |soft| format!("{soft} now"));
    let found = format!("a limit of {limit} ({now}; the command raises it if allowed)");
    // Reserve some for the program, its rings and its threads.
    let shards = limit.saturating_sub(32) / 2;
    let meaning = format!("each shard takes two descriptors, so checkpoints of up to {shards} shards can be loaded");
    let files = subject.checkpoint.map_or(0, |(files, _)| files as u64);
    let status = if limit < RECOMMENDED_OPEN_FILES || files > shards { Status::Limited } else { Status::Good };
    let finding = Finding::new(NAME, status, found, meaning);
    match status {
        Status::Good => finding,
        _ => finding.remedy("ulimit -Hn 65536 (as root), LimitNOFILE for systemd, docker run --ulimit nofile=65536"),
    }
}
