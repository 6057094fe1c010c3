//! Local files on Linux as a [`Storage`](floodtide_core::storage::Storage).
//!
//! The storage lists and opens files, reads them by io_uring, `pread` or tokio, and maps them.
//! [`probe`] examines what the machine supports.
//!
//! Most programs use the crate `floodtide`. A loader with its own logic links this crate with
//! `floodtide-core` and `floodtide-memory`: see the example `embed`.

pub mod backend;
pub mod doctor;
pub mod probe;
pub mod roofline;
pub mod storage;

mod file;
mod process;
mod write_back;

pub use process::{ignore_file_size_signal, raise_open_file_limit};
pub use storage::{LocalFile, LocalStorage};
pub use write_back::{WriteBack, sync_range};
