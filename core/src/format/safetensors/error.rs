//! The errors of the safetensors parser, one variant per rule, so that a test can name the rule
//! that it violates.

use crate::dtype::DType;
use crate::escape::Quoted;
use crate::format::dims::Dims;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// A violated rule of the format. Offsets are in bytes from the start of the data unless stated
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum HeaderError {
    /// The file is too short for the length of the header.
    #[error(
        "the file has {file_len} bytes, but a safetensors file starts with 8 bytes of header length; \
         it is empty, cut off or of another format"
    )]
    FileTooShort { file_len: u64 },
    /// The header is larger than [`MAX_HEADER_BYTES`](super::MAX_HEADER_BYTES).
    #[error(
        "the first 8 bytes claim a header of {claimed} bytes, but at most 100000000 are allowed; \
         this is not a safetensors file, or it is damaged"
    )]
    TooLarge { claimed: u64 },
    /// The header extends past the end of the file.
    #[error(
        "the header claims {claimed} bytes after the first 8, but the file has only {file_len} bytes; \
         it is cut off or not a safetensors file: fetch it again"
    )]
    PastEnd { claimed: u64, file_len: u64 },
    /// The header is not UTF-8.
    #[error("the header is not UTF-8 from its byte {at} on; this is not a safetensors file, or it is damaged")]
    NotUtf8 { at: u64 },
    /// The entry of a tensor is malformed.
    #[error("the header is not valid safetensors JSON: {message}; the file is damaged or of another format")]
    Json { message: String },
    /// Two tensors have the same name.
    #[error(
        "the header's entry for tensor \"{}\" is not valid: {message}; the file is damaged or was written wrongly",
        Quoted(name)
    )]
    Entry { name: String, message: String },
    /// A range is reversed.
    #[error(
        "tensor \"{}\" occurs twice in the header; names must be unique: \
         the writer is faulty, write the file again",
        Quoted(name)
    )]
    DuplicateName { name: String },
    /// Some bytes belong to no tensor.
    #[error(
        "tensor \"{}\" has data_offsets [{begin}, {end}]: its end precedes its start; the header is damaged",
        Quoted(name)
    )]
    EndBeforeBegin { name: String, begin: u64, end: u64 },
    /// Some bytes belong to two tensors.
    #[error(
        "tensor \"{}\" starts at data offset {begin}, expected {expected}, where the tensor before it ends: \
         the bytes between belong to no tensor; \
         write the file again with the safetensors library",
        Quoted(name)
    )]
    Hole { name: String, expected: u64, begin: u64 },
    /// The size of a tensor overflows.
    #[error(
        "tensor \"{}\" starts at data offset {begin}, expected {expected}, where the tensor before it ends: \
         the two overlap; \
         write the file again with the safetensors library",
        Quoted(name)
    )]
    Overlap { name: String, expected: u64, begin: u64 },
    /// A packed tensor ends inside a byte.
    #[error(
        "tensor \"{}\" has shape {}, whose size in bits does not fit in 64 bits; the header is damaged",
        Quoted(name),
        Dims(shape)
    )]
    ShapeOverflow { name: String, shape: Vec<u64> },
    /// A packed tensor ends inside a byte.
    #[error(
        "tensor \"{}\" of dtype {dtype} has {bits} bits, which is not a whole number of bytes; \
         the header is damaged, or the tensor's last dimension must be padded before saving",
        Quoted(name)
    )]
    PartialByte { name: String, dtype: DType, bits: u64 },
    /// The file ends before the last tensor does. Both numbers are lengths of the file.
    #[error(
        "tensor \"{}\" of dtype {dtype} and shape {} takes {expected} bytes, but its data_offsets span {found}; \
         the header is damaged",
        Quoted(name),
        Dims(shape)
    )]
    SizeMismatch { name: String, dtype: DType, shape: Vec<u64>, expected: u64, found: u64 },
    /// The file continues after the last tensor. Both numbers are lengths of the file.
    #[error(
        "the file has {found} bytes, but its header describes {expected}: it is cut off; \
         fetch it again or finish the download"
    )]
    Truncated { expected: u64, found: u64 },
    /// The file goes on after the last tensor. Both are lengths of the file.
    #[error(
        "the file has {found} bytes, but its header describes {expected}: the bytes after them belong to no tensor; \
         fetch it again, or write the file again with the safetensors library"
    )]
    TrailingBytes { expected: u64, found: u64 },
}
