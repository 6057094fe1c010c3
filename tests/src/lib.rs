//! Helpers of the suites: run the command, write checkpoints, and make one malformed file for each
//! rule.

#![expect(clippy::cast_possible_truncation, reason = "the tests' numbers are small, or only fill bytes")]

pub mod by_backend;
pub mod cases;
pub mod checkpoint;
pub mod command;
pub mod counts;
pub mod faulty_fs;
pub mod gguf;
pub mod layout;
pub mod malformed;
pub mod over_storages;
pub mod roles;
pub mod sandbox;
pub mod serverlessllm_reader;
pub mod serverlessllm_writer;

/// Compiles the examples of the guide.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/convert.md")]
    struct Convert;
    #[doc = include_str!("../../docs/library.md")]
    struct Library;
    #[doc = include_str!("../../docs/tensor-parallel.md")]
    struct TensorParallel;
}
