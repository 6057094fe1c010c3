//! Virtual time, which passes only when the world advances it.

use alloc::rc::Rc;
use core::cell::Cell;

/// A clock in nanoseconds since the world began. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct Clock(Rc<Cell<u64>>);

impl Clock {
    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.get()
    }

    /// Advances to `time`. Never goes back.
    pub fn advance_to(&self, time: u64) {
        self.0.set(self.0.get().max(time));
    }
}

/// A link to or from a device. Latencies overlap, and transfers share the bandwidth one after
/// another.
#[derive(Debug, Clone)]
pub struct Link {
    latency: u64,
    bytes_per_second: u64,
    free_at: u64,
}

impl Link {
    /// Creates a link with a latency in nanoseconds and a bandwidth in bytes per second (0 for no
    /// limit).
    #[must_use]
    pub fn new(latency: u64, bytes_per_second: u64) -> Self {
        Self { latency, bytes_per_second, free_at: 0 }
    }

    /// Returns the time at which a request for `bytes`, made now, completes.
    pub fn schedule(&mut self, now: u64, bytes: u64) -> u64 {
        self.schedule_after(now, 0, bytes)
    }

    /// Like [`schedule`](Self::schedule), with a different latency for this request.
    pub fn schedule_after(&mut self, now: u64, latency: u64, bytes: u64) -> u64 {
        let begins = self.free_at.max(now.saturating_add(self.latency).saturating_add(latency));
        let takes = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(self.bytes_per_second)).unwrap_or(0);
        self.free_at = begins.saturating_add(u64::try_from(takes).unwrap_or(u64::MAX));
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_overlaps_and_bandwidth_is_shared() {
        // 1 byte a nanosecond.
        let mut link = Link::new(100, 1_000_000_000);
        assert_eq!(link.schedule(0, 50), 150);
        assert_eq!(link.schedule(0, 50), 200, "the second one's latency has passed meanwhile");
        assert_eq!(link.schedule(1000, 50), 1150);
        assert_eq!(Link::new(7, 0).schedule(1, u64::MAX), 8);
    }
}
