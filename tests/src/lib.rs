//! What the suites share: running the command, writing checkpoints, and one malformed file for each rule.

pub mod by_backend;
pub mod cases;
pub mod checkpoint;
pub mod command;
pub mod faulty_fs;
pub mod gguf;
pub mod layout;
pub mod malformed;
pub mod over_storages;
pub mod roles;
pub mod sandbox;
pub mod serverlessllm_reader;
pub mod serverlessllm_writer;
