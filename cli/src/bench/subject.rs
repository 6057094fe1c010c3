//! The ways to load that a bench compares.

use crate::args::BackendArg;
use floodtide::{Backend, Loader, Tensors, backends};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A way to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) enum Subject {
    By(Backend),
    /// The backend that floodtide chooses.
    Auto,
    /// Each file read as a whole, as one would without a loader.
    StdRead,
    /// The files mapped, with each page touched by one thread.
    PlainMmap,
}

impl Subject {
    pub(super) fn all() -> Vec<Self> {
        let backends = backends().into_iter().map(Self::By);
        backends.chain([Self::Auto, Self::StdRead, Self::PlainMmap]).collect()
    }

    /// Returns these backends, or all if none is named, and the baselines.
    pub(super) fn chosen(backends: &[BackendArg]) -> Vec<Self> {
        let named = |subject: &Self| match subject {
            Self::By(backend) => backends.iter().any(|named| named.backend() == Some(*backend)),
            Self::Auto => backends.contains(&BackendArg::AUTO),
            Self::StdRead | Self::PlainMmap => true,
        };
        Self::all().into_iter().filter(|subject| backends.is_empty() || named(subject)).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::By(backend) => backend.name(),
            Self::Auto => "auto",
            Self::StdRead => "std::fs::read",
            Self::PlainMmap => "plain mmap",
        }
    }

    /// Returns true if this is floodtide and not a baseline.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::By(_) | Self::Auto)
    }

    pub(super) fn load(self, path: &Path, files: &[PathBuf]) -> Result<Loaded, String> {
        let tensors = match self {
            Self::By(backend) => Loader::new().backend(backend).load(path),
            Self::Auto => Loader::new().load(path),
            Self::PlainMmap => Loader::new().map(path),
            Self::StdRead => {
                let read = |file: &PathBuf| fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
                return Ok(Loaded::Files(files.iter().map(read).collect::<Result<_, _>>()?));
            }
        };
        tensors.map(Loaded::Tensors).map_err(|error| error.to_string())
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.name().to_owned()
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let subject = Self::all().into_iter().find(|subject| subject.name() == name);
        subject.ok_or_else(|| format!("unknown way to load \"{name}\""))
    }
}

/// The loaded bytes.
pub(super) enum Loaded {
    Tensors(Tensors),
    Files(Vec<Vec<u8>>),
}

impl Loaded {
    /// Reads one byte of each page, so that every page is resident and mapped in every case.
    pub(super) fn touch(&self) {
        let page = rustix::param::page_size();
        let touch = |seen: u8, bytes: &[u8]| {
            let last = bytes.last().copied().unwrap_or(0);
            bytes.iter().step_by(page).fold(seen ^ last, |seen, byte| seen ^ byte)
        };
        let seen = match self {
            Self::Tensors(tensors) => tensors.iter().fold(0, |seen, tensor| touch(seen, tensor.as_bytes())),
            Self::Files(files) => files.iter().fold(0, |seen, file| touch(seen, file)),
        };
        std::hint::black_box(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide::backend::PREAD;

    #[test]
    fn names_lead_back_to_their_ways() {
        for subject in Subject::all() {
            assert_eq!(Subject::try_from(String::from(subject)), Ok(subject));
        }
    }

    #[test]
    fn what_is_compared_with_is_always_there() {
        let names =
            |backends: &[BackendArg]| Subject::chosen(backends).into_iter().map(Subject::name).collect::<Vec<_>>();
        assert_eq!(names(&[BackendArg::AUTO, BackendArg::of(PREAD)]), ["pread", "auto", "std::fs::read", "plain mmap"]);
        assert_eq!(names(&[]).len(), Subject::all().len());
    }
}
