//! File contents: the rules of each format, its variants, and files from other programs.
//!
//! A test belongs here if it depends on the bytes of a header or an index, or on how the files of a
//! checkpoint are found.
//!
//! The properties of GGUF and ServerlessLLM checkpoints, and all malformed checkpoints of
//! `floodtide_tests::malformed`, run over local files and over the same files in memory (see
//! `floodtide_tests::over_storages`). The command reads local files.

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

mod bad_input;
mod gguf;
mod golden_gguf;
mod real_model;
mod serverlessllm;
