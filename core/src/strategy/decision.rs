//! A decision of a load and its reason.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A decision of a load: what was decided, and why.
///
/// ```
/// use floodtide_core::strategy::Decision;
///
/// let decision = Decision::new("huge pages", "no huge pages (ENOMEM), so page faults take longer");
/// assert_eq!(decision.to_string(), "huge pages: no huge pages (ENOMEM), so page faults take longer");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The subject in a word or two: `"backend"`, `"reads"`, `"huge pages"`.
    pub what: &'static str,
    /// The outcome and the reason.
    pub why: String,
}

impl Decision {
    /// Creates a decision about `what`.
    #[must_use]
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }

    /// Joins the reasons of several decisions into one text.
    ///
    /// ```
    /// use floodtide_core::strategy::Decision;
    ///
    /// let decisions = [Decision::new("backend", "pread was requested"), Decision::new("reads", "the file is cached")];
    /// assert_eq!(Decision::join(&decisions), "pread was requested; the file is cached");
    /// ```
    #[must_use]
    pub fn join(decisions: &[Self]) -> String {
        let reasons: Vec<&str> = decisions.iter().map(|decision| &*decision.why).collect();
        reasons.join("; ")
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
