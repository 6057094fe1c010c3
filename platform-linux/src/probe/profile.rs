//! The stored profile of a device, as `floodtide probe --store` writes it.
//!
//! A profile is a small JSON document in the user's cache folder. A load finds it by the device's
//! name in microseconds.
//!
//! ```json
//! {
//!   "version": 1,
//!   "device": { "major": 254, "minor": 0, "file_system": "ext4", "identity": "uuid-0123456789abcdef0123456789abcdef" },
//!   "measured_at": 1795000000,
//!   "reads": [
//!     { "ring": true, "direct": true, "chunk_bytes": 1048576, "in_flight": 8, "bytes_per_second": 3400000000 }
//!   ],
//!   "memory": { "copy": 11000000000, "fault_huge": 9000000000, "fault_small": 1500000000 }
//! }
//! ```
//!
//! Every member except `memory` is required. Unknown ones are ignored. `measured_at` is in seconds
//! since 1970. `reads` holds at most one entry for each kind (`ring` or threads, `direct` or
//! through a cold page cache): the best one. `memory` is in bytes per second.
//!
//! The folder is `$XDG_CACHE_HOME/floodtide`, else `~/.cache/floodtide`. A load without access to a
//! profile continues without one. A document that is malformed, of another version or of another
//! device is ignored with a warning.

use super::device::Device;
use floodtide_core::strategy::{BestReads, Profile};
use floodtide_core::{Escaped, Warning};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of the document that this crate reads and writes.
pub const VERSION: u32 = 1;
/// The maximum size of a document in bytes. A valid one has a few hundred.
const MAX_BYTES: u64 = 64 << 10;
/// The range of read sizes in bytes that a load supports.
const CHUNKS: std::ops::RangeInclusive<u64> = 4096..=64 << 20;
const IN_FLIGHT: std::ops::RangeInclusive<usize> = 1..=1024;

/// The stored profile of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredProfile {
    /// The device.
    pub device: Device,
    /// The time of the measurement in seconds since 1970.
    pub measured_at: u64,
    /// The best reads of each measured kind.
    pub reads: Vec<BestReads>,
    /// The measured rates of memory.
    pub memory: Option<MemoryRates>,
}

/// The rates of memory in bytes per second, with all processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRates {
    /// Copies from the page cache to existing huge pages.
    pub copy: u64,
    /// First touches of new memory with huge pages requested.
    pub fault_huge: u64,
    /// First touches of new memory in pages of the usual size.
    pub fault_small: u64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    device: DeviceKey,
    measured_at: u64,
    reads: Vec<Reads>,
    memory: Option<MemoryRates>,
}

#[derive(Serialize, Deserialize)]
struct DeviceKey {
    major: u32,
    minor: u32,
    file_system: String,
    identity: String,
}

#[derive(Serialize, Deserialize)]
struct Reads {
    ring: bool,
    direct: bool,
    chunk_bytes: u64,
    in_flight: usize,
    bytes_per_second: u64,
}

