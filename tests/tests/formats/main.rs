//! File contents: the rules of each format, its variants, and files from other programs.
//!
//! A test belongs here if it depends on the bytes of a header or an index, or on how the files of a
//! checkpoint are found.

mod bad_input;
mod gguf;
mod golden_gguf;
mod real_model;
mod serverlessllm;
