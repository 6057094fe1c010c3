//! Disks to measure on: a fast one in memory, which separates loaders as an NVMe array does, and
//! the build's own.

use crate::tools::{run, target, works};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A folder for checkpoints. Dropping it deletes them.
pub(super) enum Disk {
    /// ext4 on a compressed block device in memory.
    Zram { device: String, mount: PathBuf },
    /// A folder beside the build's output.
    Ordinary(PathBuf),
}

impl Disk {
    /// Makes a zram device with an ext4 file system.
    ///
    /// # Errors
    /// Returns an error without root, without the kernel's zram, or without memory for the
    /// contents.
    pub(super) fn zram(bytes: u64) -> Result<Self, String> {
        if !works(Command::new("sh").args(["-c", "[ $(id -u) = 0 ]"])) {
            return Err("it needs root".to_owned());
        }
        let mount = target().join("bench/zram");
        clear_up(&mount);
        let free = |device: &str| {
            let size = fs::read_to_string(format!("/sys/block/{device}/disksize"));
            size.is_ok_and(|size| size.trim() == "0")
        };
        // A device in use belongs to someone else.
        let device = (0..4).map(|i| format!("zram{i}")).find(|device| free(device));
        let device = device.ok_or("the kernel has no free zram device (modprobe zram)")?;
        fs::create_dir_all(&mount).map_err(|error| format!("{}: {error}", mount.display()))?;
        let disk = Self::Zram { device: device.clone(), mount: mount.clone() };
        fs::write(format!("/sys/block/{device}/disksize"), bytes.to_string())
            .map_err(|error| format!("cannot set the size of {device}: {error}"))?;
        run(Command::new("mkfs.ext4").arg("-q").arg(format!("/dev/{device}")))?;
        run(Command::new("mount").arg(format!("/dev/{device}")).arg(&mount))?;
        Ok(disk)
    }

    /// Makes a folder beside the build's output.
    pub(super) fn ordinary() -> Result<Self, String> {
        let folder = target().join("bench/disk");
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self::Ordinary(folder))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Zram { mount, .. } => mount,
            Self::Ordinary(folder) => folder,
        }
    }

    /// Returns the name with the file system and the device.
    pub(super) fn describe(&self) -> String {
        let Self::Ordinary(folder) = self else { return self.name().to_owned() };
        let mut find = Command::new("findmnt");
        let found = find.args(["-n", "-o", "FSTYPE,SOURCE", "--target"]).arg(folder).output();
        let found = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        match found.split_whitespace().collect::<Vec<_>>()[..] {
            [file_system, device] => format!("{} ({file_system} on {device})", self.name()),
            _ => self.name().to_owned(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Zram { .. } => "ext4 on zram",
            Self::Ordinary(_) => "the build's disk",
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match self {
            Self::Zram { device, mount } => release(device, mount),
            Self::Ordinary(folder) => _ = fs::remove_dir_all(folder),
        }
    }
}

/// Unmounts and resets a zram device.
fn release(device: &str, mount: &Path) {
    // A process that has just read from it may still hold it.
    for _ in 0..50 {
        if works(Command::new("umount").arg(mount)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = fs::write(format!("/sys/block/{device}/reset"), "1");
}

/// Releases the device that a killed run left mounted. Nothing else uses this mount point.
fn clear_up(mount: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let at = mount.to_string_lossy();
    let device =
        mounts.lines().find_map(|line| line.split_once(' ').filter(|(_, rest)| rest.starts_with(&format!("{at} "))));
    if let Some(device) = device.and_then(|(device, _)| device.strip_prefix("/dev/zram")) {
        release(&format!("zram{device}"), mount);
    }
}

/// Drops a folder's files from the page cache: all caches where the process may, else file by file.
pub(super) fn drop_cache(folder: &Path) -> Result<(), String> {
    run(&mut Command::new("sync"))?;
    if fs::write("/proc/sys/vm/drop_caches", "3").is_ok() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        run(Command::new("dd").arg(format!("of={}", entry.path().display())).args([
            "oflag=nocache",
            "conv=notrunc,fdatasync",
            "count=0",
            "status=none",
        ]))?;
    }
    Ok(())
}

/// Reads a folder's files into the page cache.
pub(super) fn warm_cache(folder: &Path) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        let mut file = fs::File::open(entry.path()).map_err(|error| error.to_string())?;
        std::io::copy(&mut file, &mut std::io::sink()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Reports whether this machine returns free memory to a host, which makes it slow to use again.
pub(super) fn reclaims_memory() -> bool {
    let reported = fs::read_to_string("/sys/module/page_reporting/parameters/reported_kib");
    reported.is_ok_and(|kib| kib.trim() != "0")
}
