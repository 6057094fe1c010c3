//! Sources that wrap another source behind the same trait, so that what they do composes with any device, simulated or real:
//! [`Faulty`] makes reads fail, [`Traced`] tells what happens. Backends know nothing of them.

mod faulty;
mod traced;

pub use faulty::{Faults, Faulty, Injection};
pub use traced::{Traced, Tracer};
