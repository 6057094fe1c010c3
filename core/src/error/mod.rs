//! The errors of core. Each names the file and, where they apply, the tensor and the offset.

pub(crate) mod convert;
mod kind;
pub(crate) mod manifest;

pub use kind::ErrorKind;

use crate::backend::Backend;
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
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum Error {
    /// A file or an index violates its format or contradicts the other files.
    #[error("{}: {source}", Escaped(file))]
    Format { file: String, source: FormatError },
    /// Two files of one checkpoint contain the same tensor name.
    #[error(
        "tensor \"{}\" is in two files, {} and {}; if they are variants of one model, load one of the files instead",
        Quoted(tensor),
        Escaped(first),
        Escaped(second)
    )]
    DuplicateTensor { tensor: String, first: String, second: String },
    /// The checkpoint has more entries than a table of core can number.
    #[error("the checkpoint has more {what} than can be numbered in 32 bits; select fewer tensors")]
    TooMany { what: &'static str },
    /// A glob is malformed.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A selected name that is not there.
    #[error("no tensor is named \"{}\"", Quoted(name))]
    NoSuchTensor { name: String },
    /// A glob matches no tensor. It is probably mistyped.
    #[error("no tensor matches \"{}\"", Quoted(glob))]
    NothingSelected { glob: String },
    /// A shard rule matches no tensor, so every rank would load the tensors that it was meant to
    /// divide.
    #[error(
        "the shard rule \"{}\" matches no tensor of the checkpoint; a pattern matches the whole name: \
         correct the pattern or remove the rule",
        Quoted(glob)
    )]
    UnmatchedShardRule { glob: String },
    /// A slice names a dimension that the tensor does not have.
    #[error(
        "tensor \"{}\" has no dimension {dim} to take a slice of: its shape is {}, and dimensions are counted from 0",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceDim { tensor: String, dim: u32, shape: Vec<u64> },
    /// A slice is empty, reversed or out of bounds.
    #[error(
        "tensor \"{}\" has no slice {start}..{end} of dimension {dim}: its shape is {}; a slice must \
         start before it ends and end within its dimension",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceRange { tensor: String, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A slice of packed elements starts or ends inside a byte.
    #[error(
        "the slice {start}..{end} of dimension {dim} of tensor \"{}\" (dtype {dtype}, shape {}) starts or ends inside a byte; \
         choose edges at whole bytes, or select the whole tensor",
        Quoted(tensor),
        Shape(shape)
    )]
    SliceBytes { tensor: String, dtype: DType, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A slice of quantised elements starts or ends inside a block.
    #[error(
        "the slice {start}..{end} of dimension {dim} of tensor \"{}\" (ggml type {dtype}, shape {}) starts or ends inside a block of {} \
         elements; choose edges at multiples of that, slice another dimension, or select the whole tensor",
        Quoted(tensor),
        Shape(shape),
        dtype.block_elements()
    )]
    SliceBlock { tensor: String, dtype: GgmlType, dim: u32, start: u64, end: u64, shape: Vec<u64> },
    /// A tensor is selected in two ways at once.
    #[error("tensor \"{}\" is selected in two ways; select all of it or one slice", Quoted(tensor))]
    SelectedTwice { tensor: String },
    /// A slice is selected for ranks, which would slice it again.
    #[error(
        "tensor \"{}\" is selected as a slice, which ranks cannot share; select the whole tensor, or for each rank its part \
         of the slice",
        Quoted(tensor)
    )]
    SliceOfSlice { tensor: String },
    /// The rank is not in the group.
    #[error("rank {rank} is out of range for {world} ranks; ranks start at 0")]
    NoSuchRank { rank: u32, world: u32 },
    /// The plan exceeds the available memory. `file` is the checkpoint's first.
    #[error(
        "{}: loading needs {} of memory, {} available ({limit}); select fewer tensors, \
         free memory, raise the limit, or stream the tensors",
        Escaped(file), HumanBytes(*needed), HumanBytes(*available)
    )]
    NotEnoughMemory { file: String, needed: u64, available: u64, limit: String },
    /// A tensor does not fit in the buffers of a stream.
    #[error(
        "tensor \"{}\" needs a buffer of {} ({needed} bytes), but the stream's memory limit is {}; raise the limit to at least \
         that, or take the tensors in parts (`for_each_part`, `send_to`)",
        Quoted(tensor), HumanBytes(*needed), HumanBytes(*limit)
    )]
    BufferTooSmall { tensor: String, needed: u64, limit: u64 },
    /// The plan of a stream needs more memory than the stream may use.
    #[error(
        "streaming {} through buffers of {} needs more buffers than a memory limit of {} allows; raise the limit or \
         select fewer tensors",
        HumanBytes(*bytes), HumanBytes(*buffer_bytes), HumanBytes(*limit)
    )]
    TooManyBuffers { bytes: u64, buffer_bytes: u64, limit: u64 },
    /// The plan exceeds the address space of this target.
    #[error("loading needs {}, which exceeds this machine's address space; select fewer tensors", HumanBytes(*needed))]
    AddressSpace { needed: u64 },
    /// A file ended early during the load.
    #[error(
        "{}: the file ends at byte {found}, but tensor \"{}\" ends at byte {expected}; \
         the file was cut off after its header was read: load it again when it is complete",
        Escaped(file),
        Quoted(tensor)
    )]
    Truncated { file: String, tensor: String, expected: u64, found: u64 },
    /// A read failed permanently.
    #[error("{}: reading tensor \"{}\" at byte {offset} failed: {fault}", Escaped(file), Quoted(tensor))]
    Read { file: String, tensor: String, offset: u64, fault: Fault },
    /// The requested conversion is impossible.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A slice was selected for verification.
    #[error(
        "tensor \"{}\" is loaded in part, which cannot be verified: a manifest has checksums of whole tensors; load it whole or without \
         verification",
        Quoted(tensor)
    )]
    SliceUnverifiable { tensor: String },
    /// The manifest lacks a tensor that is to be verified.
    #[error("tensor \"{}\" is not in the manifest, so it cannot be verified", Quoted(tensor))]
    NotInManifest { tensor: String },
    /// The manifest has another dtype or shape for a tensor.
    #[error(
        "tensor \"{}\" has dtype {dtype} and shape {}, but the manifest says {manifest_dtype} and {}; the manifest describes another checkpoint, \
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
    /// The bytes of a tensor do not match the manifest.
    #[error(
        "{}: tensor \"{}\" (bytes {start}..{end} of the file) does not match the manifest: its BLAKE3 is {found}, expected {expected}; \
         fetch the file again, and if it still differs, check the disk's health",
        Escaped(file),
        Quoted(tensor)
    )]
    Mismatch { file: String, tensor: String, start: u64, end: u64, expected: Box<Checksum>, found: Box<Checksum> },
    /// A manifest violates its format.
    #[error("{}: {source}", Escaped(file))]
    Manifest { file: String, source: ManifestError },
    /// The requested backend is not available, or the backend of a load was refused and no other
    /// may replace it.
    #[error("the backend {backend} is not available: {why}; choose another, or let floodtide choose")]
    BackendUnavailable { backend: Backend, why: String },
    /// The caller cancelled the load.
    #[error("the load was cancelled")]
    Cancelled,
    /// The platform under the engine failed as a whole, for example its ring. It chooses the kind.
    #[error("{message}")]
    Platform { kind: ErrorKind, message: String },
    /// A platform violated the engine's contract. This is a defect of floodtide, not of the
    /// checkpoint.
    #[error("internal error: {what}; please report this")]
    Contract { what: &'static str },
}

impl Error {
    /// Creates the error for a file that violates its format.
    pub fn format(file: impl Into<String>, source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self::Format { file: file.into(), source: FormatError(Arc::from(source.into())) }
    }
}

/// The error of a format's parser. Two are equal if their messages are.
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
    /// Returns the parser's error if it has type `E`.
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

/// Displays a shape, shortened if it has many dimensions.
pub(crate) struct Shape<'a>(pub(crate) &'a [u64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        match self.0.get(..SHOWN) {
            Some(shown) if self.0.len() > SHOWN => write!(f, "{shown:?} and {} more dimensions", self.0.len() - SHOWN),
            _ => write!(f, "{:?}", self.0),
        }
    }
}
