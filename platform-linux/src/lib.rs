//! Local files on Linux: a [`Storage`](floodtide_core::storage::Storage) that lists and opens them, reads them by io_uring,
//! `pread` or tokio, maps them, and probes what the machine allows.
//!
//! Most programs use the crate `floodtide`. A loader that has its own logic links this crate with `floodtide-core` and
//! `floodtide-memory`: see the example `embed`.

pub mod backend;
pub mod doctor;
pub mod probe;
pub mod roofline;
pub mod storage;

mod file;
mod process;
mod write_back;

pub use process::{raise_open_file_limit, report_file_size_limit};
pub use storage::{LocalFile, LocalStorage};
pub use write_back::{WriteBack, sync_range};
