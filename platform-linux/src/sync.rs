//! The atomics of the arena's hand-out, so that loom can replace them. Concurrent code of this crate that loom checks
//! imports only from here.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
