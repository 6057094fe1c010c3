//! The errors of core. Each names the file, and where there is one the tensor and the offset.

pub(crate) mod convert;
mod kind;
pub(crate) mod manifest;

pub use kind::ErrorKind;

use crate::checksum::Checksum;
use crate::dtype::DType;
use crate::element::{ElementType, GgmlType};
use crate::escape::{Escaped, Quoted};
use crate::glob::GlobError;
use crate::source::Fault;
use crate::units::HumanBytes;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use convert::ConvertError;
use core::fmt;
use manifest::ManifestError;
use thiserror::Error;

/// Why a checkpoint could not be described, planned or loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Error {
    /// A file or an index breaks a rule of its format, or disagrees with the others.
    #[error("{}: {source}", Escaped(file))]
    Format { file: String, source: FormatError },
    /// Two files of one checkpoint hold the same name.
    #[error(
        "tensor \"{}\" is in two files, {} and {}; if they are variants of one model, name one of the files instead",
        Quoted(tensor),
        Escaped(first),
        Escaped(second)
    )]
    DuplicateTensor { tensor: String, first: String, second: String },
    /// A table of core would outgrow its numbers.
    #[error("the checkpoint has more {what} than can be numbered in 32 bits; select fewer tensors")]
    TooMany { what: &'static str },
    /// A glob that cannot be read.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A selected name that is not there.
    #[error("no tensor is named \"{}\"", Quoted(name))]
    NoSuchTensor { name: String },
    /// A glob that matches nothing, as it was most likely mistyped.
    #[error("no tensor matches \"{}\"", Quoted(glob))]
    NothingSelected { glob: String },
    /// A rule for ranks whose pattern matches nothing, so that what it was to cut would be whole.
    #[error(
        "the shard rule \"{}\" matches no tensor of the checkpoint; a pattern matches the whole name: \
         mend the pattern, or leave the rule out",
        Quoted(glob)
    )]
    UnmatchedShardRule { glob: String },
    /// A slice of a dimension that the tensor does not have.
    #[error(
        "tensor \"{}\" has no dimension {dim} to take a slice of: its shape is {}, and dimensions are counted from 0",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceDim { tensor: String, dim: u32, shape: Vec<u64> },
    /// A slice that runs backwards or passes the end.
    #[error(
        "tensor \"{}\" has no slice {start}..{end} of dimension {dim}: its shape is {}; a slice begins before it ends, and ends \
         within its dimension",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceRange { tensor: String, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A slice of packed elements that cuts a byte in two.
    #[error(
        "the slice {start}..{end} of dimension {dim} of tensor \"{}\" (dtype {dtype}, shape {}) begins or ends inside a byte; \
         choose one whose edges are whole bytes, or take the tensor whole",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceBytes { tensor: String, dtype: DType, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A slice of quantised elements that cuts a block in two.
    #[error(
        "the slice {start}..{end} of dimension {dim} of tensor \"{}\" (ggml type {dtype}, shape {}) begins or ends inside a block of {} \
         elements; choose one whose edges are multiples of that, a slice of another dimension, or take the tensor whole",
        Quoted(tensor),
        Shape(shape),
        dtype.block_elements()
    )]
    SliceBlock { tensor: String, dtype: GgmlType, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A tensor is selected in two ways at once.
    #[error("tensor \"{}\" is selected in two ways at once; select all of it, or one slice", Quoted(tensor))]
    SelectedTwice { tensor: String },
    /// A slice that is to be shared by ranks, which would cut it again.
    #[error(
        "tensor \"{}\" is selected as a slice, and a slice is not cut again for ranks; select the whole tensor, or for each rank its part of \
         the slice",
        Quoted(tensor)
    )]
    SliceOfSlice { tensor: String },
    /// A rank that the group does not have.
    #[error("there is no rank {rank} among {world}; ranks are counted from 0")]
    NoSuchRank { rank: u32, world: u32 },
    /// The plan would not fit. `file` is the checkpoint's first.
    #[error(
        "{}: loading takes {} of memory, but only {} can be had ({limit}); select fewer tensors, \
         free memory or raise the limit, or stream the tensors through less",
        Escaped(file), HumanBytes(*needed), HumanBytes(*available)
    )]
    NotEnoughMemory { file: String, needed: u64, available: u64, limit: String },
    /// A tensor is longer than the buffers of a stream may be.
    #[error(
        "tensor \"{}\" needs a buffer of {} ({needed} bytes), but the stream may have {} in all; raise the memory limit to at least \
         that, or take the tensors in parts (`for_each_chunk`, `send_to`)",
        Quoted(tensor), HumanBytes(*needed), HumanBytes(*limit)
    )]
    BufferTooSmall { tensor: String, needed: u64, limit: u64 },
    /// A stream's plan would take more memory than the stream.
    #[error(
        "streaming {} through buffers of {} takes more buffers than a memory limit of {} allows to plan; raise the limit, or \
         select fewer tensors",
        HumanBytes(*bytes), HumanBytes(*buffer_bytes), HumanBytes(*limit)
    )]
    TooManyBuffers { bytes: u64, buffer_bytes: u64, limit: u64 },
    /// The plan would not fit in this target's address space.
    #[error("loading takes {}, more than this machine can address; select fewer tensors", HumanBytes(*needed))]
    AddressSpace { needed: u64 },
    /// A file ended early while it was read.
    #[error(
        "{}: the file ends at byte {found}, but tensor \"{}\" goes on to byte {expected}; \
         it was cut off after its header was read: load it again when it is whole",
        Escaped(file),
        Quoted(tensor)
    )]
    Truncated { file: String, tensor: String, expected: u64, found: u64 },
    /// A read failed for good.
    #[error("{}: reading tensor \"{}\" at byte {offset} failed: {fault}", Escaped(file), Quoted(tensor))]
    Read { file: String, tensor: String, offset: u64, fault: Fault },
    /// A checkpoint cannot be written as it was asked for.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A slice is to be verified.
    #[error(
        "tensor \"{}\" is loaded in part, which cannot be verified: a manifest has checksums of whole tensors; load it whole, or without \
         verification",
        Quoted(tensor)
    )]
    SliceUnverifiable { tensor: String },
    /// A tensor is to be verified that the manifest does not have.
    #[error("tensor \"{}\" is not in the manifest, so it cannot be verified", Quoted(tensor))]
    NotInManifest { tensor: String },
    /// A tensor is of another kind in the manifest.
    #[error(
        "tensor \"{}\" has dtype {dtype} and shape {}, but the manifest says {manifest_dtype} and {}; the manifest is of another checkpoint, \
         or one of the two was changed",
        Quoted(tensor),
        Shape(shape),
        Shape(manifest_shape)
    )]
    ManifestDiffers {
        tensor: String,
        dtype: ElementType,
        shape: Vec<u64>,
        manifest_dtype: ElementType,
        manifest_shape: Vec<u64>,
    },
    /// A tensor's bytes are not those that the manifest was made of.
    #[error(
        "{}: tensor \"{}\" (bytes {start}..{end} of the file) is not what the manifest says: its BLAKE3 is {found}, expected {expected}; \
         fetch the file again, and if it stays so, look at the disk's health",
        Escaped(file),
        Quoted(tensor)
    )]
    Mismatch { file: String, tensor: String, start: u64, end: u64, expected: Box<Checksum>, found: Box<Checksum> },
    /// A manifest breaks a rule.
    #[error("{}: {source}", Escaped(file))]
    Manifest { file: String, source: ManifestError },
    /// The caller gave the load up.
    #[error("the load was cancelled")]
    Cancelled,
    /// The platform under the engine failed as a whole, for example its ring.
    #[error("{message}")]
    Platform { message: String },
    /// A platform broke the engine's contract. This is a defect of floodtide, never of the checkpoint.
    #[error("internal error: {what}; please report this")]
    Contract { what: &'static str },
}

