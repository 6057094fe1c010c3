//! Real time for a [`Throttled`](crate::storage::Throttled) storage.

use floodtide_core::storage::Timer;
use std::thread;
use std::time::{Duration, Instant};

/// The system's clock, which only goes forward.
///
/// ```
/// use floodtide::storage::{LatencyClass, LocalStorage, SystemTimer, Throttle, Throttled};
/// use floodtide::Loader;
///
/// let network = Throttle { latency: 5_000_000, bytes_per_second: 1 << 30, class: LatencyClass::Network };
/// let slow = Throttled::new(LocalStorage::new(), network, SystemTimer::new());
/// let loader = Loader::new().storage("slow", slow); // `slow:///models/qwen3` takes as long as over a network
/// # let _ = loader;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SystemTimer {
    start: Instant,
}

impl SystemTimer {
    /// Returns a clock that counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer for SystemTimer {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep_until(&self, time: u64) -> bool {
        thread::sleep(Duration::from_nanos(time.saturating_sub(self.now())));
        true
    }
}
