//! Reports how much of a file is in the page cache, without changing it.

use floodtide_core::storage::Residency;
use floodtide_core::{ByteRange, to_usize};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// `struct cachestat_range` and `struct cachestat` of `linux/mman.h`.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cache: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// The number of the system call, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
/// The number of sampled places in a file if the kernel reports nothing else.
const SAMPLES: u64 = 32;

/// The minimum length of a window in bytes, and the maximum number of windows per file.
const WINDOW: u64 = 1 << 20;
const MAX_WINDOWS: u64 = 1 << 14;

/// Returns the fraction of the file in the page cache, 0 to 1, or `None` if unknown.
///
/// ```no_run
/// use floodtide_linux::probe::resident_share;
/// use std::fs::File;
///
/// match resident_share(&File::open("model.safetensors")?) {
///     Some(share) => println!("{:.0} % is in the page cache", share * 100.0),
///     None => println!("unknown"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn resident_share(file: &File) -> Option<f32> {
    look(file, false).share
}

/// Returns the ranges of the file in the page cache.
///
/// `cachestat(2)` (Linux 6.5) answers quickly, but refuses files that the caller neither owns nor
/// may write. Older kernels have `mincore(2)`, which reports every page of such files as resident,
/// so it is used only for own files. Otherwise non-waiting reads (`RWF_NOWAIT`) sample the file,
/// which yields only the fraction.
#[must_use]
pub fn residency(file: &File) -> Residency {
    look(file, true)
}

fn look(file: &File, ranges_too: bool) -> Residency {
    let Ok(metadata) = file.metadata() else { return Residency::default() };
    let bytes = metadata.len();
    if bytes == 0 {
        return Residency { share: Some(1.0), ranges: Vec::new() };
    }
    match cached_pages(file, 0, 0) {
        Ok(pages) => {
            let total = pages_of(bytes);
            let ask = |start, len| cached_pages(file, start, len).is_ok_and(|cached| cached >= pages_of(len));
            let ranges = if ranges_too && pages > 0 && pages < total { windows(bytes, ask) } else { Vec::new() };
            Residency { share: Some((pages as f32 / total as f32).min(1.0)), ranges }
        }
        Err(libc::ENOSYS) if owns(&metadata) => mapped(file, bytes).unwrap_or_default(),
        Err(_) => Residency { share: sampled_share(file, bytes), ranges: Vec::new() },
    }
}

/// Which methods work for a file.
pub(crate) struct ResidencyMethods {
    /// The result of `cachestat`, or the error number.
    pub(crate) cachestat: Result<(), i32>,
    /// False for files of others, which `mincore` reports as resident.
    pub(crate) mincore: bool,
    pub(crate) nowait: bool,
}

pub(crate) fn methods(file: &File) -> ResidencyMethods {
    let bytes = file.metadata().map_or(0, |metadata| metadata.len()).max(1);
    let own = file.metadata().is_ok_and(|metadata| owns(&metadata));
    // Map only as much of a large file as shows that it works.
    let mincore = own && mapped(file, bytes.min(1 << 20)).is_some();
    ResidencyMethods {
        cachestat: cached_pages(file, 0, 0).map(|_| ()),
        mincore,
        nowait: sampled_share(file, bytes).is_some(),
    }
}

fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(rustix::param::page_size() as u64)
}

/// Returns the windows of a file that are entirely cached, by start and length, with adjacent ones
/// joined.
fn windows(bytes: u64, cached: impl Fn(u64, u64) -> bool) -> Vec<ByteRange> {
    let window = WINDOW.max((bytes / MAX_WINDOWS).next_power_of_two());
    let mut ranges: Vec<ByteRange> = Vec::new();
    let mut start = 0;
    while start < bytes {
        let end = (start + window).min(bytes);
        if cached(start, end - start) {
            let from = ranges.pop_if(|last| last.end() == start).map_or(start, ByteRange::start);
            ranges.extend(ByteRange::new(from, end));
        }
        start = end;
    }
    ranges
}

/// Returns the number of cached pages in `bytes` bytes at `offset`, or in the whole file if `bytes`
/// is 0.
fn cached_pages(file: &File, offset: u64, bytes: u64) -> Result<u64, i32> {
    let range = Range { offset, len: bytes };
    let mut answer = CacheStat::default();
    // SAFETY: both structures have the kernel's layout and outlive the call.
    let code = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut answer, 0) };
    if code == 0 { Ok(answer.cache) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) }
}

fn owns(metadata: &std::fs::Metadata) -> bool {
    let user = rustix::process::geteuid();
    user.is_root() || user.as_raw() == metadata.uid()
}

