//! Virtual time, which passes only when the world advances it.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use floodtide_core::storage::Timer;

/// A clock in nanoseconds since the world began. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    now: Arc<AtomicU64>,
    /// The earliest time that somebody wants to sleep until; 0 for nobody.
    alarm: Arc<AtomicU64>,
}

impl Clock {
    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Advances to `time`. Never goes back.
    pub fn advance_to(&self, time: u64) {
        self.now.fetch_max(time, Ordering::Relaxed);
    }

    /// Advances to the earliest time that [`sleep_until`](Timer::sleep_until) requested since the
    /// last call. Returns false if there was no request.
    pub fn advance_to_alarm(&self) -> bool {
        let alarm = self.alarm.swap(0, Ordering::Relaxed);
        self.advance_to(alarm);
        alarm > 0
    }
}

impl Timer for Clock {
    fn now(&self) -> u64 {
        self.now()
    }

    fn sleep_until(&self, time: u64) -> bool {
        let has_come = self.now() >= time;
        let alarm = self.alarm.load(Ordering::Relaxed);
        if !has_come && (alarm == 0 || time < alarm) {
            self.alarm.store(time, Ordering::Relaxed);
        }
        has_come
    }
}
