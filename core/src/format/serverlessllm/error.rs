//! What can be wrong with a ServerlessLLM checkpoint: one variant a rule, so that a test can name the rule it breaks.

use super::{Dialect, partition_name};
use crate::dtype::DType;
use crate::escape::Quoted;
use crate::format::dims::Dims;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// A broken rule of the format, or an index and partitions that do not belong together. Offsets are as the index gives them: of the original
/// dialect from the first byte of the first partition, of Tensora's from the start of the record's own.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ServerlessLlmError {
    /// Not the JSON that the format asks for.
    #[error("the index is not the JSON expected, an object of records: {message}; it is damaged or of another format")]
    Json { message: String },
    /// A record is not what the format asks for.
    #[error(
        "the index's record for tensor \"{}\" is not valid: {message}; the index is damaged or was written wrongly",
        Quoted(name)
    )]
    Record { name: String, message: String },
    /// Two records of one name.
    #[error("tensor \"{}\" occurs twice in the index; names must be unique: save the model again", Quoted(name))]
    DuplicateName { name: String },
    /// Records of 5 and of 6 elements.
    #[error(
        "the record of tensor \"{}\" is of {found}, but those before it are of {expected}; an index keeps to one: it was put together \
         from two, save the model again",
        Quoted(name)
    )]
    MixedDialects { name: String, expected: Dialect, found: Dialect },
    /// A dtype that the dialect does not have.
    #[error(
        "tensor \"{}\" has the dtype \"{}\", which {dialect} does not have; it has {}: convert the tensor to one of these and save the model \
         again, or update floodtide if the dtype is a newer one",
        Quoted(name),
        Quoted(dtype),
        dialect.dtypes()
    )]
    UnknownDtype { name: String, dtype: String, dialect: Dialect },
    /// Not a stride for each dimension.
    #[error(
        "tensor \"{}\" has shape {}, but strides {}: there is to be one for each dimension; the index was written wrongly, save the model again",
        Quoted(name),
        Dims(shape),
        Dims(strides)
    )]
    StrideCount { name: String, shape: Vec<u64>, strides: Vec<u64> },
    /// Its elements do not lie one after another.
    #[error(
        "tensor \"{}\" of shape {} has strides {}, so its elements are not stored in row-major order, as floodtide needs them; save the \
         model again with this tensor made contiguous (`.contiguous()`)",
        Quoted(name),
        Dims(shape),
        Dims(strides)
    )]
    NotContiguous { name: String, shape: Vec<u64>, strides: Vec<u64> },
    /// More bytes than can be counted.
    #[error(
        "tensor \"{}\" has shape {}, whose size in bytes does not fit in 64 bits; the index is damaged",
        Quoted(name),
        Dims(shape)
    )]
    ShapeOverflow { name: String, shape: Vec<u64> },
    /// A packed type that ends inside a byte.
    #[error(
        "tensor \"{}\" of dtype {dtype} and shape {} ends inside a byte; the index is damaged",
        Quoted(name),
        Dims(shape)
    )]
    PartialByte { name: String, dtype: DType, shape: Vec<u64> },
    /// Shape and size disagree. Too large it is when the tensor was a view of a larger storage: where in it, the format does not say.
    #[error(
        "tensor \"{}\" of dtype {dtype} and shape {} takes {expected} bytes, but its record has {found}; the index is damaged, or the tensor \
         was saved as a view of something larger: save it again as a tensor of its own (`.clone()`)",
        Quoted(name),
        Dims(shape)
    )]
    SizeMismatch { name: String, dtype: DType, shape: Vec<u64>, expected: u64, found: u64 },
    /// A record ends after the last byte of offsets.
    #[error(
        "tensor \"{}\" has {size} bytes at offset {offset}, which end past every offset there is; the index is damaged",
        Quoted(name)
    )]
    OffsetOverflow { name: String, offset: u64, size: u64 },
    /// A record ends after the last partition.
    #[error(
        "tensor \"{}\" lies at {offset}..{end}, but all {count} partitions together have {bytes} bytes: a partition is missing or cut off; \
         fetch the files again",
        Quoted(name)
    )]
    PastEnd { name: String, offset: u64, end: u64, count: u32, bytes: u64 },
    /// A record ends after its partition.
    #[error(
        "tensor \"{}\" lies at {offset}..{end} of \"{}\", but that file has {bytes} bytes: it is cut off; fetch it again",
        Quoted(name),
        partition_name(*partition)
    )]
    PastPartition { name: String, partition: u32, offset: u64, end: u64, bytes: u64 },
    /// A record lies in two partitions.
    #[error(
        "tensor \"{}\" lies at {offset}..{end}, but \"{}\" ends at {boundary}, and no record is split: a partition has another length than \
         it was saved with; fetch the files again",
        Quoted(name),
        partition_name(*partition)
    )]
    CrossesPartition { name: String, partition: u32, offset: u64, end: u64, boundary: u64 },
    /// A record names a partition that is not there.
    #[error(
        "tensor \"{}\" is in partition {partition}, but there are {count} here, numbered from 0; fetch \"tensor.data_{partition}\"",
        Quoted(name)
    )]
    NoSuchPartition { name: String, partition: u64, count: u32 },
    /// Two records share some of their bytes, but not all.
    #[error(
        "tensors \"{}\" and \"{}\" overlap from offset {offset} of \"{}\" on, but are not the same bytes; the index is damaged",
        Quoted(first),
        Quoted(second),
        partition_name(*partition)
    )]
    Overlap { first: String, second: String, partition: u32, offset: u64 },
    /// A partition that no record lies in.
    #[error(
        "no tensor lies in \"{}\", which has {bytes} bytes: it is of another model or the index is; remove the one that does not belong here",
        partition_name(*partition)
    )]
    UnusedPartition { partition: u32, bytes: u64 },
    /// The index is alone.
    #[error(
        "no partition is beside the index: expected files \"{}\" and so on; fetch them, or name the folder that has them",
        partition_name(0)
    )]
    NoPartition,
    /// There is a gap in the numbers.
    #[error("\"{}\" is missing beside the index, although \"{}\" is there; fetch it or finish the download", partition_name(*missing), partition_name(*next))]
    MissingPartition { missing: u32, next: u32 },
    /// The name of a partition, nearly.
    #[error(
        "\"{}\" is beside the index, but no partition is numbered so; rename it, or remove it if it is not one",
        Quoted(found)
    )]
    PartitionName { found: String },
    /// The partitions together are longer than offsets reach.
    #[error("the partitions are longer together than any offset; some of them are not what they should be")]
    TooLong,
}
