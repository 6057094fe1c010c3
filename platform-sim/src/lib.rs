//! A deterministic world for core.
//!
//! It has generated files, storage with latency and rules, a virtual clock, a shared pool, a device
//! for uploads, and faults for all of them.
//!
//! A [`Case`] is the parameters of a run, drawn from a seed or set by hand. [`run`](run()) executes
//! it with core's worker, engine, pool and stream. It interleaves all actors by draws, and reports
//! every violated rule. The same seed gives the same run, event by event, on every platform.
//!
//! The crate is `no_std` like core. The program `floodtide-sim` runs seeds by the million.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod case;
pub mod checkpoint;
pub mod faults;
pub mod selection;
pub mod shard;
pub mod slices;

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
