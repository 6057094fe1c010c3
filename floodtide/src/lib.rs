//! Loads LLM checkpoints at the speed of the hardware.
//!
//! [`Loader`] is the way in. A load finds the checkpoint's files (`discover`), reads their headers (`open`), asks the system
//! what it allows ([`probe`]), lets `floodtide-core` decide, and carries the plan out: workers (`runtime`), each with a source of
//! reads, fill one arena of huge pages in place; or the files are mapped. What comes back are [`Tensors`]: views that stay valid
//! as long as anyone holds one. Or they pass one after another through the buffers of a [`pool`] (`stream`), from where
//! [`convert`] writes them. A [`trace`] tells of it as it happens.

#![forbid(unsafe_code)]

pub mod convert;
pub mod trace;

mod checkpoint_files;
mod checksums;
mod diff;
mod discover;
mod error;
mod load;
mod loader;
mod machine;
mod open;
mod runtime;
mod signals;
mod small_file;
mod stream;
mod system_timer;
mod tensors;
mod uri;
mod views;

pub use checksums::{Mismatch, VerifyReport, read_manifest};
pub use diff::{ByteLocation, Change, Diff, TensorDiff};
pub use error::Error;
pub use floodtide_core as core;
pub use floodtide_core::checksum::Checksum;
pub use floodtide_core::format;
pub use floodtide_core::manifest::Manifest;
pub use floodtide_core::strategy::{Backend, Decision};
pub use floodtide_core::{
    Alignment, Catalog, DType, ElementType, ErrorKind, Escaped, FormatId, GgmlType, Glob, Location, MemoryLimit,
    MetadataList, MetadataValue, Order, Partition, Plan, Progress, Selection, ShardRules, TensorInfo,
};
pub use floodtide_linux::backend::{self, all as backends};
pub use floodtide_linux::{LocalStorage, probe, raise_open_file_limit, report_file_size_limit};
pub use floodtide_memory::pool;
pub use load::Load;
pub use loader::{Inspected, Loader, Planned};
pub use machine::{examine, measure};
#[cfg(feature = "tokio")]
pub use stream::AsyncTensorStream;
pub use stream::{StreamOptions, TensorStream};
pub use tensors::{Element, Report, Tensor, Tensors, ViewError};

/// Where the files of checkpoints are: [`Loader::storage`].
pub mod storage {
    pub use crate::system_timer::SystemTimer;
    pub use floodtide_core::storage::*;
    pub use floodtide_linux::{LocalFile, LocalStorage};
    /// The buffers that loads read into.
    pub use floodtide_memory::ChunkBuffer as LoadBuffer;
}

/// What takes a stream in by itself: [`TensorStream::send_to`].
pub mod sink {
    pub use crate::stream::WriterSink;
    pub use floodtide_core::stream::{FilledBuffer, PumpError, Sink, TensorPart};
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
