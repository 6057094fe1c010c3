//! Checks the path's file system: its kind, direct reads, reports of cached ranges, and the stored
//! profile of its device.

use super::subject::Subject;
use super::{Finding, Status};
use crate::file::LocalFile;
use crate::probe::device::Device;
use crate::probe::{FUSE, is_memory, profile as stored, residency};
use floodtide_core::storage::StorageFile;
use floodtide_core::to_usize;
use memmap2::MmapMut;
use std::os::unix::fs::FileExt;
use std::time::{Instant, SystemTime};

pub(super) fn file_system(subject: &Subject) -> Finding {
    const NAME: &str = "file system";
    let found = &subject.file_system;
    if is_memory(subject.on_it()) {
        let meaning = "its files are in memory already, so they are copied, or mapped on request";
        return Finding::new(NAME, Status::Good, found, meaning);
    }
    match found.as_str() {
        FUSE => Finding::new(
            NAME,
            Status::Limited,
            found,
            "a program answers each read, so threads make many at a time, and files are mapped only on request",
        ),
        _ if subject.network => Finding::new(
            NAME,
            Status::Limited,
            format!("{found}, on another machine"),
            "it answers slowly and in parallel: many reads are in flight, and files are mapped only on request",
        )
        .remedy("copy a checkpoint that is loaded more than once to a local disk"),
        "overlayfs" => Finding::new(
            NAME,
            Status::Good,
            found,
            "reads go to the layer that holds the file, so the features of that layer count",
        ),
        _ => Finding::new(NAME, Status::Good, format!("{found}, local"), "reads go to a device of this machine"),
    }
}

/// From the section "Loading" of `benches/RESULTS.md`, `std::fs::read` and auto; a cold page cache,
/// the larger model.
const BUFFERED_COST: &str = "cold files through the page cache (std::fs::read) gave 1.4 instead of 1.7 GiB/s from a virtual disk, 1.3 instead of 4.7 from zram (benches/RESULTS.md)";

pub(super) fn direct_reads(subject: &Subject) -> Finding {
    const NAME: &str = "direct reads";
    let file = match &subject.file {
        Ok(file) => file,
        Err(why) => {
            let meaning = "a load finds out whether direct reads work";
            return Finding::new(NAME, Status::Limited, format!("not tried: {why}"), meaning);
        }
    };
    if is_memory(file.buffered()) {
        let found = format!("{} does not support them", subject.file_system);
        let meaning = "its files are in memory, so there is no page cache to bypass and nothing is lost";
        return Finding::new(NAME, Status::Good, found, meaning);
    }
    match try_direct(file) {
        Ok(found) => {
            Finding::new(NAME, Status::Good, found, "cold files are read to their final address without a copy")
        }
        Err(found) => {
            let meaning = "reads are copied through the page cache, which fills with the checkpoint";
            let remedy = "keep the checkpoint on a file system that supports them: ext4, xfs, btrfs on a local disk";
            Finding::new(NAME, Status::Missing, found, meaning).cost(BUFFERED_COST).remedy(remedy)
        }
    }
}

/// Reads once by direct I/O. An open file and a reported alignment prove nothing.
fn try_direct(file: &LocalFile) -> Result<String, String> {
    let Some(limits) = file.direct_limits() else {
        return Err("the file system reports no alignment for them, or refuses to open the file for them".to_owned());
    };
    let (offset, memory) = (limits.offset.as_u64(), limits.memory.as_u64());
    let words = format!("offsets aligned to {offset} bytes, memory to {memory}");
    let bytes = to_usize(offset.max(4096));
    let mut buffer = MmapMut::map_anon(bytes).map_err(|error| format!("not tried: no memory ({error})"))?;
    match file.descriptor(true).read_at(&mut buffer, 0) {
        Ok(_) => Ok(format!("supported, with {words}")),
        Err(error) => Err(format!("refused ({error}), although the file opens for them; the system reports {words}")),
    }
}

pub(super) fn page_cache(subject: &Subject) -> Finding {
    const NAME: &str = "page cache";
    let file = match &subject.file {
        Ok(file) => file.buffered(),
        Err(why) => {
            let meaning = "a load finds out whether the system reports cached ranges";
            return Finding::new(NAME, Status::Limited, format!("not tried: {why}"), meaning);
        }
    };
    let methods = residency::methods(file);
    let started = Instant::now();
    let share = residency::resident_share(file);
    let took = format!("the query took {:.0} µs", started.elapsed().as_secs_f64() * 1e6);
    let state = |works: bool| if works { "works" } else { "refused" };
    let cachestat =
        methods.cachestat.map_or_else(|errno| format!("refused ({})", errno_name(errno)), |()| "works".into());
    let found =
        format!("cachestat {cachestat}, mincore {}, RWF_NOWAIT {}", state(methods.mincore), state(methods.nowait));
    let remedy = match methods.cachestat {
        Err(libc::ENOSYS) => "upgrade the kernel; 6.5 has cachestat. If the kernel is newer, a sandbox hides it",
        _ => "own the files or have write permission; the system reports cached ranges to no other user",
    };
    match (methods.cachestat, share) {
        (Ok(()), Some(_)) => {
            Finding::new(NAME, Status::Good, found, "cached ranges are copied, and the rest is read by direct I/O").cost(took)
        }
        (_, Some(_)) => {
            let meaning = "cached ranges are still found, page by page or by samples";
            Finding::new(NAME, Status::Limited, found, meaning).cost(took).remedy(remedy)
        }
        (_, None) => Finding::new(NAME, Status::Missing, found, "every file counts as cold and is read from the device")
            .cost("a cached checkpoint streamed at 12.5 GiB/s, and at 2.5 from its disk (benches/RESULTS.md, the build's disk)")
            .remedy(remedy),
    }
}

fn errno_name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        libc::EOPNOTSUPP => "EOPNOTSUPP".to_owned(),
        other => format!("error {other}"),
    }
}

pub(super) fn profile(subject: &Subject) -> Finding {
    const NAME: &str = "device profile";
    let none = "loads start with default sizes and adapt; a profile is optional";
    let device = match Device::of(subject.on_it()) {
        Ok(device) => device,
        Err(error) => return Finding::new(NAME, Status::Good, format!("none can be stored: {error}"), none),
    };
    match stored::find(&device) {
        Ok(Some(profile)) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let days = now.saturating_sub(profile.measured_at) / 86_400;
            let best = profile.reads.iter().map(|reads| reads.bytes_per_second).max().unwrap_or(0);
            let best = floodtide_core::HumanBytes(best);
            let found = format!("of {device}, measured {days} days ago, {best}/s at best");
            Finding::new(
                NAME,
                Status::Good,
                found,
                "loads from this device start with its read size and its number of reads in flight",
            )
        }
        Ok(None) => Finding::new(NAME, Status::Good, format!("none is stored for {device}"), none),
        Err(warning) => {
            Finding::new(NAME, Status::Limited, warning.to_string(), none).remedy("measure the device again")
        }
    }
}
