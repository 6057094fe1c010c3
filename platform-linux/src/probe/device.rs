//! Identifies the device of a file, to find its stored profile and to detect another device with
//! the same number.

use super::file_system;
use rustix::fs::FileType;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A device with a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The major device number, 0 for file systems without a block device.
    pub major: u32,
    /// The minor device number.
    pub minor: u32,
    /// The name of the file system.
    pub file_system: String,
    /// The file system's UUID (`FS_IOC_GETFSUUID`, Linux 6.9), or `f_fsid` of `statfs(2)`.
    ///
    /// Device numbers are reused when a disk is replaced. These are not.
    pub identity: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}:{}", self.file_system, self.major, self.minor)
    }
}

impl Device {
    /// Identifies the device of an open file or folder, in a few microseconds.
    ///
    /// # Errors
    /// Fails if the system does not report the device, or the file system has neither a UUID nor
    /// another identity. Profiles could then be confused.
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

    /// Returns a file name for the stored profile: letters, digits and dashes.
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

/// `FS_IOC_GETFSUUID`: `_IOR(0x15, 0, struct fsuuid2)`, as most architectures encode it. Where the
/// code has another meaning or none, there is no UUID.
const GET_UUID: libc::Ioctl = 2 << 30 | (size_of::<FsUuid>() as libc::Ioctl) << 16 | 0x15 << 8;

fn uuid(file: &File) -> Option<String> {
    // A device file would pass the request to its driver.
    let kind = FileType::from_raw_mode(rustix::fs::fstat(file).ok()?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return None;
    }
    let mut answer = FsUuid::default();
    // SAFETY: the request writes at most the structure's size, which its code contains, to a
    // structure that outlives the call.
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
