//! Describes where a bench ran: processor, kernel, file system and device.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) kernel: String,
    pub(super) file_system: String,
    /// The device of the file system, with its model if known.
    pub(super) device: String,
    /// Whether free memory goes back to the host of this virtual machine, which makes allocating it
    /// again slow.
    pub(super) gives_memory_back: bool,
}

impl Machine {
    /// Describes the machine and the file system that `path` is on.
    pub(super) fn of(path: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (file_system, source) = mount_of(&mounts, &path).unwrap_or_default();
        let device = match model(&source) {
            Some(model) => format!("{source} ({model})"),
            None => source,
        };
        Self {
            cpu: cpu.map_or(std::env::consts::ARCH, |(_, model)| model.trim()).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system,
            device,
            gives_memory_back: fs::read_to_string("/sys/module/page_reporting/parameters/reported_kib")
                .is_ok_and(|kib| kib.trim() != "0"),
        }
    }

    /// Describes the storage in a few words.
    pub(super) fn storage(&self) -> String {
        match (self.file_system.as_str(), self.device.as_str()) {
            ("", _) => "an unknown file system".to_owned(),
            (file_system, device) if device.is_empty() || device == file_system || device == "none" => {
                file_system.to_owned()
            }
            (file_system, device) => format!("{file_system} on {device}"),
        }
    }

    pub(super) fn processor(&self) -> String {
        format!("{}, {}", self.cpu, crate::output::count(self.cpus, "CPU"))
    }
}

/// Returns the type and the source of the mount that holds `path`, see `proc_pid_mountinfo(5)`. The
/// longest mount point counts, and the last of those that hide one another.
fn mount_of(mountinfo: &[u8], path: &Path) -> Option<(String, String)> {
    let mounts = mountinfo.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let point = unescape(fields.nth(4)?);
        let mut after = fields.skip_while(|field| *field != b"-").skip(1);
        let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
        Some((point, text(after.next()?), text(after.next()?)))
    });
    let holds = |point: &[u8]| path.starts_with(Path::new(OsStr::from_bytes(point)));
    let mount = mounts.filter(|(point, ..)| holds(point)).max_by_key(|(point, ..)| point.len())?;
    Some((mount.1, mount.2))
}

/// Decodes spaces and the like, which are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = (*first == b'\\').then(|| std::str::from_utf8(tail.get(..3)?).ok()).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => (bytes, rest) = ([bytes, vec![byte]].concat(), &tail[3..]),
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Returns the model of a block device. A partition has the model of its disk.
fn model(source: &str) -> Option<String> {
    let name = Path::new(source).canonicalize().ok()?;
    let folder = Path::new("/sys/class/block").join(name.file_name()?).canonicalize().ok()?;
    let read = |folder: &Path| fs::read_to_string(folder.join("device/model")).ok();
    let model = read(&folder).or_else(|| read(folder.parent()?))?;
    Some(model.trim().to_owned()).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_the_innermost_mount() {
        let mountinfo = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            30 22 0:5 / /mnt rw shared:1 master:2 - tmpfs none rw\n\
            31 30 8:1 / /mnt/a\\040b rw - xfs /dev/sda1 rw\nbroken\n";
        let mount = |path: &str| mount_of(mountinfo, Path::new(path)).map(|(kind, source)| format!("{kind} {source}"));
        assert_eq!(mount("/home/x").as_deref(), Some("ext4 /dev/vda"));
        assert_eq!(mount("/mnt/x").as_deref(), Some("tmpfs none"));
        assert_eq!(mount("/mnt/a b/c").as_deref(), Some("xfs /dev/sda1"));
        assert_eq!(mount_of(b"", Path::new("/")), None);
    }
}
