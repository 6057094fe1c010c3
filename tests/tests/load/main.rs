//! Loads and streams return the right bytes, in order and within their memory limit, with every
//! backend.
//!
//! A test belongs here if it calls the library on files of its own, and if neither the format nor
//! the machine is what it tests.
//!
//! The tests of `backends_agree`, `injected`, `slices`, `streams` and `stream_memory`, and those of
//! `lifecycle` that do not change a local file, run over local files and over the same files in
//! memory (see `floodtide_tests::over_storages`). `adaptive` is about the page cache.

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

mod adaptive;
mod backends_agree;
mod injected;
mod lifecycle;
mod mixed;
mod refused;
mod simulated;
mod slices;
mod stream_memory;
mod streams;
mod throttled;
mod uris;
