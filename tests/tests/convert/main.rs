//! Conversions: their contents, and that the output appears complete or not at all.
//!
//! A test belongs here if it writes a checkpoint by `floodtide convert` or the library's
//! `Converter`.
//!
//! The conversions of `contents` read local files and the same files in memory (see
//! `floodtide_tests::over_storages`), and write local files. `output` is about the file system.

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

mod contents;
mod output;
mod serverlessllm;