impl Error {
    /// Returns the error for a file that breaks a rule of its format.
    pub fn format(file: impl Into<String>, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self::Format { file: file.into(), source: FormatError(Arc::from(source.into())) }
    }
}

/// A broken rule of a format: the error of its parser. Two are equal when their messages are.
///
/// ```
/// use floodtide_core::Error;
/// use floodtide_core::format::gguf::GgufError;
///
/// let Error::Format { source, .. } = Error::format("model.gguf", GgufError::Version1) else { unreachable!() };
/// assert_eq!(source.downcast_ref(), Some(&GgufError::Version1));
/// ```
#[derive(Debug, Clone, Error)]
#[error(transparent)]
pub struct FormatError(Arc<dyn core::error::Error + Send + Sync>);

impl FormatError {
    /// Returns the parser's error, if it is of that type.
    #[must_use]
    pub fn downcast_ref<E: core::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl PartialEq for FormatError {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for FormatError {}

/// A shape, which may have more dimensions than anyone reads.
pub(crate) struct Shape<'a>(pub(crate) &'a [u64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        match self.0.get(..SHOWN) {
            Some(shown) if self.0.len() > SHOWN => write!(f, "{shown:?} and {} dimensions more", self.0.len() - SHOWN),
            _ => write!(f, "{:?}", self.0),
        }
    }
}
