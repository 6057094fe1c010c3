//! Checks whether the output fits on its disk.

use super::output_path::OutputPath;
use crate::error::{Error, OutputError};

/// Files take whole blocks. Folders and file system metadata take some space too.
const BLOCK: u64 = 4096;
const RESERVE: u64 = 256 << 10;

/// Fails if files of these lengths do not fit on the disk. If the file system does not report its
/// free space, this succeeds, and creating the files finds out.
pub(super) fn check(output: &OutputPath, files: impl Iterator<Item = u64>) -> Result<(), Error> {
    let Ok(disk) = rustix::fs::fstatvfs(&output.parent_file) else { return Ok(()) };
    let available = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = needed(files);
    if disk.f_blocks == 0 || needed <= available {
        return Ok(());
    }
    Err(OutputError::NoRoom { path: output.parent.clone(), needed, available }.into())
}

fn needed(files: impl Iterator<Item = u64>) -> u64 {
    let blocks = |bytes: u64| bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
    files.fold(RESERVE, |sum, bytes| sum.saturating_add(blocks(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_whole_blocks() {
        assert_eq!(needed([0, 1, BLOCK, BLOCK + 1].into_iter()), RESERVE + 4 * BLOCK);
        assert_eq!(needed([u64::MAX, 1].into_iter()), u64::MAX);
    }

    #[test]
    fn what_no_disk_holds_is_refused_with_both_numbers() {
        let parent = tempfile::tempdir().expect("a folder");
        let output = OutputPath::check(&parent.path().join("out"), &[], false).expect("free");
        assert!(check(&output, [1].into_iter()).is_ok());
        let message = check(&output, [1 << 60].into_iter()).expect_err("an exabyte").to_string();
        for word in ["1.0 EiB", "available", "select fewer"] {
            assert!(message.contains(word), "\"{word}\" is not in {message}");
        }
    }
}
