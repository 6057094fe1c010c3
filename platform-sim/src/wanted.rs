//! Which tensors are selected, as whoever asks means it: the rules know it without core's own matching.

use crate::checkpoint::KnownTensor;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::Selection;

/// A selection, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All tensors.
    All,
    /// Those of these names, any of which may come twice.
    Names(Vec<String>),
    /// Those whose names end so; without what a glob would take for its own.
    Ending(&'static str),
}

impl Wanted {
    /// What core is asked for.
    #[must_use]
    pub fn selection(&self) -> Selection {
        match self {
            Self::All => Selection::All,
            Self::Names(names) => Selection::names(names),
            Self::Ending(end) => Selection::globs([format!("*{end}")]).unwrap_or_default(),
        }
    }

    /// Whether it takes that tensor.
    #[must_use]
    pub fn takes(&self, tensor: &KnownTensor) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(&tensor.name),
            Self::Ending(end) => tensor.name.ends_with(end),
        }
    }
}
