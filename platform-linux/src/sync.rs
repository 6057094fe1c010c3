//! What the concurrent code of this crate synchronises with: core's primitives, which loom can replace, and two that only
//! this platform has.

pub(crate) use floodtide_core::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// A cell with loom's interface.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Runs `f` with the address of the value.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A fence for two sides that each store a flag and then look at the other's, where one side does so millions of times
/// more often: it pays only a compiler barrier, and the rare side pays for both with `membarrier(2)`, which makes every
/// running thread of the process pass a full fence. Where the system refuses that call, both sides use full fences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsymmetricFence {
    asymmetric: bool,
}

impl AsymmetricFence {
    /// Registers the process for `membarrier`, if it can be.
    pub(crate) fn new() -> Self {
        Self { asymmetric: membarrier::register() }
    }

    /// The frequent side's.
    #[inline]
    pub(crate) fn light(self) {
        if self.asymmetric {
            std::sync::atomic::compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The rare side's. False when the system has begun to refuse the call (a sandbox that was entered meanwhile): then there
    /// was no fence, and nothing may be concluded from the other side's flag.
    #[must_use]
    pub(crate) fn heavy(self) -> bool {
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

/// Neither loom nor Miri knows the call.
#[cfg(any(loom, miri))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn run() -> bool {
        true
    }
}
