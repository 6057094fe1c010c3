//! What files may say: each format's rules, its variants, and files that other programs wrote.
//!
//! A test belongs here if it depends on the bytes of a header or an index, or on how the files of a checkpoint are found.

mod bad_input;
mod gguf;
mod golden_gguf;
mod real_model;
mod serverlessllm;
