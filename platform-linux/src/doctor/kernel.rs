//! Checks the kernel's version for features that loads use. Other checks try whether a feature is
//! forbidden.

use super::{Finding, Status};

/// The features with the versions that introduced them, and what happens without them.
const FEATURES: [((u32, u32), &str); 7] = [
    ((5, 6), "io_uring reads (5.6): threads read instead"),
    ((5, 14), "MADV_POPULATE_READ (5.14): a mapping is touched page by page"),
    ((6, 1), "STATX_DIOALIGN (6.1): the alignment of direct reads is found by trying"),
    ((6, 1), "single-issuer rings with deferred work (6.1): a plain ring is used"),
    ((6, 5), "cachestat (6.5): cached ranges come from mincore or samples"),
    ((6, 14), "STATX_DIO_READ_ALIGN (6.14): reads use the alignment of writes"),
    ((6, 14), "RWF_DONTCACHE (6.14): buffered reads of large files evict the page cache"),
];

pub(super) fn version() -> Finding {
    let name = rustix::system::uname();
    of_release(&name.release().to_string_lossy())
}

fn of_release(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let found = format!("Linux {release}");
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::new("kernel", Status::Limited, found, "its version cannot be parsed");
    };
    let lacks: Vec<&str> =
        FEATURES.iter().filter(|(since, _)| (major, minor) < *since).map(|(_, what)| *what).collect();
    if lacks.is_empty() {
        return Finding::new("kernel", Status::Good, found, "it has every feature that a load uses");
    }
    let meaning = format!("it lacks {}", lacks.join("; "));
    Finding::new("kernel", Status::Limited, found, meaning).remedy("upgrade the kernel; 6.14 has every feature")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_lacks_what_came_later() {
        let lacks = |release| of_release(release).meaning;
        assert_eq!(of_release("6.14.0-rc1").status, Status::Good);
        assert_eq!(of_release("7.0").status, Status::Good);
        assert!(lacks("6.8.0-40-generic").contains("6.14") && !lacks("6.8.0-40-generic").contains("cachestat"));
        assert!(lacks("5.10.0").contains("5.14") && lacks("5.10.0").contains("cachestat"));
        assert!(lacks("5.4.1").contains("io_uring reads"));
        assert_eq!(of_release("unknown").status, Status::Limited);
    }
}
