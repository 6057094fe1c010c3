//! Which device a file lies on: enough to find what was measured of it again, and to notice another one behind the same number.

use super::file_system;
use rustix::fs::FileType;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A device with a file system on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The number's first part; 0 for file systems without a block device.
    pub major: u32,
    /// The number's second part.
    pub minor: u32,
    /// The file system's name.
    pub file_system: String,
    /// The file system's UUID (`FS_IOC_GETFSUUID`, Linux 6.9), or else what `statfs(2)` calls `f_fsid`. Numbers are given anew when a
    /// disk is exchanged, these are not.
    pub identity: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}:{}", self.file_system, self.major, self.minor)
    }
}

impl Device {
    /// The device of an open file or folder; a few system calls, a few microseconds.
    ///
    /// # Errors
    /// When the system does not tell, or the file system has neither a UUID nor another identity: a profile of it could not be told from
    /// another's.
    pub fn of(file: &File) -> io::Result<Self> {
        let number = rustix::fs::fstat(file)?.st_dev;
        let identity = match uuid(file) {
            Some(uuid) => format!("uuid-{uuid}"),
            None => match rustix::fs::fstatvfs(file)?.f_fsid {
                0 => return Err(io::Error::other("its file system has no identity")),
                id => format!("fsid-{id:016x}"),
            },
        };
        let (file_system, _) = file_system(file);
        Ok(Self { major: rustix::fs::major(number), minor: rustix::fs::minor(number), file_system, identity })
    }

    /// A name of a file for what is known of it: letters, digits and dashes.
    pub(super) fn file_name(&self) -> String {
        let system: String = self.file_system.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("{system}-{}-{}-{}.json", self.major, self.minor, self.identity)
    }
}

/// `struct fsuuid2` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `FS_IOC_GETFSUUID`: `_IOR(0x15, 0, struct fsuuid2)`, as most architectures encode it; where the code means something else or
/// nothing (or the file is one that gives it to a driver), there is no UUID.
const GET_UUID: libc::Ioctl = 2 << 30 | (size_of::<FsUuid>() as libc::Ioctl) << 16 | 0x15 << 8;

fn uuid(file: &File) -> Option<String> {
    // A device's file would pass the request on to its driver.
    let kind = FileType::from_raw_mode(rustix::fs::fstat(file).ok()?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return None;
    }
    let mut answer = FsUuid::default();
    // SAFETY: the request writes at most the structure's size, which its code carries, to a structure that lives across the call.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), GET_UUID, &raw mut answer) };
    let uuid = answer.uuid.get(..usize::from(answer.len)).filter(|uuid| uuid.iter().any(|&byte| byte != 0))?;
    (code == 0).then(|| uuid.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_file_in_it_are_on_one_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let (Ok(folder), Ok(file)) = (
            Device::of(&File::open(folder.path()).expect("opens")),
            Device::of(&File::create(folder.path().join("file")).expect("creates")),
        ) else {
            return println!("skipped: the file system of temporary files has no identity");
        };
        assert_eq!(folder, file);
        assert!(folder.identity.len() > 6, "{folder:?}");
    }

    #[test]
    fn a_name_of_a_file_has_nothing_that_leads_elsewhere() {
        let device = Device {
            major: 254,
            minor: 1,
            file_system: "file system 0x../12".to_owned(),
            identity: "fsid-00ff".to_owned(),
        };
        assert_eq!(device.file_name(), "filesystem0x12-254-1-fsid-00ff.json");
    }
}
