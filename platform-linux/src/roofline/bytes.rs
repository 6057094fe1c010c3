//! The data of a measurement: existing large files, or an unnamed temporary one.

use super::ProbeError;
use crate::file::LocalFile;
use crate::probe::{file_system, is_memory, resident_share};
use floodtide_core::storage::StorageFile;
use floodtide_core::{FileId, HumanBytes};
use floodtide_memory::sync::{AtomicU64, Ordering};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every read of a measurement lies in one such block of a file, so that no size meets an end.
pub(super) const BLOCK_BYTES: u64 = 16 << 20;
/// The number of bytes to read repeatedly. More would help against a device's own cache, but takes
/// longer to write.
pub(super) const TARGET_BYTES: u64 = 512 << 20;
/// The minimum size of a temporary file that is slow to write or has little space.
pub(super) const MIN_BYTES: u64 = 128 << 20;
/// The size of a write in bytes, small beside the memory of any control group.
const WRITE: usize = 1 << 20;
/// The number of bytes to leave free on the disk.
const RESERVE: u64 = 64 << 20;
/// The cached fraction up to which a file counts as cold.
const MAX_COLD_SHARE: f32 = 0.02;

/// Files to read from, block after block.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) files: Vec<Arc<LocalFile>>,
    /// The origin of the files, in words.
    pub(super) origin: String,
    /// Why buffered reads of cold files cannot be measured, if they cannot.
    pub(super) buffered_refused: Option<String>,
    /// The files' blocks.
    blocks: Vec<(FileId, u64)>,
    next: AtomicU64,
    /// The unnamed temporary file, kept open.
    _temporary: Option<File>,
}

impl Bytes {
    /// Uses existing files if they have enough bytes, otherwise a temporary one. Writing takes at
    /// most `patience`, or what the minimum needs.
    pub(super) fn find(
        folder: &Path,
        checkpoint: Option<Vec<PathBuf>>,
        target_bytes: u64,
        patience: Duration,
        on_step: &dyn Fn(&str),
    ) -> Result<Self, ProbeError> {
        let metadata = std::fs::metadata(folder).map_err(|source| ProbeError::folder(folder, source))?;
        if !metadata.is_dir() {
            return Err(ProbeError::NotAFolder { path: folder.to_owned() });
        }
        let handle = File::open(folder).map_err(|source| ProbeError::folder(folder, source))?;
        if is_memory(&handle) {
            return Err(ProbeError::MemoryFileSystem { path: folder.to_owned(), file_system: file_system(&handle).0 });
        }
        let Existing { cold, cached, home } = existing(folder, checkpoint, &handle);
        if total(&cold) >= target_bytes {
            let origin = format!("existing files of {}", HumanBytes(total(&cold)));
            return Ok(Self::new(cold, origin, None, None));
        }
        match write(&home, target_bytes, patience, on_step) {
            Ok((file, bytes)) => {
                let opened = reopen(&file).map_err(|source| ProbeError::folder(folder, source))?;
                let origin = format!("a temporary file of {}, removed afterwards", HumanBytes(bytes));
                Ok(Self::new(vec![Arc::new(opened)], origin, None, Some(file)))
            }
            // Nothing can be written, as on a read-only mount of models, but there are files to
            // read.
            Err(error) if total(&cold) + total(&cached) >= target_bytes => {
                let origin = format!(
                    "existing files of {}, part of which is in the page cache",
                    HumanBytes(total(&cold) + total(&cached))
                );
                let cause = match &error {
                    ProbeError::Write { source, .. } => source.to_string(),
                    _ => "there is no room for one".to_owned(),
                };
                let why =
                    format!("a measurement drops only the pages of its own file, and none could be written: {cause}");
                Ok(Self::new(cold.into_iter().chain(cached).collect(), origin, Some(why), None))
            }
            Err(error) => Err(error),
        }
    }

    fn new(
        files: Vec<Arc<LocalFile>>,
        origin: String,
        buffered_refused: Option<String>,
        temporary: Option<File>,
    ) -> Self {
        files.iter().for_each(|file| {
            // This opens the file for direct reads.
            let _ = file.direct_limits();
        });
        let blocks = files.iter().enumerate().flat_map(|(index, file)| {
            (0..file.len() / BLOCK_BYTES).map(move |block| (FileId::from_index(index), block * BLOCK_BYTES))
        });
        let blocks = blocks.collect();
        Self { files, origin, buffered_refused, blocks, next: AtomicU64::new(0), _temporary: temporary }
    }

