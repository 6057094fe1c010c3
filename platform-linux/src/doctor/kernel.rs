//! The kernel's version, and what it has not yet that a load would use. What it has may still be forbidden: the other checks try.

use super::{Finding, Status};

/// What came with which version, and what is done without it.
const NEWS: [((u32, u32), &str); 7] = [
    ((5, 6), "io_uring's reads (5.6): threads read instead"),
    ((5, 14), "MADV_POPULATE_READ (5.14): a mapping is touched page by page"),
    ((6, 1), "STATX_DIOALIGN (6.1): what direct reads need is found out by trying"),
    ((6, 1), "rings of one thread with deferred work (6.1): a plain ring is used"),
    ((6, 5), "cachestat (6.5): what is cached is asked by mincore or sampled"),
    ((6, 14), "STATX_DIO_READ_ALIGN (6.14): reads keep to the alignment of writes"),
    ((6, 14), "RWF_DONTCACHE (6.14): what the page cache has no room for goes through it all the same"),
];

pub(super) fn version() -> Finding {
    let name = rustix::system::uname();
    of_release(&name.release().to_string_lossy())
}

fn of_release(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let found = format!("Linux {release}");
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::new("kernel", Status::Limited, found, "the version cannot be read from its name");
    };
    let lacks: Vec<&str> = NEWS.iter().filter(|(since, _)| (major, minor) < *since).map(|(_, what)| *what).collect();
    if lacks.is_empty() {
        return Finding::new("kernel", Status::Good, found, "it has everything that a load uses");
    }
    let meaning = format!("it is too old for {}", lacks.join("; "));
    Finding::new("kernel", Status::Limited, found, meaning).remedy("a newer kernel; 6.14 has all of it")
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
        assert!(lacks("5.4.1").contains("io_uring's reads"));
        assert_eq!(of_release("unknown").status, Status::Limited);
    }
}
