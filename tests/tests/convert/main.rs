//! Conversions: what is written, and that it is there whole or not at all.
//!
//! A test belongs here if it writes a checkpoint by `floodtide convert` or the library's `Converter`.

mod contents;
mod output;
mod serverlessllm;
