//! Manifests, verified loads and comparisons: every byte that differs is found and named.
//!
//! A test belongs here if it damages a checkpoint or a manifest and expects a checksum or a
//! comparison to find the damage.

mod diff;
mod loads;
mod manifest;