/// A document of any version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl StoredProfile {
    /// Returns the profile for the strategy.
    #[must_use]
    pub fn signals(&self) -> Profile {
        Profile { device: self.device.to_string(), best: self.reads.clone() }
    }

    fn to_json(&self) -> io::Result<Vec<u8>> {
        let Device { major, minor, file_system, identity } = self.device.clone();
        let read = |reads: &BestReads| {
            let &BestReads { ring, direct, chunk_bytes, in_flight, bytes_per_second } = reads;
            Reads { ring, direct, chunk_bytes, in_flight, bytes_per_second }
        };
        let document = Document {
            version: VERSION,
            device: DeviceKey { major, minor, file_system, identity },
            measured_at: self.measured_at,
            reads: self.reads.iter().map(read).collect(),
            memory: self.memory,
        };
        let mut json = serde_json::to_vec_pretty(&document).map_err(io::Error::other)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Parses a document, or returns what is wrong with it.
    fn from_json(json: &[u8]) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| format!("it is not a stored profile ({error})");
        let Versioned { version } = serde_json::from_slice(json).map_err(wrong)?;
        if version != VERSION {
            return Err(format!("it is of version {version}, and this program supports version {VERSION}"));
        }
        let Document { device, measured_at, reads, memory, .. } = serde_json::from_slice(json).map_err(wrong)?;
        let sensible = |reads: &&Reads| {
            CHUNKS.contains(&reads.chunk_bytes)
                && reads.chunk_bytes.is_multiple_of(4096)
                && IN_FLIGHT.contains(&reads.in_flight)
                && reads.bytes_per_second > 0
        };
        if let Some(odd) = reads.iter().find(|reads| !sensible(reads)) {
            let (bytes, in_flight) = (odd.chunk_bytes, odd.in_flight);
            return Err(format!("reads of {bytes} bytes, {in_flight} in flight, cannot have been measured"));
        }
        let best = |reads: Reads| {
            let Reads { ring, direct, chunk_bytes, in_flight, bytes_per_second } = reads;
            BestReads { ring, direct, chunk_bytes, in_flight, bytes_per_second }
        };
        let DeviceKey { major, minor, file_system, identity } = device;
        let device = Device { major, minor, file_system, identity };
        Ok(Self { device, measured_at, reads: reads.into_iter().map(best).collect(), memory })
    }
}

/// Returns the folder of the profiles, if the environment names one.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    folder_from(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
}

/// Follows the XDG Base Directory Specification: relative paths are ignored.
fn folder_from(cache: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let cache = cache.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))?;
    Some(cache.join("floodtide"))
}

/// Returns the profile of a device, if a usable one is stored.
///
/// # Errors
/// Returns a warning if the stored profile is unusable. A missing profile or an inaccessible folder
/// is not an error.
pub fn find(device: &Device) -> Result<Option<StoredProfile>, Warning> {
    match folder() {
        Some(folder) => find_in(&folder, device),
        None => Ok(None),
    }
}

fn find_in(folder: &Path, device: &Device) -> Result<Option<StoredProfile>, Warning> {
    let path = folder.join(device.file_name());
    // This never waits for the writer of a FIFO.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let Ok(file) = File::options().read(true).custom_flags(flags).open(&path) else { return Ok(None) };
    let ignored =
        |why: &str| Warning::ProfileIgnored { path: path.to_string_lossy().into_owned(), why: why.to_owned() };
    let mut json = Vec::new();
    match file.take(MAX_BYTES + 1).read_to_end(&mut json) {
        Ok(_) if json.len() as u64 > MAX_BYTES => return Err(ignored("it is longer than any profile")),
        Ok(_) => {}
        Err(error) => return Err(ignored(&format!("it cannot be read ({error})"))),
    }
    match StoredProfile::from_json(&json) {
        Ok(profile) if profile.device == *device => Ok(Some(profile)),
        Ok(_) => Err(ignored("it is of another device")),
        Err(why) => Err(ignored(&why)),
    }
}

/// Stores a profile, atomically replacing an older one. Returns its path.
///
/// # Errors
/// Fails if there is no folder or it cannot be written to. The message names the folder and what to
/// do.
pub fn store(profile: &StoredProfile) -> io::Result<PathBuf> {
    let folder = folder().ok_or_else(|| {
        let why =
            "neither XDG_CACHE_HOME nor HOME names a folder (an absolute path); set XDG_CACHE_HOME to a writable one";
        io::Error::new(io::ErrorKind::NotFound, why)
    })?;
    store_in(&folder, profile).map_err(|error| {
        let folder = folder.to_string_lossy();
        let advice = "make it writable, or set XDG_CACHE_HOME to another folder";
        io::Error::new(error.kind(), format!("{}: {error}; {advice}", Escaped(&folder)))
    })
}

