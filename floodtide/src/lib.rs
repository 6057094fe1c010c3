//! Loads LLM checkpoints at the speed of the hardware.
//!
//! [`Loader`] is the way in. A load finds the checkpoint's files (`locate`), reads their headers (`headers`), asks the system
//! what it allows ([`probe`]), lets `floodtide-core` decide, and carries the plan out: workers (`crew`), each with a source of
//! reads, fill one arena of huge pages in place; or the files are mapped. What comes back are [`Tensors`]: views that stay valid
//! as long as anyone holds one. Or they pass one after another through the buffers of a [`pool`] (`stream`), from where
//! [`convert`] writes them. A [`trace`] tells of it as it happens.

#![forbid(unsafe_code)]

pub mod convert;
pub mod trace;

mod checksums;
mod crew;
mod diff;
mod error;
mod headers;
mod load;
mod loader;
mod locate;
mod machine;
mod stream;
mod tensors;

pub use checksums::{Difference, Verdict, read_manifest};
pub use diff::{Change, Diff, Place, TensorDiff};
pub use error::Error;
pub use floodtide_core as core;
pub use floodtide_core::checksum::Checksum;
pub use floodtide_core::manifest::Manifest;
pub use floodtide_core::strategy::{Backend, Decision};
pub use floodtide_core::{
    Alignment, Catalog, Cut, DType, ElementType, ErrorKind, Escaped, Format, GgmlType, Glob, Location, MemoryLimit,
    MetadataList, MetadataValue, Order, Plan, Progress, Selection, ShardRules, TensorInfo,
};
pub use floodtide_linux::{probe, raise_open_file_limit, report_file_size_limit};
pub use floodtide_memory::pool;
pub use load::Load;
pub use loader::{Inspected, Loader, Planned};
pub use machine::{examine, measure};
#[cfg(feature = "tokio")]
pub use stream::AsyncTensorStream;
pub use stream::{StreamOptions, TensorStream};
pub use tensors::{Element, Report, Tensor, Tensors, ViewError};

/// What takes a stream in by itself: [`TensorStream::send_to`].
pub mod sink {
    pub use crate::stream::WriterSink;
    pub use floodtide_core::stream::{PourError, Sink, Staged, StagedPart, Ticket};
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
