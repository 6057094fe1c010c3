//! Conversions: their contents, and that the output appears complete or not at all.
//!
//! A test belongs here if it writes a checkpoint with `floodtide convert` or the library's
//! `Converter`.

mod contents;
mod output;
mod serverlessllm;
