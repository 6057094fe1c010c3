//! Sources that wrap another source behind the same trait.
//!
//! They compose with any device, simulated or real. [`Faulty`] injects faults, [`Traced`] reports
//! what happens. Backends know nothing of them. [`Layered`](crate::storage::Layered) puts them around
//! the sources of a storage.

mod faulty;
mod traced;

pub use faulty::{Faults, Faulty, Injection};
pub use traced::{Traced, Tracer};
