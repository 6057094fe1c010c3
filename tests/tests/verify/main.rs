//! Manifests, verified loads and comparisons: every byte that differs is found and named.
//!
//! A test belongs here if it damages a checkpoint or a manifest and expects a checksum or a
//! comparison to find the damage.
//!
//! The manifests, verified loads and comparisons that the library makes run over local files and
//! over the same files in memory (see `floodtide_tests::over_storages`).

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

mod diff;
mod loads;
mod manifest;
