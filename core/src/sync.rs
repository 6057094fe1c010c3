//! The only source of locks and atomics in core, so that loom can replace them.
//!
//! With feature `std` a mutex is the standard library's, otherwise a spin lock. Values are locked
//! only for a few instructions.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

#[cfg(loom)]
type Inner<T> = loom::sync::Mutex<T>;
#[cfg(all(feature = "std", not(loom)))]
type Inner<T> = std::sync::Mutex<T>;
#[cfg(not(any(feature = "std", loom)))]
type Inner<T> = spin::Mutex<T>;

/// A mutex.
#[derive(Debug)]
pub struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    /// Creates a mutex over a value.
    pub fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Calls `f` with exclusive access to the value.
    ///
    /// Poisoning is ignored: a guarded value is consistent between any two statements.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        #[cfg(any(feature = "std", loom))]
        let mut guard = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        #[cfg(not(any(feature = "std", loom)))]
        let mut guard = self.0.lock();
        f(&mut guard)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
