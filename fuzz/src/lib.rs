//! What the fuzz targets of the planner and the engine share.
//!
//! [`checkpoint`] makes catalogs of arbitrary bytes, [`options`] what the planner is asked for; [`promises`] checks a plan against
//! what `floodtide_core::plan` promises. [`device`] and [`ledger`] are the engine's other side: files and memory, and what must be
//! so after every step. Nothing here may rely on how core does its work: only public items, and what their documentation says.

pub mod checkpoint;
pub mod device;
pub mod ledger;
pub mod options;
pub mod promises;
