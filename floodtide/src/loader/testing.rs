//! Hooks of floodtide's own tests.

use super::Loader;
use crate::runtime::MakeFaults;
use floodtide_core::middleware::Faults;
use std::sync::Arc;

/// **Unstable**: the hooks of the feature `unstable-testing` change or go in any release.
impl Loader {
    /// Puts faults around the source of every worker, which makes its own.
    ///
    /// The simulator's faults then strike real reads. The backends mmap and tokio read without a source and ignore this.
    #[doc(hidden)]
    #[must_use]
    pub fn faults<F: Faults + 'static>(mut self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.settings.faults = Some(MakeFaults(Arc::new(move || Box::new(make()))));
        self
    }

    /// Loads as if the system refused io_uring for this reason.
    #[doc(hidden)]
    #[must_use]
    pub fn forbid_uring(mut self, reason: impl Into<String>) -> Self {
        self.settings.uring_refused = Some(reason.into());
        self
    }
}
