//! A decision of a load, with its reason.

use alloc::string::String;
use core::fmt;

/// What was decided, and why.
///
/// ```
/// use floodtide_core::strategy::Decision;
///
/// let decision = Decision::new("memory", "no huge pages (EINVAL), so page faults take longer");
/// assert_eq!(decision.what, "memory");
/// assert_eq!(decision.to_string(), "no huge pages (EINVAL), so page faults take longer");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What it is about, in a word or two: `backend`, `reads`, `page cache`, `memory`, `threads`, `fallback`.
    pub what: &'static str,
    /// Why, in a sentence without a full stop.
    pub why: String,
}

impl Decision {
    /// Returns a decision about `what`.
    #[must_use]
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
