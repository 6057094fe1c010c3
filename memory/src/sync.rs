//! The only source of locks and atomics, in this crate and those above it. loom replaces all of
//! them.
//!
//! Poisoning is ignored: a guarded value is consistent between any two statements.

pub use floodtide_core::sync::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub use loom::cell::UnsafeCell;
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64};
/// Not replaced by loom, which has neither.
pub use std::sync::{Barrier, OnceLock};

#[cfg(loom)]
use loom::sync as imp;
use std::fmt;
#[cfg(not(loom))]
use std::sync as imp;
use std::sync::PoisonError;
use std::time::Duration;

/// Atomics of the process, for statics that outlive every loom model.
pub mod process {
    pub use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
}

/// The guard of a locked [`Mutex`].
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

/// A mutex.
#[derive(Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Creates a mutex over `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Locks the value.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `f` with the value locked.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock())
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lock with many readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

impl<T> RwLock<T> {
    /// Creates a lock over `value`.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Locks the value for reading.
    pub fn read(&self) -> imp::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the value for writing.
    pub fn write(&self) -> imp::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes threads that wait for a change of a value in a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// Creates a condition variable.
    #[must_use]
    pub fn new() -> Self {
        Self(imp::Condvar::new())
    }

    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a wake-up, which may be spurious.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a wake-up or for `timeout`. The second value is true after a timeout.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Duration) -> (MutexGuard<'a, T>, bool) {
        let (guard, result) = self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Waits while `condition` holds, for at most about `timeout`.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let mut timed_out = false;
        while !timed_out && condition(&mut guard) {
            (guard, timed_out) = self.wait_timeout(guard, timeout);
        }
        guard
    }
}

/// A cell with loom's interface.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// Creates a cell with `value`.
    pub fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Calls `f` with the address of the value.
    #[inline]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A fence for two sides that each store a flag and then load the other's, where one side runs
/// millions of times more often.
///
/// The frequent side pays only a compiler barrier. The rare side pays for both with
/// `membarrier(2)`, which makes every running thread of the process pass a full fence. If the
/// system refuses this call, both sides use full fences.
#[derive(Debug, Clone, Copy)]
pub struct AsymmetricFence {
    asymmetric: bool,
}

impl AsymmetricFence {
    /// Registers the process for `membarrier`, if the system allows it.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it makes a system call")]
    pub fn new() -> Self {
        Self { asymmetric: membarrier::register() }
    }

    /// The fence of the frequent side.
    #[inline]
    pub fn light(self) {
        if self.asymmetric {
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The fence of the rare side.
    ///
    /// Returns false if the system has started to refuse the call, as in a sandbox that was entered
    /// meanwhile. There was no fence then, and nothing follows from the other side's flag.
    #[must_use]
    pub fn heavy(self) -> bool {
        fence(Ordering::SeqCst);
        !self.asymmetric || membarrier::run()
    }
}

#[cfg(not(any(loom, miri)))]
mod membarrier {
    use rustix::thread::{MembarrierCommand, membarrier};

    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn run() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }
}

/// Neither loom nor Miri supports the call.
#[cfg(any(loom, miri))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn run() -> bool {
        true
    }
}
