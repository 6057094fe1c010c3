//! Hooks for floodtide's own tests.

use super::Loader;
use crate::runtime::MakeFaults;
use floodtide_core::middleware::Faults;
use std::sync::Arc;

/// **Unstable**: the hooks of the feature `unstable-testing` may change or disappear in any
/// release.
impl Loader {
    /// Wraps the source of every worker in injected faults. Each worker calls `make` for its own.
    ///
    /// The simulator's faults then affect real reads. The backends mmap and tokio read without a
    /// source and ignore this.
    #[doc(hidden)]
    #[must_use]
    pub fn faults<F: Faults + 'static>(mut self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.settings.faults = Some(MakeFaults(Arc::new(move || Box::new(make()))));
        self
    }

    /// Loads as if the system refused io_uring with `reason`.
    #[doc(hidden)]
    #[must_use]
    pub fn forbid_uring(mut self, reason: impl Into<String>) -> Self {
        self.settings.uring_refused = Some(reason.into());
        self
    }
}
