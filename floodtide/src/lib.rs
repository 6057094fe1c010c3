//! Loads LLM checkpoints at the speed of the hardware.
//!
//! Start with [`Loader`]. A load takes these steps:
//!
//! 1. It finds the checkpoint's files (`discover`) and reads their headers (`open`).
//! 2. It measures what the system supports ([`probe`]), and `floodtide-core` decides how to read.
//! 3. Workers (`runtime`) read directly into one arena of huge pages. With the backend `mmap`, the
//!    files are mapped instead.
//! 4. It returns [`Tensors`]: views that stay valid as long as one of them is held.
//!
//! A stream passes the tensors through the buffers of a [`pool`] instead of keeping them.
//! [`convert`] writes a stream in another format. A [`trace`] records every read.

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
mod prepare;
mod report;
mod runtime;
mod signals;
mod small_file;
mod stream;
mod system_timer;
mod tensors;
mod uri;
mod views;
mod warning;

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
pub use floodtide_linux::{LocalStorage, doctor, ignore_file_size_signal, probe, raise_open_file_limit, roofline};
pub use floodtide_memory::pool;
pub use load::Load;
pub use loader::{Inspected, Loader};
pub use machine::{examine, measure};
pub use prepare::{Planned, StreamOptions};
pub use report::{Report, RouteReport};
#[cfg(feature = "tokio")]
pub use stream::AsyncTensorStream;
pub use stream::TensorStream;
pub use tensors::{Element, Tensor, Tensors, ViewError};
pub use warning::Warning;

/// The storages that hold the files of checkpoints, see [`Loader::storage`].
pub mod storage {
    pub use crate::system_timer::SystemTimer;
    pub use floodtide_core::storage::*;
    pub use floodtide_linux::{LocalFile, LocalStorage};
    /// The buffers that loads read into.
    pub use floodtide_memory::ChunkBuffer as LoadBuffer;
}

/// The sinks that consume a stream, see [`TensorStream::send_to`].
pub mod sink {
    pub use crate::stream::WriterSink;
    pub use floodtide_core::stream::{FilledBuffer, PumpError, Sink, TensorPart};
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
