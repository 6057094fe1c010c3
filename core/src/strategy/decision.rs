//! A decision of a load and its reason.

use crate::units::RouteId;
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
    /// The route that it concerns, an index into [`Strategy::routes`](super::Strategy::routes), or
    /// `None` for the whole load.
    pub route: Option<RouteId>,
}

impl Decision {
    /// Creates a decision about `what`, for the whole load.
    #[must_use]
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into(), route: None }
    }

    /// Sets the route that the decision concerns.
    #[must_use]
    pub fn of_route(mut self, route: RouteId) -> Self {
        self.route = Some(route);
        self
    }

    /// Joins the reasons of several decisions into one text. A reason that several routes share is
    /// in it once.
    ///
    /// ```
    /// use floodtide_core::strategy::Decision;
    ///
    /// let decisions = [Decision::new("backend", "pread was requested"), Decision::new("reads", "the file is cached")];
    /// assert_eq!(Decision::join(&decisions), "pread was requested; the file is cached");
    /// ```
    #[must_use]
    pub fn join(decisions: &[Self]) -> String {
        let mut reasons: Vec<&str> = Vec::with_capacity(decisions.len());
        for decision in decisions {
            if !reasons.contains(&&*decision.why) {
                reasons.push(&decision.why);
            }
        }
        reasons.join("; ")
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
