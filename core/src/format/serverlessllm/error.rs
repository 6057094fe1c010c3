//! The errors of the ServerlessLLM parser, one variant per rule, so that a test can name the rule
//! that it violates.

use super::{Dialect, partition_name};
use crate::dtype::DType;
use crate::escape::Quoted;
use crate::format::dims::Dims;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// A violated rule of the format, or an index that does not match its partitions.
///
/// Offsets are as in the index. The original dialect counts from the start of the first partition,
/// Tensora's from the start of the record's own.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum ServerlessLlmError {
    /// The index is not the required JSON.
    #[error("the index is not the JSON expected, an object of records: {message}; it is damaged or of another format")]
    Json { message: String },
    /// A record is malformed.
    #[error(
        "the index's record for tensor \"{}\" is not valid: {message}; the index is damaged or was written wrongly",
        Quoted(name)
    )]
    Record { name: String, message: String },
    /// Two records have the same name.
    #[error("tensor \"{}\" occurs twice in the index; names must be unique: save the model again", Quoted(name))]
    DuplicateName { name: String },
    /// The index mixes records of 5 and of 6 elements.
    #[error(
        "the record of tensor \"{}\" is of {found}, but those before it are of {expected}; the index was merged from two dialects: \
         save the model again",
        Quoted(name)
    )]
    MixedDialects { name: String, expected: Dialect, found: Dialect },
    /// The dialect does not have this dtype.
    #[error(
        "tensor \"{}\" has the dtype \"{}\", which {dialect} does not have; it has {}: convert the tensor to one of these and save the model \
         again, or update floodtide if the dtype is a newer one",
        Quoted(name),
        Quoted(dtype),
        dialect.dtypes()
    )]
    UnknownDtype { name: String, dtype: String, dialect: Dialect },
    /// A tensor does not have one stride per dimension.
    #[error(
        "tensor \"{}\" has shape {}, but strides {}: expected one for each dimension; the writer is faulty, save the model again",
        Quoted(name),
        Dims(shape),
        Dims(strides)
    )]
    StrideCount { name: String, shape: Vec<u64>, strides: Vec<u64> },
    /// The elements of a tensor are not contiguous.
    #[error(
        "tensor \"{}\" of shape {} has strides {}, so its elements are not stored in row-major order, as floodtide needs them; save the \
         model again with this tensor made contiguous (`.contiguous()`)",
        Quoted(name),
        Dims(shape),
        Dims(strides)
    )]
    NotContiguous { name: String, shape: Vec<u64>, strides: Vec<u64> },
    /// The size of a tensor overflows.
    #[error(
        "tensor \"{}\" has shape {}, whose size in bytes does not fit in 64 bits; the index is damaged",
        Quoted(name),
        Dims(shape)
    )]
    ShapeOverflow { name: String, shape: Vec<u64> },
    /// A packed tensor ends inside a byte.
    #[error(
        "tensor \"{}\" of dtype {dtype} and shape {} ends inside a byte; the index is damaged",
        Quoted(name),
        Dims(shape)
    )]
    PartialByte { name: String, dtype: DType, shape: Vec<u64> },
    /// Shape and size contradict each other.
    ///
    /// The size is too large if the tensor was a view of a larger storage. The format does not
    /// record where in it.
    #[error(
        "tensor \"{}\" of dtype {dtype} and shape {} takes {expected} bytes, but its record has {found}; the index is damaged, or the tensor \
         was saved as a view of something larger: save it again as a tensor of its own (`.clone()`)",
        Quoted(name),
        Dims(shape)
    )]
    SizeMismatch { name: String, dtype: DType, shape: Vec<u64>, expected: u64, found: u64 },
    /// The end of a record overflows.
    #[error(
        "tensor \"{}\" has {size} bytes at offset {offset}, which exceed the range of offsets; the index is damaged",
        Quoted(name)
    )]
    OffsetOverflow { name: String, offset: u64, size: u64 },
    /// A record extends past the last partition.
    #[error(
        "tensor \"{}\" is at {offset}..{end}, but all {count} partitions together have {bytes} bytes: a partition is missing or cut off; \
         fetch the files again",
        Quoted(name)
    )]
    PastEnd { name: String, offset: u64, end: u64, count: usize, bytes: u64 },
    /// A record extends past its partition.
    #[error(
        "tensor \"{}\" is at {offset}..{end} of \"{}\", but that file has {bytes} bytes: it is cut off; fetch it again",
        Quoted(name),
        partition_name(*partition)
    )]
    PastPartition { name: String, partition: u32, offset: u64, end: u64, bytes: u64 },
    /// A record spans two partitions.
    #[error(
        "tensor \"{}\" is at {offset}..{end}, but \"{}\" ends at {boundary}, and no record spans two: the length of a partition has \
         changed; fetch the files again",
        Quoted(name),
        partition_name(*partition)
    )]
    CrossesPartition { name: String, partition: u32, offset: u64, end: u64, boundary: u64 },
    /// A record names a missing partition.
    #[error(
        "tensor \"{}\" is in partition {partition}, but there are {count} here, numbered from 0; fetch \"tensor.data_{partition}\"",
        Quoted(name)
    )]
    NoSuchPartition { name: String, partition: u64, count: usize },
    /// Two records share some bytes, but not all.
    #[error(
        "tensors \"{}\" and \"{}\" overlap from offset {offset} of \"{}\" on, but are not the same bytes; the index is damaged",
        Quoted(first),
        Quoted(second),
        partition_name(*partition)
    )]
    Overlap { first: String, second: String, partition: u32, offset: u64 },
    /// A partition contains no tensor.
    #[error(
        "no tensor is in \"{}\", which has {bytes} bytes: it and the index are of different models; remove the wrong one",
        partition_name(*partition)
    )]
    UnusedPartition { partition: u32, bytes: u64 },
    /// The index has no partitions.
    #[error(
        "there are no partitions beside the index: expected files \"{}\" and so on; fetch them, or pass the folder that has them",
        partition_name(0)
    )]
    NoPartition,
    /// The numbers of the partitions have a gap.
    #[error("\"{}\" is missing beside the index, although \"{}\" is there; fetch it or finish the download", partition_name(*missing), partition_name(*next))]
    MissingPartition { missing: u32, next: u32 },
    /// A name resembles a partition's.
    #[error(
        "\"{}\" is beside the index, but its number is not valid for a partition; rename or remove it",
        Quoted(found)
    )]
    PartitionName { found: String },
    /// The partitions together exceed the range of offsets.
    #[error("the partitions are longer together than any offset; the files are damaged")]
    TooLong,
}
