//! floodtide on Linux: loads LLM checkpoints at the speed of the hardware.
//!
//! [`Loader`] is the way in. A load finds the checkpoint's files (`locate`), reads their headers (`headers`), asks the system
//! what it allows ([`probe`]), lets `floodtide-core` decide, and carries the plan out: workers (`crew`), each with a source of
//! reads (`source`), fill one `arena` of huge pages in place; or the files are mapped (`mapping`). What comes back are
//! [`Tensors`]: views that stay valid as long as anyone holds one. Or they pass one after another through the buffers of a
//! [`pool`] (`stream`), from where [`convert`] writes them anew. A [`trace`] tells of it as it happens.
//!
//! All `unsafe` of what ships is in this crate: memory from the kernel (`region`), its pieces that are owned apart (`pieces`), buffers to gather from (`scratch`), and
//! the `arena`, its `shelf`, the `image` of a small file and the [`pool`] that are made of these; the two sources that write to such memory, `pread` and the ring, and the
//! `stream` that declares it filled; the `mapping`; three calls of the residency probe, one of the device's, one of `numa`, two of the `process`, and one with which a conversion paces its writes. Everything else is safe code.

pub mod convert;
#[doc(hidden)]
pub mod handout;
pub mod pool;
pub mod probe;
pub mod trace;

mod arena;
mod checksums;
mod crew;
mod diff;
mod error;
mod files;
mod headers;
mod image;
mod load;
mod loader;
mod locate;
mod mapping;
mod numa;
mod pieces;
mod process;
mod region;
mod scratch;
mod shelf;
mod signals;
mod source;
mod stream;
mod sync;
mod tensors;

pub use checksums::{Difference, Verdict, read_manifest};
pub use diff::{Change, Diff, Place, TensorDiff};
pub use error::Error;
pub use floodtide_core::checksum::Checksum;
pub use floodtide_core::manifest::Manifest;
pub use floodtide_core::strategy::Backend;
pub use floodtide_core::{
    Alignment, Catalog, Cut, DType, ElementType, Escaped, Format, GgmlType, Glob, Location, MemoryLimit, MetadataList,
    MetadataValue, Order, Plan, Progress, Selection, ShardRules, TensorInfo,
};
pub use load::Load;
pub use loader::{Inspected, Loader, Planned};
pub use process::{raise_open_file_limit, report_file_size_limit};
#[cfg(feature = "tokio")]
pub use stream::AsyncTensorStream;
pub use stream::TensorStream;
pub use tensors::{Element, Report, Tensor, Tensors, ViewError};

/// What takes a stream in by itself: [`TensorStream::send_to`].
pub mod sink {
    pub use crate::stream::WriterSink;
    pub use floodtide_core::stream::{PourError, Sink, Staged, StagedPart, Ticket};
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
