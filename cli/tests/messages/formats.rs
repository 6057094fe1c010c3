//! One error of each kind that a format's parser or writer reports.

use crate::{model, text};
use floodtide::convert::{ConvertError, Converter, Rename, WriteError};
use floodtide::core::Error as CoreError;
use floodtide::core::convert::Offending;
use floodtide::core::format::gguf::{GgufError, HeaderPosition, SplitError, ValueType};
use floodtide::core::format::safetensors::HeaderError;
use floodtide::core::format::serverlessllm::{Dialect, ServerlessLlmError};
use floodtide::core::format::shard_index::IndexError;
use floodtide::core::format::{GGUF, SAFETENSORS, SERVERLESSLLM};
use floodtide::core::manifest::ManifestError;
use floodtide::{DType, Error, GgmlType, Loader};

pub(crate) fn header_errors() -> Vec<HeaderError> {
    let name = || text("layer.weight");
    let shape = || vec![4, 6];
    vec![
        HeaderError::FileTooShort { file_len: 3 },
        HeaderError::TooLarge { claimed: 1 << 40 },
        HeaderError::PastEnd { claimed: 4096, file_len: 1024 },
        HeaderError::NotUtf8 { at: 12 },
        HeaderError::Json { message: text("EOF while parsing a value at line 1 column 0") },
        HeaderError::Entry { name: name(), message: text("missing field `shape`") },
        HeaderError::DuplicateName { name: name() },
        HeaderError::EndBeforeBegin { name: name(), begin: 8, end: 4 },
        HeaderError::Hole { name: name(), expected: 4, begin: 8 },
        HeaderError::Overlap { name: name(), expected: 8, begin: 4 },
        HeaderError::ShapeOverflow { name: name(), shape: vec![u64::MAX, 2] },
        HeaderError::PartialByte { name: name(), dtype: DType::F4, bits: 12 },
        HeaderError::SizeMismatch { name: name(), dtype: DType::F32, shape: shape(), expected: 96, found: 48 },
        HeaderError::Truncated { expected: 8192, found: 4096 },
        HeaderError::TrailingBytes { expected: 4096, found: 8192 },
    ]
}

pub(crate) fn index_errors() -> Vec<IndexError> {
    let (name, shard) = (|| text("layer.weight"), || text("model-00001-of-00002.safetensors"));
    vec![
        IndexError::Json { message: text("expected value at line 1 column 1") },
        IndexError::Empty,
        IndexError::DuplicateName { name: name() },
        IndexError::NotPlainName { name: name(), shard: text("../model.safetensors") },
        IndexError::NotInShard { name: name(), shard: shard() },
        IndexError::NotInIndex { name: name(), shard: shard() },
    ]
}

pub(crate) fn gguf_errors() -> Vec<GgufError> {
    let (name, key) = (|| text("layer.weight"), || text("general.name"));
    let position = HeaderPosition::Value(key());
    vec![
        GgufError::Magic { found: *b"GGML" },
        GgufError::Version1,
        GgufError::UnknownVersion { version: 9 },
        GgufError::BigEndian { version: 3 },
        GgufError::NegativeCount { what: "tensors", count: -1 },
        GgufError::Counts { tensors: 1 << 40, keys: 3, min: 1 << 45, file_len: 4096 },
        GgufError::HeaderTooLarge { end: 1 << 40 },
        GgufError::PastEnd { position, at: 4000, needed: 200, file_len: 4096 },
        GgufError::EmptyKey { number: 3 },
        GgufError::KeyTooLong { number: 3, len: 70_000 },
        GgufError::KeyNotUtf8 { number: 3, at: 5 },
        GgufError::DuplicateKey { key: key() },
        GgufError::UnknownValueType { key: key(), id: 13 },
        GgufError::UnknownElementType { key: key(), id: 13 },
        GgufError::NestedArray { key: key() },
        GgufError::AlignmentType { found: ValueType::ALL[0] },
        GgufError::Alignment { found: 48 },
        GgufError::NameTooLong { number: 3, len: 70 },
        GgufError::NameNotUtf8 { number: 3, at: 5 },
        GgufError::NameZeroByte { number: 3, at: 5 },
        GgufError::DuplicateName { name: name() },
        GgufError::TooManyDims { name: name(), dims: 5 },
        GgufError::NegativeDim { name: name(), dim: 1, len: -4 },
        GgufError::Overflow { name: name(), ggml: GgmlType::Q4_0, shape: vec![1 << 40, 1 << 40] },
        GgufError::UnknownType { name: name(), id: 99 },
        GgufError::RemovedType { name: name(), id: 4 },
        GgufError::PartialBlock { name: name(), ggml: GgmlType::Q4_0, len: 33 },
        GgufError::Offset { name: name(), expected: 64, found: 32 },
        GgufError::Truncated { name: name(), expected: 8192, file_len: 4096 },
    ]
}

