//! A check of the project. The checks are in `steps`; `suite` runs them.

use crate::tools::Result;

/// One check.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whether `--quick` runs it.
    pub(crate) quick: bool,
    pub(crate) run: fn(Mode) -> Result,
}

/// How much a step checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What a contributor needs before a commit.
    Quick,
    Full,
}
