//! Examines what this machine and a path support, as a list of findings: what was found, what it
//! means, what it costs, how to fix it.
//!
//! Each check is a function of a file here and a line in [`examine`]. A check tries the feature,
//! because settings do not show what a sandbox forbids. A cost is a figure of `benches/RESULTS.md`
//! or of a record in `docs/decisions`, or measured on the spot; otherwise it is absent. Nothing is
//! changed, except that a folder without a suitable file gets an unnamed one during the check.

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

/// Whether a load has what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Status {
    /// It is available.
    Good,
    /// A part of it is available, or a replacement.
    Limited,
    /// It is not available.
    Missing,
}

impl Status {
    /// Returns the status as a word.
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

/// One finding. The texts may quote file names, so print them escaped.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finding {
    /// The subject.
    pub name: &'static str,
    /// The status.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it means, in a sentence.
    pub meaning: String,
    /// The cost, if it was measured.
    pub cost: Option<String>,
    /// How to fix it.
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

/// Examines this machine and a path, such as a checkpoint's. `files` are the checkpoint's, and
/// `refused` are the errors if they could not be found.
///
/// # Errors
/// Fails if the path cannot be examined.
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
    // This comes first, because without it the rest does not matter.
    findings.splice(..0, access::files(&subject));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_finding_with_a_meaning() {
        let folder = tempfile::tempdir().expect("a folder");
        let findings = examine(folder.path(), &[], Vec::new()).expect("examines");
        assert_eq!(findings.len(), 12);
        for finding in &findings {
            assert!(!finding.found.is_empty() && finding.meaning.ends_with(|c: char| c != '.'), "{finding:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0, "nothing is left behind");
        assert!(examine(&folder.path().join("missing"), &[], Vec::new()).is_err());
    }
}
