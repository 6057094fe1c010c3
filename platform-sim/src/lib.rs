//! A deterministic world for core: files that are made as they are read, a storage with latency and rules, a virtual clock, a
//! pool that others use too, a device that a stream is uploaded to; and everything that can go wrong with them.
//!
//! A [`Case`] is what a run is about, drawn from a seed or put together by hand; [`run`](run()) carries it out with core's own worker,
//! engine, pool and stream, interleaving everybody by draws, and reports every rule that was broken. The same seed gives
//! the same run, event by event, on every platform.
//!
//! `no_std` like core; the program `floodtide-sim` runs seeds by the million.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod case;
pub mod checkpoint;
pub mod cuts;
pub mod faults;
pub mod selection;
pub mod shard;

mod actors;
mod clock;
mod device;
mod draw;
mod files;
mod history;
mod memory;
mod prepare;
mod refusal;
mod rules;
mod run;
mod upload;
mod verdict;
mod world;

pub use case::{Case, HUGE};
pub use clock::Clock;
pub use device::{FileDevice, Flight, SimChunk, SimSource, SimStorage};
pub use draw::Draw;
pub use files::{Change, SimFile};
pub use floodtide_core::storage::Link;
pub use history::History;
pub use run::{Report, SizeCounts, run};
pub use upload::DeviceSink;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod throttled;