fn mapped(file: &File, bytes: u64) -> Option<Residency> {
    // The file may have grown since its length was read.
    let len = usize::try_from(bytes).ok()?;
    // SAFETY: the mapping is never read. `mincore` only asks about it.
    let map = unsafe { memmap2::MmapOptions::new().len(len).map(file) }.ok()?;
    let page = rustix::param::page_size() as u64;
    let mut pages = vec![0_u8; usize::try_from(pages_of(bytes)).ok()?];
    // SAFETY: the range is the mapping's, which is `bytes` long, and `pages` has a byte for each of
    // its pages.
    let code = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
    if code != 0 {
        return None;
    }
    let cached = pages.iter().filter(|&&page| page & 1 == 1).count();
    let whole = |start: u64, len: u64| {
        let first = to_usize(start / page);
        pages[first..first + to_usize(pages_of(len))].iter().all(|page| page & 1 == 1)
    };
    let ranges = if cached > 0 && cached < pages.len() { windows(bytes, whole) } else { Vec::new() };
    Some(Residency { share: Some(cached as f32 / pages.len() as f32), ranges })
}

/// Reads a byte from each of [`SAMPLES`] equal parts of the file, without waiting for the disk.
///
/// A miss makes the kernel read ahead, so a sampled place is cached a moment later. A separate
/// descriptor with `POSIX_FADV_RANDOM` limits that to one page per miss. The places differ each
/// time, so that no sample hits a page that an earlier one fetched.
fn sampled_share(file: &File, bytes: u64) -> Option<f32> {
    let own = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .ok()?;
    rustix::fs::fadvise(&own, 0, None, rustix::fs::Advice::Random).ok()?;
    let random = RandomState::new();
    let part = (bytes / SAMPLES).max(1);
    let mut hits = 0;
    for sample in 0..SAMPLES {
        let offset = (part * sample + random.hash_one(sample) % part).min(bytes - 1);
        let mut byte = [0_u8; 1];
        let slices = &mut [std::io::IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(&own, slices, offset, rustix::io::ReadWriteFlags::NOWAIT) {
            Ok(_) => hits += 1,
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    Some(hits as f32 / SAMPLES as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_three_ways_agree_on_a_file_that_was_just_written() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![1; 1 << 20]).expect("writes");
        for residency in [residency(&file), mapped(&file, 1 << 20).expect("tells")] {
            assert_eq!(residency, Residency { share: Some(1.0), ranges: Vec::new() });
        }
        // Some file systems do not support reads that must not wait.
        if let Some(share) = sampled_share(&file, 1 << 20) {
            assert!(share > 0.9);
        }
    }

    #[test]
    fn sampling_a_cold_file_does_not_make_it_look_cached() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        let bytes = 64 << 20;
        file.write_all(&vec![1; bytes]).expect("writes");
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
        if cached_pages(&file, 0, 0) != Ok(0) {
            return println!("skipped: the page cache cannot be dropped here, or is not reported");
        }
        for _ in 0..3 {
            let Some(share) = sampled_share(&file, bytes as u64) else {
                return println!("skipped: no RWF_NOWAIT here");
            };
            assert!(share < 0.1, "{share}");
            // Reads that the misses started may complete before the next look.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let brought_in = cached_pages(&file, 0, 0).expect("it told before");
        assert!(brought_in <= 3 * SAMPLES, "{brought_in} pages");
    }

    #[test]
    fn what_is_cached_of_a_part_is_found() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        let bytes = (8 << 20) + 5000;
        file.write_all(&vec![1; bytes]).expect("writes");
        file.sync_all().expect("syncs");
        let third = std::num::NonZeroU64::new(3 << 20);
        rustix::fs::fadvise(&file, 2 << 20, third, rustix::fs::Advice::DontNeed).expect("advises");
        if cached_pages(&file, 2 << 20, 3 << 20) != Ok(0) {
            return println!("skipped: the page cache cannot be dropped here, or does not tell");
        }
        let range = |start, end| ByteRange::new(start, end).expect("forwards");
        let expected = vec![range(0, 2 << 20), range(5 << 20, bytes as u64)];
        for found in [residency(&file), mapped(&file, bytes as u64).expect("tells")] {
            assert_eq!(found.ranges, expected);
            assert!(found.share.is_some_and(|share| (0.5..0.9).contains(&share)), "{found:?}");
        }
        assert_eq!(resident_share(&file), residency(&file).share);
    }

    #[test]
    fn a_huge_file_is_asked_about_in_few_windows() {
        let asked = std::cell::Cell::new(0_u64);
        let ranges = windows(1 << 40, |start, _| {
            asked.set(asked.get() + 1);
            start >= 1 << 39
        });
        assert!(asked.get() <= MAX_WINDOWS, "{}", asked.get());
        assert_eq!(ranges, [ByteRange::new(1 << 39, 1 << 40).expect("forwards")]);
    }

    #[test]
    fn a_dropped_file_is_not_resident() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        file.write_all(&vec![1; 1 << 20]).expect("writes");
        file.sync_all().expect("syncs");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
        let (_, network) = super::super::file_system(&file);
        if let (Some(share), false) = (resident_share(&file), network) {
            // tmpfs keeps everything. A disk's file is no longer cached.
            assert!(share < 0.5 || super::super::direct_limits(&file).is_none(), "{share}");
        }
    }
}
