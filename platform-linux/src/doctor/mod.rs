//! What this machine and a path allow, one finding after the other: what was found, what it means, what it costs, how to lift it.
//!
//! Each check is a function of a file here and a line in [`examine`]. It tries what it speaks of, as settings do not tell what a sandbox
//! forbids. A cost is a figure of this project's (`benches/RESULTS.md`) or measured on the spot; where there is none,
//! there is no cost. Nothing is changed; a folder without a file to try on gets one without a name for as long as that takes.

mod access;
mod kernel;
mod limits;
mod pages;
mod processors;
mod ring;
mod storage;
mod subject;

use floodtide_core::storage::StorageError;
use std::fmt;
use std::path::{Path, PathBuf};
use subject::Subject;

/// Whether a load gets what it would like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It does.
    Good,
    /// In part, or in another way.
    Limited,
    /// It does not.
    Missing,
}

impl Status {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that was examined. The texts may quote names of files, so they are to be printed escaped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finding {
    /// What was examined.
    pub name: &'static str,
    /// Whether that is as a load would like it.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What that means, in a sentence.
    pub meaning: String,
    /// What it costs, where that was measured.
    pub cost: Option<String>,
    /// What lifts it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(name: &'static str, status: Status, found: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { name, status, found: found.into(), meaning: meaning.into(), cost: None, remedy: None }
    }

    fn cost(mut self, cost: impl Into<String>) -> Self {
        self.cost = Some(cost.into());
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Examines this machine, and the path of a checkpoint or of anything beside it. `files` are the checkpoint's, if it is one, and `refused` is why
/// they could not be found.
///
/// # Errors
/// When the path cannot be looked at.
pub fn examine(path: &Path, files: &[PathBuf], refused: Vec<StorageError>) -> Result<Vec<Finding>, StorageError> {
    let subject = Subject::open(path, files, refused)?;
    let mut findings = vec![
        kernel::version(),
        ring::io_uring(&subject),
        storage::file_system(&subject),
        storage::direct_reads(&subject),
        storage::page_cache(&subject),
        storage::profile(&subject),
        pages::huge_pages(),
        limits::memory(&subject),
        limits::locked_memory(),
        limits::open_files(&subject),
        processors::cpus(),
        processors::numa(),
    ];
    // First of all, what the rest is of no use without.
    findings.splice(..0, access::files(&subject));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_found_and_what_is_not_good_has_a_meaning() {
        let folder = tempfile::tempdir().expect("a folder");
        let findings = examine(folder.path(), &[], Vec::new()).expect("can be looked at");
        assert_eq!(findings.len(), 12);
        for finding in &findings {
            assert!(!finding.found.is_empty() && finding.meaning.ends_with(|c: char| c != '.'), "{finding:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0, "nothing is left behind");
        assert!(examine(&folder.path().join("missing"), &[], Vec::new()).is_err());
    }
}
