//! Tells one version of a file from another.

use crate::seeded_bug::seeded_bug;

/// A file's identity and the marks that a write leaves on it, as a platform sees them before and after a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last written to: seconds, and nanoseconds.
    pub modified: (i64, i64),
}

impl FileVersion {
    /// What differs, in words; `None` when nothing does.
    #[must_use]
    pub fn difference(self, now: Self) -> Option<&'static str> {
        if seeded_bug!(ChangeUnnoticed) {
            None
        } else if (self.device, self.inode) != (now.device, now.inode) {
            Some("another file has taken its place")
        } else if self.len != now.len {
            Some("its length is another")
        } else if self.modified != now.modified {
            Some("it was written to")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_counts() {
        let stamp = FileVersion { device: 1, inode: 2, len: 3, modified: (4, 5) };
        assert_eq!(stamp.difference(stamp), None);
        for (now, word) in [
            (FileVersion { device: 9, ..stamp }, "another file"),
            (FileVersion { inode: 9, ..stamp }, "another file"),
            (FileVersion { len: 9, ..stamp }, "length"),
            (FileVersion { modified: (9, 5), ..stamp }, "written"),
            (FileVersion { modified: (4, 9), ..stamp }, "written"),
        ] {
            assert!(stamp.difference(now).is_some_and(|what| what.contains(word)), "{now:?}");
        }
    }
}
