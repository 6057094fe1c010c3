//! A platform without an operating system: files in memory, no thread, no clock, always the same run.
//!
//! It runs core's own [`Worker`](floodtide_core::Worker) over a [`MemorySource`], so what is tested with it is what production runs. `no_std` like
//! core, so that it works on any target. Streams run in virtual time ([`stream()`]), between a
//! simulated storage and a simulated device. It is the first piece of the simulator; faults build on it.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod clock;
mod device;
mod load;
mod source;
mod stream;
mod timed;

pub use clock::{Clock, Link};
pub use device::DeviceSink;
pub use load::{Loaded, load};
pub use source::{MemoryBuffer, MemorySource};
pub use stream::{Machine, SimBuffer, Streamed, stream};
pub use timed::TimedSource;
