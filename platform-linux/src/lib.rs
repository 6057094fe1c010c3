//! Local files on Linux: opened, probed, mapped, and read by io_uring or `pread`.
//!
//! A loader of its own links this crate and `floodtide-core`; everybody else links `floodtide`.

pub mod probe;
pub mod source;

mod error;
mod files;
mod mapping;
mod process;
mod signals;
mod small_file;
mod write_back;

pub use error::{Error, Shown, hint};
pub use files::{OpenFile, describe};
pub use mapping::{Mappings, PopulateError, Populated};
pub use process::{raise_open_file_limit, report_file_size_limit};
pub use signals::{LoadMode, ProbeRequest};
pub use small_file::{ProbedFile, SmallFile};
pub use write_back::{WriteBack, sync_range};
