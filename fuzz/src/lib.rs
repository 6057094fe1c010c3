//! What the fuzz targets of the planner and the engine share.
//!
//! [`checkpoint`] makes catalogs of arbitrary bytes, [`options`] what the planner is asked for; [`promises`] checks a plan against
//! what `floodtide_core::plan` promises. Nothing here may rely on how core does its work: only public items, and what their documentation says.

pub mod checkpoint;
pub mod options;
pub mod promises;
