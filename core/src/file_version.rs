//! The version of a file, which changes when the file is written to or replaced.

use crate::seeded_bug::seeded_bug;
use alloc::string::String;

/// The version of a file, as its storage reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileVersion {
    /// A local file: its identity, and the marks that a write changes.
    Local {
        /// The device number.
        device: u64,
        /// The inode number.
        inode: u64,
        /// The length in bytes.
        len: u64,
        /// The time of the last write, in seconds and nanoseconds.
        modified: (i64, i64),
    },
    /// An object with a tag from the server (`ETag`), or a file of a commit.
    Tag {
        /// The length in bytes.
        len: u64,
        /// The tag, as the server writes it.
        tag: String,
    },
    /// An object with numbered writes.
    Generation {
        /// The length in bytes.
        len: u64,
        /// The number of the write that created it.
        generation: u64,
    },
}

impl FileVersion {
    /// Returns the length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Local { len, .. } | Self::Tag { len, .. } | Self::Generation { len, .. } => *len,
        }
    }

    /// Returns true if the file is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how `now` differs, or `None` if it does not.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<&'static str> {
        if seeded_bug!(ChangeUnnoticed) || self == now {
            return None;
        }
        let identity = |version: &Self| match version {
            Self::Local { device, inode, .. } => Some((*device, *inode)),
            _ => None,
        };
        Some(if identity(self) != identity(now) {
            "another file has taken its place"
        } else if self.len() != now.len() {
            "its length changed"
        } else {
            "it was written to"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_counts() {
        let local = |device, inode, len, modified| FileVersion::Local { device, inode, len, modified };
        let (tag, number) = (
            |len, tag: &str| FileVersion::Tag { len, tag: tag.into() },
            |len, generation| FileVersion::Generation { len, generation },
        );
        let version = local(1, 2, 3, (4, 5));
        assert_eq!(version.difference(&version.clone()), None);
        for (before, now, word) in [
            (&version, local(9, 2, 3, (4, 5)), "another file"),
            (&version, local(1, 9, 3, (4, 5)), "another file"),
            (&version, local(1, 2, 9, (4, 5)), "length"),
            (&version, local(1, 2, 3, (9, 5)), "written"),
            (&version, local(1, 2, 3, (4, 9)), "written"),
            (&version, tag(3, "a"), "another file"),
            (&tag(3, "a"), tag(3, "b"), "written"),
            (&tag(3, "a"), tag(4, "b"), "length"),
            (&number(3, 1), number(3, 2), "written"),
        ] {
            assert!(before.difference(&now).is_some_and(|what| what.contains(word)), "{now:?}");
        }
    }
}
