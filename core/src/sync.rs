//! The only place that synchronisation comes from, here and in the platform crates, so that loom can replace it.
//!
//! A mutex is the standard library's with feature `std`, a spin lock without: what it guards is held for a few
//! instructions.

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

/// A value that one thread at a time has to itself.
#[derive(Debug)]
pub struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    /// A mutex over a value.
    pub fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Runs `f` with the value to itself. That another holder panicked does not count: whoever guards a value here keeps
    /// it whole between any two statements.
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
