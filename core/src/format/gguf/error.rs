//! The errors of the GGUF parser, one variant per rule, so that a test can name the rule that it
//! violates.

use super::value_type::ValueType;
use super::{MAX_ALIGNMENT, MAX_DIMS, MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_NAME_BYTES};
use crate::element::GgmlType;
use crate::escape::Quoted;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// A violated rule of the format. Offsets are in bytes from the start of the file unless stated
/// otherwise. Shapes are in ggml's order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum GgufError {
    /// The magic is wrong.
    #[error(
        "the file does not begin with \"GGUF\" (its first bytes are {found:02x?}); it is damaged or of another format"
    )]
    Magic { found: [u8; 4] },
    /// Version 1, of August 2023, is not supported.
    #[error(
        "GGUF version 1 is not supported, because its lengths have 32 bits; \
         convert the file with a current llama.cpp, or fetch a newer one"
    )]
    Version1,
    /// The version is unknown.
    #[error("this is a GGUF file of version {version}, but versions 2 and 3 are read; look for a newer floodtide")]
    UnknownVersion { version: u32 },
    /// The file is for big-endian machines.
    #[error(
        "the file is for big-endian machines (version {version} with its bytes reversed), which is not supported; \
         convert it with gguf_convert_endian.py of llama.cpp"
    )]
    BigEndian { version: u32 },
    /// A count is negative.
    #[error("the header claims {count} {what}; a count must not be negative: the file is damaged")]
    NegativeCount { what: &'static str, count: i64 },
    /// The header claims more keys and tensors than the file has room for.
    #[error(
        "the header claims {tensors} tensors and {keys} metadata values, which need at least {min} bytes, but the file has \
         {file_len}; it is cut off or damaged"
    )]
    Counts { tensors: u64, keys: u64, min: u128, file_len: u64 },
    /// The header is larger than the limit.
    #[error(
        "the header extends to at least byte {end}, but the limit is {MAX_HEADER_BYTES} bytes; the file is damaged"
    )]
    HeaderTooLarge { end: u64 },
    /// The file ends within its header.
    #[error(
        "{position} needs {needed} bytes from byte {at} on, but the file has only {file_len}; it is cut off or damaged: \
         fetch it again"
    )]
    PastEnd { position: HeaderPosition, at: u64, needed: u64, file_len: u64 },
    /// A key is empty.
    #[error("metadata key number {number} is empty; the file is damaged or was written wrongly")]
    EmptyKey { number: u64 },
    /// A key is longer than the format allows.
    #[error("metadata key number {number} has {len} bytes, but a key has at most {MAX_KEY_BYTES}; the file is damaged")]
    KeyTooLong { number: u64, len: u64 },
    /// A key is not UTF-8.
    #[error("metadata key number {number} is not UTF-8 from its byte {at} on; the file is damaged")]
    KeyNotUtf8 { number: u64, at: u64 },
    /// A key occurs twice.
    #[error(
        "metadata key \"{}\" occurs twice; keys must be unique: the writer is faulty, write the file again",
        Quoted(key)
    )]
    DuplicateKey { key: String },
    /// A value has an unknown type.
    #[error("metadata key \"{}\" has a value of type {id}, expected 0 to 12; the file is damaged", Quoted(key))]
    UnknownValueType { key: String, id: i32 },
    /// An array has elements of an unknown type.
    #[error(
        "metadata key \"{}\" has an array of elements of type {id}, expected 0 to 12; the file is damaged",
        Quoted(key)
    )]
    UnknownElementType { key: String, id: i32 },
    /// An array contains arrays.
    #[error(
        "metadata key \"{}\" has an array of arrays, which readers do not support; write the file without it",
        Quoted(key)
    )]
    NestedArray { key: String },
    /// The alignment is not a u32.
    #[error("\"general.alignment\" is of type {found}, and must be u32; the file was written wrongly")]
    AlignmentType { found: ValueType },
    /// The alignment is not a power of two within the limit.
    #[error(
        "\"general.alignment\" is {found}, expected a power of two from 1 to {MAX_ALIGNMENT}; \
         the file is damaged or was written wrongly"
    )]
    Alignment { found: u32 },
    /// A tensor name is longer than ggml allows.
    #[error(
        "the name of tensor number {number} has {len} bytes, but names must have fewer than {MAX_NAME_BYTES}; the file is damaged"
    )]
    NameTooLong { number: u64, len: u64 },
    /// A tensor name is not UTF-8.
    #[error("the name of tensor number {number} is not UTF-8 from its byte {at} on; the file is damaged")]
    NameNotUtf8 { number: u64, at: u64 },
    /// Two tensors have the same name.
    #[error("the name of tensor number {number} has a zero byte at {at}, where ggml would end it; the file is damaged")]
    NameZeroByte { number: u64, at: u64 },
    /// A range is reversed.
    #[error(
        "tensor \"{}\" occurs twice in the header; names must be unique: the writer is faulty, write the file again",
        Quoted(name)
    )]
    DuplicateName { name: String },
    /// More dimensions than ggml has.
    #[error(
        "tensor \"{}\" has {dims} dimensions, but at most {MAX_DIMS} are allowed; the file is damaged",
        Quoted(name)
    )]
    TooManyDims { name: String, dims: u32 },
    /// A dimension below zero.
    #[error("tensor \"{}\" has length {len} in dimension {dim}, which is negative; the file is damaged", Quoted(name))]
    NegativeDim { name: String, dim: u32, len: i64 },
    /// The size of a tensor overflows. A dimension of zero counts as one here, because no order of
    /// multiplication may overflow.
    #[error(
        "tensor \"{}\" of type {ggml} has shape {shape:?}, whose size does not fit in 63 bits; the file is damaged",
        Quoted(name)
    )]
    Overflow { name: String, ggml: GgmlType, shape: Vec<u64> },
    /// The type of a tensor is unknown.
    #[error(
        "tensor \"{}\" is of ggml type {id}, which is unknown; the file is damaged, or newer than this floodtide",
        Quoted(name)
    )]
    UnknownType { name: String, id: i32 },
    /// ggml has removed the type of a tensor.
    #[error(
        "tensor \"{}\" is of ggml type {id}, which ggml has removed; quantise the model again with a current llama.cpp",
        Quoted(name)
    )]
    RemovedType { name: String, id: i32 },
    /// A row ends inside a block.
    #[error(
        "tensor \"{}\" of type {ggml} has rows of {len} elements, which is not a multiple of its block length {}; the file is damaged",
        Quoted(name),
        ggml.block_elements()
    )]
    PartialBlock { name: String, ggml: GgmlType, len: u64 },
    /// Tensors are out of order, overlap or leave a gap. Both offsets are from the start of the
    /// data.
    #[error(
        "tensor \"{}\" starts at data offset {found}, expected {expected}, where the one before it ends with its padding: \
         tensors must be contiguous",
        Quoted(name)
    )]
    Offset { name: String, expected: u64, found: u64 },
    /// The file ends before its last tensor.
    #[error(
        "tensor \"{}\" ends at byte {expected}, but the file has {file_len} bytes: it is cut off; \
         fetch it again or finish the download",
        Quoted(name)
    )]
    Truncated { name: String, expected: u64, file_len: u64 },
}

/// A position in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderPosition {
    /// Magic, version and counts.
    Start,
    /// A key of the metadata, counted from 0.
    Key(u64),
    /// The value of this key.
    Value(String),
    /// The name of a tensor, counted from 0.
    Name(u64),
    /// The shape, type or offset of this tensor.
    Tensor(String),
}

impl fmt::Display for HeaderPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the start of the header"),
            Self::Key(number) => write!(f, "metadata key number {number}"),
            Self::Value(key) => write!(f, "the value of metadata key \"{}\"", Quoted(key)),
            Self::Name(number) => write!(f, "the name of tensor number {number}"),
            Self::Tensor(name) => write!(f, "the description of tensor \"{}\"", Quoted(name)),
        }
    }
}
