//! A platform without an operating system: files in memory, no thread, no clock, always the same run.
//!
//! It runs core's own [`Worker`](floodtide_core::Worker) over a [`MemorySource`], so what is tested with it is what production runs. `no_std` like
//! core, so that it works on any target. It is the first piece of the simulator; faults and a virtual clock build on it.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod load;
mod source;

pub use load::{Loaded, load};
pub use source::{MemoryBuffer, MemorySource};