fn store_in(folder: &Path, profile: &StoredProfile) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(profile.device.file_name());
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    // Its own errors name a temporary file.
    file.as_file_mut().write_all(&profile.to_json()?)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn profile() -> StoredProfile {
        StoredProfile {
            device: Device {
                major: 254,
                minor: 0,
                file_system: "ext4".to_owned(),
                identity: "uuid-0123456789abcdef".to_owned(),
            },
            measured_at: 1_795_000_000,
            reads: vec![BestReads {
                ring: true,
                direct: true,
                chunk_bytes: 1 << 20,
                in_flight: 8,
                bytes_per_second: 3 << 30,
            }],
            memory: Some(MemoryRates { copy: 1, fault_huge: 2, fault_small: 3 }),
        }
    }

    #[test]
    fn what_is_stored_is_found_again_by_its_device_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("new/floodtide");
        let profile = profile();
        let path = store_in(&folder, &profile).expect("stores");
        let newer = StoredProfile { measured_at: 1_795_000_001, memory: None, ..profile.clone() };
        assert_eq!(store_in(&folder, &newer).expect("stores"), path);
        assert_eq!(find_in(&folder, &profile.device), Ok(Some(newer)));
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), 1, "nothing is left beside it");
        for device in [
            Device { minor: 1, ..profile.device.clone() },
            Device { identity: "uuid-another".to_owned(), ..profile.device.clone() },
            Device { file_system: "xfs".to_owned(), ..profile.device.clone() },
        ] {
            assert_eq!(find_in(&folder, &device), Ok(None));
        }
    }

    #[test]
    fn looking_for_one_takes_no_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let profile = profile();
        let look = |device: &Device| {
            let mut times: Vec<_> = (0..101)
                .map(|_| {
                    let started = std::time::Instant::now();
                    let found = find_in(folder.path(), device);
                    (started.elapsed(), found.expect("nothing is wrong with it")).0
                })
                .collect();
            times.sort_unstable();
            times[50]
        };
        let missing = look(&profile.device);
        store_in(folder.path(), &profile).expect("stores");
        let there = look(&profile.device);
        println!("median: {missing:?} without one, {there:?} with one");
        assert!(missing.max(there) < std::time::Duration::from_millis(1), "{missing:?}, {there:?}");
    }

    #[test]
    fn what_cannot_be_used_is_ignored_with_a_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let profile = profile();
        let good = String::from_utf8(profile.to_json().expect("serializes")).expect("UTF-8");
        let path = folder.path().join(profile.device.file_name());
        for (text, words) in [
            (String::new(), "not a stored profile"),
            ("[]".to_owned(), "not a stored profile"),
            (good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            (good.replace("\"in_flight\": 8", "\"in_flight\": 0"), "cannot have been measured"),
            (good.replace("\"chunk_bytes\": 1048576", "\"chunk_bytes\": 1048577"), "cannot have been measured"),
            (good.replace("\"chunk_bytes\": 1048576", "\"chunk_bytes\": 1e300"), "not a stored profile"),
            (good.replace("\"minor\": 0", "\"minor\": 7"), "another device"),
            (good.replace("\"reads\"", "\"writes\""), "not a stored profile"),
            (" ".repeat(100_000), "longer than any profile"),
        ] {
            assert_ne!(text, good);
            fs::write(&path, &text).expect("writes");
            let Err(Warning::ProfileIgnored { why, .. }) = find_in(folder.path(), &profile.device) else {
                panic!("{words}");
            };
            assert!(why.contains(words), "{why}");
        }
        fs::remove_file(&path).expect("removes");
        fs::create_dir(&path).expect("makes");
        let warning = find_in(folder.path(), &profile.device).expect_err("a folder").to_string();
        assert!(warning.contains("the profile is ignored: it cannot be read"), "{warning}");
    }

    #[test]
    fn no_folder_is_no_profile() {
        let missing = Path::new("/nowhere/at/all");
        assert_eq!(find_in(missing, &profile().device), Ok(None));
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(folder_from(None, None), None);
        assert_eq!(folder_from(os("relative"), os("")), None);
        assert_eq!(folder_from(os("relative"), os("/home/a")), Some(PathBuf::from("/home/a/.cache/floodtide")));
        assert_eq!(folder_from(os("/cache"), os("/home/a")), Some(PathBuf::from("/cache/floodtide")));
    }
}
