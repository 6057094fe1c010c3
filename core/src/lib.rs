//! The core of floodtide: every decision of a checkpoint load, and none of its I/O.
//!
//! A load flows one way. The bytes of the headers go through a parser of [`format`] into a
//! [`Catalog`]; a [`Selection`] says which of its tensors are selected; the [`Planner`] turns both
//! into a [`Plan`], in which every read and the final place of every byte is fixed; the [`Engine`]
//! hands the reads out and takes their outcomes back, until every tensor is complete or the load has
//! failed. A platform crate implements [`ReadSource`] and runs a [`Worker`] for each of its threads
//! or rings; the [`strategy`] says how many, with requests of which size, and why. A [`stream`]
//! passes a checkpoint through a few buffers, whose memory a [`pool`] lends under a limit.
//!
//! Nothing here performs a system call, reads a clock or starts a thread, so a simulator can run
//! all of it.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "the tests' numbers are small"))]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod checksum;
pub mod convert;
pub mod direct_io_fallback;
pub mod format;
pub mod manifest;
pub mod middleware;
pub mod pool;
pub mod storage;
pub mod strategy;
pub mod stream;
pub mod sync;
pub mod tune;

mod backend;
mod catalog;
mod dtype;
mod element;
mod engine;
mod error;
mod escape;
mod file_version;
mod format_id;
mod glob;
mod metadata;
mod names;
mod plan;
mod profile;
#[cfg_attr(not(floodtide_seeded_bugs), allow(unused_macros, reason = "the seeded bugs are off"))]
#[doc(hidden)]
pub mod seeded_bug;
mod selection;
mod shard;
mod source;
mod strided_range;
mod tensor_slice;
mod units;
mod verify;
mod warning;
mod write_only;

pub use backend::{Backend, ReadStyle};
pub use catalog::{Catalog, CatalogBuilder, FileInfo, TensorInfo};
pub use dtype::DType;
pub use element::{ElementType, GgmlType};
pub use engine::{
    BufferProvider, Disposition, Engine, EngineHandle, Event, Progress, Readiness, RetryStats, Worker, WorkerState,
    complete_chunk, next_read,
};
pub use error::{Error, ErrorKind, FormatError};
pub use escape::{Escaped, Quoted};
pub use file_version::FileVersion;
pub use format_id::FormatId;
pub use glob::{Glob, GlobError};
pub use metadata::{MetadataList, MetadataValue};
pub use plan::{
    Access, Buffers, Chunk, Extent, Gather, Location, MemoryLimit, Method, Order, PlacedPart, Placement, Plan,
    PlanOptions, Planner, ReadMode, tensor_alignment,
};
pub use selection::Selection;
pub use shard::{Partition, ShardRules};
pub use source::{Buffer, Completion, Fault, Outcome, ReadId, ReadOp, ReadSource, Rejected, SourceError};
pub use strided_range::StridedRange;
pub use tensor_slice::{Slice, TensorSlice};
pub use units::{
    Alignment, ByteRange, ChunkId, DirectLimits, ExtentId, FileId, HumanBytes, RouteId, TensorId, to_usize,
};
pub use verify::{ContentHashes, Verification};
pub use warning::Warning;
pub use write_only::WriteOnly;