pub(crate) fn split_errors() -> Vec<SplitError> {
    vec![
        SplitError::NotANumber { key: "split.no", found: ValueType::ALL[5], negative: true },
        SplitError::MissingKey { key: "split.no" },
        SplitError::NotAShard { number: 1, count: 3 },
        SplitError::Unnamed { number: 1, count: 3 },
        SplitError::Number { expected: 1, found: 2 },
        SplitError::Count { expected: 3, found: 4 },
        SplitError::Tensors { expected: 30, found: 29 },
    ]
}

pub(crate) fn serverlessllm_errors() -> Vec<ServerlessLlmError> {
    let name = || text("layer.weight");
    let shape = || vec![4, 6];
    let (partition, offset, size, bytes) = (1, 4096, 96, 4128);
    vec![
        ServerlessLlmError::Json { message: text("expected value at line 1 column 1") },
        ServerlessLlmError::Record { name: name(), message: text("invalid length 4") },
        ServerlessLlmError::DuplicateName { name: name() },
        ServerlessLlmError::MixedDialects { name: name(), expected: Dialect::Original, found: Dialect::Tensora },
        ServerlessLlmError::UnknownDtype { name: name(), dtype: text("torch.x"), dialect: Dialect::Original },
        ServerlessLlmError::StrideCount { name: name(), shape: shape(), strides: vec![1] },
        ServerlessLlmError::NotContiguous { name: name(), shape: shape(), strides: vec![1, 4] },
        ServerlessLlmError::ShapeOverflow { name: name(), shape: vec![u64::MAX, 2] },
        ServerlessLlmError::PartialByte { name: name(), dtype: DType::F4, shape: vec![3] },
        ServerlessLlmError::SizeMismatch { name: name(), dtype: DType::F32, shape: shape(), expected: 96, found: 48 },
        ServerlessLlmError::OffsetOverflow { name: name(), offset: u64::MAX, size },
        ServerlessLlmError::PastEnd { name: name(), offset, end: offset + size, count: 2, bytes },
        ServerlessLlmError::PastPartition { name: name(), partition, offset, end: offset + size, bytes },
        ServerlessLlmError::CrossesPartition { name: name(), partition, offset, end: offset + size, boundary: bytes },
        ServerlessLlmError::NoSuchPartition { name: name(), partition: 3, count: 2 },
        ServerlessLlmError::Overlap { first: name(), second: text("other"), partition, offset },
        ServerlessLlmError::UnusedPartition { partition, bytes },
        ServerlessLlmError::NoPartition,
        ServerlessLlmError::MissingPartition { missing: 1, next: 2 },
        ServerlessLlmError::PartitionName { found: text("tensor.data_01") },
        ServerlessLlmError::TooLong,
    ]
}

pub(crate) fn manifest_errors() -> Vec<ManifestError> {
    let name = || text("layer.weight");
    vec![
        ManifestError::Json { message: text("EOF while parsing a value at line 1 column 0") },
        ManifestError::Schema { found: text("torrent") },
        ManifestError::Version { found: 9 },
        ManifestError::TooLarge { bytes: 1 << 40 },
        ManifestError::DType { name: name(), found: text("F31") },
        ManifestError::WrongBytes { name: name(), dtype: DType::F32.into(), shape: vec![4, 6], bytes: 95 },
        ManifestError::NotHex { name: name(), field: "blake3", found: text("xyz") },
        ManifestError::DuplicateTensor { name: name() },
        ManifestError::DuplicateFile { name: model() },
        ManifestError::NotPlainName { name: text("../model.safetensors") },
    ]
}

pub(crate) fn convert_errors() -> Vec<ConvertError> {
    let tensor = || text("layer.weight");
    let (target, advice) = (SERVERLESSLLM, "write them as safetensors");
    let too_large = WriteError::HeaderTooLarge { needed: 200_000_000, limit: 100_000_000 };
    vec![
        ConvertError::Inexpressible { target, advice, tensors: offending() },
        ConvertError::Rename(Rename::new("", "b").expect_err("no name")),
        ConvertError::RenameUnused { rule: text("model.*=*") },
        ConvertError::SameName { name: text("a"), first: text("b"), second: text("c") },
        ConvertError::ReservedName { target: SAFETENSORS, tensor: tensor(), name: text("__metadata__") },
        ConvertError::TooFewTensors { files: 4, tensors: 3 },
        ConvertError::Slice { tensor: tensor() },
        ConvertError::File { file: model(), source: too_large },
        ConvertError::TooLarge { target },
        ConvertError::NotWritable { target: GGUF },
    ]
}

/// Tensors that a format cannot express, which only a conversion can list.
fn offending() -> Offending {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let json = r#"{"t":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}"#;
    let file = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 4]].concat();
    std::fs::write(&path, file).expect("writes");
    let converter = Converter::new(Loader::new(), SERVERLESSLLM);
    match converter.convert(&path, folder.path().join("out")) {
        Err(Error::Core(CoreError::Convert(ConvertError::Inexpressible { tensors, .. }))) => tensors,
        other => panic!("{other:?}"),
    }
}