    /// Returns the total number of bytes.
    pub(super) fn total(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES
    }

    /// Returns true if all files support direct reads.
    pub(super) fn takes_direct(&self) -> bool {
        self.files.iter().all(|file| file.direct_limits().is_some())
    }

    /// Starts a run of reads at the block that was read least recently.
    pub(super) fn begin(&self) {
        let next = self.next.load(Ordering::Relaxed).next_multiple_of(BLOCK_BYTES);
        self.next.store(next, Ordering::Relaxed);
    }

    /// Returns the location of the next read of `bytes` bytes, a power of two up to
    /// [`BLOCK_BYTES`].
    pub(super) fn next(&self, bytes: u64) -> (FileId, u64) {
        let at = self.next.fetch_add(bytes, Ordering::Relaxed);
        let (file, start) = self.blocks[(at / BLOCK_BYTES) as usize % self.blocks.len()];
        (file, start + at % BLOCK_BYTES)
    }

    /// Starts over, so that the same bytes are read again.
    pub(super) fn rewind(&self) {
        self.next.store(0, Ordering::Relaxed);
    }

    /// Drops what was read from the page cache. The files were cold before, so no other program
    /// loses anything.
    pub(super) fn drop_cache(&self) {
        for file in self.files.iter().filter(|_| self.buffered_refused.is_none()) {
            // If the advice is ignored, the summary reports what was still resident.
            let _ = rustix::fs::fadvise(file.buffered(), 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    /// Returns the largest cached fraction of a file, if known.
    pub(super) fn resident(&self) -> Option<f32> {
        self.files.iter().filter_map(|file| resident_share(file.buffered())).reduce(f32::max)
    }
}

fn total(files: &[Arc<LocalFile>]) -> u64 {
    files.iter().map(|file| file.len() / BLOCK_BYTES * BLOCK_BYTES).sum()
}

/// The existing files of a folder for measuring its device.
struct Existing {
    /// Large regular files on one device, links followed: the cold ones and the others.
    cold: Vec<Arc<LocalFile>>,
    cached: Vec<Arc<LocalFile>>,
    /// A folder on that device for a temporary file.
    home: PathBuf,
}

/// Finds files. A folder stands for its file system, a checkpoint for its files, which may be links
/// to another one.
fn existing(folder: &Path, checkpoint: Option<Vec<PathBuf>>, handle: &File) -> Existing {
    let (candidates, home) = match checkpoint {
        Some(files) => {
            let home = files.iter().find_map(|file| home_of(file)).unwrap_or_else(|| folder.to_owned());
            (files, home)
        }
        None => {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let there = |path: &PathBuf| File::open(path).is_ok_and(|file| same_file_system(&file, handle));
            (entries.filter(|path| path.is_file()).filter(there).collect(), folder.to_owned())
        }
    };
    let large = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok()?;
        (metadata.is_file() && metadata.len() >= 4 * BLOCK_BYTES).then_some((metadata.len(), path))
    };
    let mut paths: Vec<(u64, PathBuf)> = candidates.into_iter().filter_map(large).collect();
    // Sort by size and name, so that the same folder gives the same measurement.
    paths.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let on_a_device = |path: &Path| {
        LocalFile::open(path).ok().filter(|file| !is_memory(file.buffered()) && is_dense(file)).map(Arc::new)
    };
    let mut opened: Vec<Arc<LocalFile>> =
        paths.into_iter().filter_map(|(_, path)| on_a_device(&path)).take(64).collect();
    let device = opened.first().map(|file| file.device());
    opened.retain(|file| Some(file.device()) == device);
    let is_cold = |file: &Arc<LocalFile>| resident_share(file.buffered()).is_some_and(|share| share <= MAX_COLD_SHARE);
    let (cold, cached) = opened.into_iter().partition(is_cold);
    Existing { cold, cached, home }
}

/// Returns the real folder of a file, unless that is in memory.
fn home_of(file: &Path) -> Option<PathBuf> {
    let folder = std::fs::canonicalize(file).ok()?.parent()?.to_owned();
    File::open(&folder).is_ok_and(|folder| !is_memory(&folder)).then_some(folder)
}

/// Returns true if both have the same device number or, for overlays and subvolumes, the same file
/// system identity.
fn same_file_system(a: &File, b: &File) -> bool {
    let device = |file: &File| rustix::fs::fstat(file).map(|stat| stat.st_dev).ok();
    let identity = |file: &File| rustix::fs::fstatvfs(file).map(|answer| answer.f_fsid).ok().filter(|&id| id != 0);
    device(a).is_some_and(|number| Some(number) == device(b)) || identity(a).is_some_and(|id| Some(id) == identity(b))
}

/// Returns true if the file has no holes, which are not read from the device. Many file systems
/// without a device report no block counts.
fn is_dense(file: &LocalFile) -> bool {
    rustix::fs::seek(file.buffered(), rustix::fs::SeekFrom::Hole(0)).is_ok_and(|hole| hole >= file.len())
}

/// Writes an unnamed file of incompressible bytes. It disappears with this process, however that
/// ends.
fn write(
    folder: &Path,
    target_bytes: u64,
    patience: Duration,
    on_step: &dyn Fn(&str),
) -> Result<(File, u64), ProbeError> {
    let failed = |source| ProbeError::Write { path: folder.to_owned(), source };
    let disk = rustix::fs::statvfs(folder).map_err(|errno| failed(errno.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let no_space =
        || ProbeError::NoSpace { path: folder.to_owned(), needed: MIN_BYTES.min(target_bytes) + RESERVE, free };
    let target_bytes = that_fits(target_bytes, free).ok_or_else(no_space)?;
    // The file is unnamed from the start (O_TMPFILE), or unlinked at once where that is
    // unsupported.
    let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
    on_step(&format!(
        "there are too few uncached files here: writing up to {} to an unnamed temporary file, which disappears when \
         the measurement ends",
        HumanBytes(target_bytes)
    ));
    let started = Instant::now();
    let mut random = fastrand::Rng::new();
    let mut buffer = vec![0; WRITE];
    let mut written = 0;
    while written < target_bytes && (written < MIN_BYTES.min(target_bytes) || started.elapsed() < patience) {
        for _ in 0..BLOCK_BYTES / WRITE as u64 {
            random.fill(&mut buffer);
            file.write_all(&buffer).map_err(failed)?;
        }
        written += BLOCK_BYTES;
        // Write back continuously, so that the time includes the device and other programs do not
        // wait long.
        if written.is_multiple_of(4 * BLOCK_BYTES) {
            file.sync_data().map_err(failed)?;
        }
    }
    file.sync_all().map_err(failed)?;
    Ok((file, written))
}

/// How long a temporary file may be: the target, or what the disk has room for where that is enough
/// to measure with.
fn that_fits(target_bytes: u64, free: u64) -> Option<u64> {
    let room = free.saturating_sub(RESERVE) / BLOCK_BYTES * BLOCK_BYTES;
    (room >= MIN_BYTES.min(target_bytes)).then_some(target_bytes.min(room))
}

fn reopen(file: &File) -> std::io::Result<LocalFile> {
    LocalFile::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide_core::to_usize;

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    #[test]
    fn a_temporary_file_has_no_name_and_every_place_lies_in_it() {
        let folder = tempfile::tempdir_in(HERE).expect("a folder");
        let bytes = Bytes::find(folder.path(), None, 2 * BLOCK_BYTES, Duration::from_secs(5), &|_| {}).expect("room");
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
        assert_eq!(bytes.total(), 2 * BLOCK_BYTES);
        assert!(bytes.origin.contains("temporary"), "{}", bytes.origin);
        let places: Vec<u64> = (0..9).map(|_| bytes.next(4 << 20).1 >> 20).collect();
        assert_eq!(places, [0, 4, 8, 12, 16, 20, 24, 28, 0]);
        bytes.begin();
        assert_eq!(bytes.next(BLOCK_BYTES).1, BLOCK_BYTES);
        assert_eq!(bytes.next(BLOCK_BYTES).1, 0);
    }

    #[test]
    fn a_checkpoint_of_links_is_measured_where_its_files_are() {
        let [links, blobs] = [0, 1].map(|_| tempfile::tempdir_in(HERE).expect("a folder"));
        let blob = blobs.path().join("blob");
        let header = br#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        let content = [&(header.len() as u64).to_le_bytes()[..], header, &[7]].concat();
        std::fs::write(&blob, content).expect("writes");
        let link = links.path().join("model.safetensors");
        std::os::unix::fs::symlink(&blob, &link).expect("links");
        let home = |folder: &Path, files| existing(folder, files, &File::open(folder).expect("opens")).home;
        assert_eq!(home(links.path(), Some(vec![link])), blobs.path().canonicalize().expect("is there"));
        assert_eq!(home(blobs.path(), None), blobs.path(), "no checkpoint");
    }

    #[test]
    fn large_files_are_read_when_they_are_cold_and_their_cache_is_let_be_when_not() {
        let folder = tempfile::tempdir_in(HERE).expect("a folder");
        let path = folder.path().join("model.safetensors");
        let mut file = File::create(&path).expect("creates");
        file.write_all(&vec![1; to_usize(4 * BLOCK_BYTES)]).expect("writes");
        file.sync_all().expect("syncs");
        let find =
            || Bytes::find(folder.path(), None, 4 * BLOCK_BYTES, Duration::from_secs(5), &|_| {}).expect("bytes");
        assert!(find().origin.contains("temporary"), "the file is cached");
        assert_eq!(resident_share(&file), Some(1.0), "and stays so");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
        if resident_share(&file) != Some(0.0) {
            return println!("skipped: the page cache cannot be dropped here, or is not reported");
        }
        let bytes = find();
        assert!(bytes.origin.contains("existing") && bytes.buffered_refused.is_none(), "{}", bytes.origin);
        // Links to memory are on no device.
        let shared = Path::new("/dev/shm");
        if let Ok(file) = tempfile::NamedTempFile::new_in(shared)
            && is_memory(file.as_file())
        {
            file.as_file().write_all(&vec![1; to_usize(8 * BLOCK_BYTES)]).expect("writes");
            std::os::unix::fs::symlink(file.path(), folder.path().join("link")).expect("links");
            let Existing { cold, cached, .. } =
                existing(folder.path(), None, &File::open(folder.path()).expect("opens"));
            assert_eq!(cold.iter().chain(&cached).map(|file| file.len()).collect::<Vec<_>>(), [4 * BLOCK_BYTES]);
            std::fs::remove_file(folder.path().join("link")).expect("removes");
        }
        // Holes are not read from a device.
        drop(bytes);
        std::fs::remove_file(&path).expect("removes");
        File::create(&path).expect("creates").set_len(1 << 30).expect("grows");
        assert!(find().origin.contains("temporary"));
        // Neither are unwritten blocks, for example of a download that reserves space.
        let file = File::create(&path).expect("creates");
        if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4 * BLOCK_BYTES).is_ok() {
            assert!(find().origin.contains("temporary"));
        }
    }

    #[test]
    fn a_nearly_full_disk_gets_a_shorter_file() {
        assert_eq!(that_fits(TARGET_BYTES, u64::MAX), Some(TARGET_BYTES));
        assert_eq!(that_fits(TARGET_BYTES, TARGET_BYTES + RESERVE), Some(TARGET_BYTES));
        assert_eq!(that_fits(TARGET_BYTES, TARGET_BYTES + RESERVE - 1), Some(TARGET_BYTES - BLOCK_BYTES));
        assert_eq!(that_fits(TARGET_BYTES, MIN_BYTES + RESERVE), Some(MIN_BYTES));
        assert_eq!(that_fits(TARGET_BYTES, MIN_BYTES + RESERVE - 1), None);
        assert_eq!(that_fits(TARGET_BYTES, 0), None);
        assert_eq!(that_fits(2 * BLOCK_BYTES, 2 * BLOCK_BYTES + RESERVE), Some(2 * BLOCK_BYTES));
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let folder = tempfile::tempdir_in(HERE).expect("a folder");
        let find = |path: &Path, target_bytes| {
            Bytes::find(path, None, target_bytes, Duration::ZERO, &|_| {}).expect_err("refused").to_string()
        };
        let file = folder.path().join("file");
        std::fs::write(&file, "text").expect("writes");
        assert!(find(&file, BLOCK_BYTES).contains("folder"));
        assert!(find(&folder.path().join("missing"), BLOCK_BYTES).contains("missing"));
        let shared = Path::new("/dev/shm");
        if File::open(shared).is_ok_and(|folder| is_memory(&folder)) {
            assert!(find(shared, BLOCK_BYTES).contains("tmpfs is in memory"), "{}", find(shared, BLOCK_BYTES));
        }
    }
}
