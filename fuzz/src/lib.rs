//! Shared code of the fuzz targets for the planner and the engine.
//!
//! [`checkpoint`] creates catalogs from arbitrary bytes, [`options`] creates planner options.
//! [`promises`] checks a plan against the promises of `floodtide_core::plan`. [`device`] and
//! [`ledger`] are the engine's environment: files, memory, and the conditions after every step.
//! Nothing here may rely on core's internals, only on its public items and their documentation.

pub mod checkpoint;
pub mod device;
pub mod ledger;
pub mod options;
pub mod promises;
