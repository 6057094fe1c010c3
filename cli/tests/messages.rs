//! All messages, help texts and reasons, each in one file that a person can review.
//!
//! A test here fails when a text changes. Review the difference, then accept it with
//! `INSTA_UPDATE=always cargo test -p floodtide-cli --test messages`.

use floodtide::convert::{ConvertError, Converter, OutputError, Rename, RenameError, WriteError};
use floodtide::core::convert::Offending;
use floodtide::core::format::gguf::{GgufError, HeaderPosition, SplitError, ValueType};
use floodtide::core::format::safetensors::HeaderError;
use floodtide::core::format::serverlessllm::{Dialect, ServerlessLlmError};
use floodtide::core::format::shard_index::IndexError;
use floodtide::core::format::{GGUF, SAFETENSORS, SERVERLESSLLM};
use floodtide::core::manifest::ManifestError;
use floodtide::core::storage::{DeviceSignals, FailureKind, LatencyClass, StorageError};
use floodtide::core::strategy::{BestReads, Consumer, Device, FileSignals, Profile, Signals, decide};
use floodtide::core::{ByteRange, Error as CoreError, Fault, Glob, Warning as CoreWarning};
use floodtide::pool::PoolError;
use floodtide::roofline::ProbeError;
use floodtide::sink::PumpError;
use floodtide::{Checksum, DType, Error, ErrorKind, GgmlType, Loader, Mismatch, ViewError, Warning, backend};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// An error that never reaches a user and has no message.
const INTERNAL: &str = "TakeError";

/// The messages by enum, and the enums that they were made of.
struct Messages {
    text: String,
    /// Every enum of errors or warnings of the libraries with its variants, as the sources declare them.
    declared: Vec<(String, BTreeSet<String>)>,
    shown: BTreeSet<String>,
}

impl Messages {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut declared = Vec::new();
        for library in ["core", "memory", "platform-linux", "floodtide"] {
            collect_enums(library, &root.join(library).join("src"), &mut declared);
        }
        Self { text: String::new(), declared, shown: BTreeSet::new() }
    }

    /// Adds the messages of all variants of an enum, and fails if one is missing.
    fn add<E: Debug + Display>(&mut self, name: &str, errors: impl IntoIterator<Item = E>) {
        let _ = writeln!(self.text, "\n## {name}\n");
        let mut variants = BTreeSet::new();
        for error in errors {
            let debug = format!("{error:?}");
            let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
            let _ = writeln!(self.text, "{variant}\n    {error}");
            variants.insert(variant);
        }
        let declared = self.declared.iter().find(|(declared, _)| declared == name);
        let (_, declared) = declared.unwrap_or_else(|| panic!("no enum is named {name}"));
        assert_eq!(&variants, declared, "the messages of {name} are not complete");
        self.shown.insert(name.to_owned());
    }

    fn finish(self) -> String {
        let declared: BTreeSet<String> = self.declared.into_iter().map(|(name, _)| name).collect();
        assert_eq!(self.shown, declared, "an enum of errors or warnings is not in the snapshot");
        self.text
    }
}

/// Collects the public enums of errors and warnings below a folder, with the names of their variants.
fn collect_enums(library: &str, folder: &Path, enums: &mut Vec<(String, BTreeSet<String>)>) {
    for entry in std::fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            collect_enums(library, &path, enums);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("reads");
        for declaration in source.split("\npub enum ").skip(1) {
            let (head, body) = declaration.split_once(" {\n").expect("a body");
            let name = head.split('<').next().unwrap_or(head);
            let has_messages = name.ends_with("Error") || ["Fault", "Mismatch", "Warning"].contains(&name);
            if !has_messages || name == INTERNAL {
                continue;
            }
            let body = body.split("\n}").next().unwrap_or_default();
            // A variant is indented once and starts with a capital.
            let variants = body.lines().filter_map(|line| {
                let line =
                    line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))?;
                Some(line.split(|c: char| !c.is_alphanumeric()).next()?.to_owned())
            });
            enums.push((format!("{library} {name}"), variants.collect()));
        }
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn refused() -> io::Error {
    Errno::ACCESS.into()
}

fn no_memory() -> io::Error {
    Errno::NOMEM.into()
}

fn model() -> String {
    text("model.safetensors")
}

fn path() -> PathBuf {
    "out".into()
}

fn checksum(byte: u8) -> Box<Checksum> {
    Box::new(Checksum::from([byte; 32]))
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

fn core_errors() -> Vec<CoreError> {
    let (tensor, file) = (|| text("layer.weight"), model);
    let (shape, dim, start, end) = (vec![4, 6], 1, 2, 5);
    let format = CoreError::format(model(), HeaderError::FileTooShort { file_len: 3 });
    vec![
        format,
        CoreError::DuplicateTensor { tensor: tensor(), first: file(), second: text("other.safetensors") },
        CoreError::TooMany { what: "tensors" },
        CoreError::Glob(Glob::new("[").expect_err("no pattern")),
        CoreError::NoSuchTensor { name: tensor() },
        CoreError::NothingSelected { glob: text("layer.*") },
        CoreError::UnmatchedShardRule { glob: text("*.wieght") },
        CoreError::SliceDim { tensor: tensor(), dim: 2, shape: shape.clone() },
        CoreError::SliceRange { tensor: tensor(), dim, start: 5, end: 7, shape: shape.clone() },
        CoreError::SliceBytes { tensor: tensor(), dtype: DType::F4, dim, start, end, shape: shape.clone() },
        CoreError::SliceBlock { tensor: tensor(), dtype: GgmlType::Q4_0, dim, start, end, shape: shape.clone() },
        CoreError::SelectedTwice { tensor: tensor() },
        CoreError::SliceOfSlice { tensor: tensor() },
        CoreError::NoSuchRank { rank: 4, world: 4 },
        CoreError::NotEnoughMemory { file: file(), needed: 8 << 30, available: 4 << 30, limit: text("free memory") },
        CoreError::BufferTooSmall { tensor: tensor(), needed: 2 << 20, limit: 1 << 20 },
        CoreError::TooManyBuffers { bytes: 1 << 40, buffer_bytes: 64 << 10, limit: 1 << 20 },
        CoreError::AddressSpace { needed: 1 << 40 },
        CoreError::Truncated { file: file(), tensor: tensor(), expected: 8192, found: 4096 },
        CoreError::Read { file: file(), tensor: tensor(), offset: 4096, fault: Fault::Io },
        CoreError::Convert(ConvertError::TooLarge { target: SAFETENSORS }),
        CoreError::SliceUnverifiable { tensor: tensor() },
        CoreError::NotInManifest { tensor: tensor() },
        CoreError::ManifestDiffers {
            tensor: tensor(),
            dtype: DType::F32.into(),
            shape: shape.clone(),
            manifest_dtype: DType::F16.into(),
            manifest_shape: shape,
        },
        CoreError::Mismatch {
            file: file(),
            tensor: tensor(),
            start: 4096,
            end: 8192,
            expected: checksum(0),
            found: checksum(1),
        },
        CoreError::Manifest { file: text("manifest.json"), source: ManifestError::Version { found: 9 } },
        CoreError::BackendUnavailable { backend: backend::PREAD, why: text("memory is read by copy, view") },
        CoreError::Cancelled,
        CoreError::Platform { kind: ErrorKind::Internal, message: text("a thread of the load panicked: no message") },
        CoreError::Contract { what: "a tensor was not hashed although all files were" },
    ]
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::Interrupted,
        Fault::Again,
        Fault::Invalid,
        Fault::NotSupported,
        Fault::Io,
        Fault::NoMemory,
        Fault::TimedOut,
        Fault::Throttled,
        Fault::Changed,
        Fault::Os(Errno::NXIO.raw_os_error()),
        Fault::Other("the connection was reset"),
    ]
}

fn header_errors() -> Vec<HeaderError> {
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

fn index_errors() -> Vec<IndexError> {
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

fn gguf_errors() -> Vec<GgufError> {
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

fn split_errors() -> Vec<SplitError> {
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

fn serverlessllm_errors() -> Vec<ServerlessLlmError> {
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

fn manifest_errors() -> Vec<ManifestError> {
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

fn convert_errors() -> Vec<ConvertError> {
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

fn storage_errors() -> Vec<StorageError> {
    let (kind, hint) = (FailureKind::PermissionDenied, "");
    vec![
        StorageError::Failed { name: model(), action: "open the file", kind, source: refused().into(), hint },
        StorageError::NotAFile { name: text("fifo"), found: "a FIFO" },
        StorageError::IsFolder { name: model() },
        StorageError::LinkOutside { name: model(), target: text("/etc/passwd") },
        StorageError::Changed { name: model(), what: "its length changed" },
        StorageError::Memory { bytes: 1 << 30, source: no_memory().into() },
    ]
}

fn pool_errors() -> Vec<PoolError> {
    let (bytes, limit) = (2 << 20, 1 << 20);
    vec![
        PoolError::TooLarge { bytes, limit },
        PoolError::Exhausted { bytes, limit },
        PoolError::TimedOut { bytes, limit },
        PoolError::Allocation { bytes, source: no_memory() },
        PoolError::Unsuitable { why: text("it is not aligned to 4096 bytes") },
    ]
}

fn probe_errors() -> Vec<ProbeError> {
    let folder = || PathBuf::from("/models");
    vec![
        ProbeError::Folder { path: folder(), source: refused() },
        ProbeError::NotAFolder { path: folder() },
        ProbeError::MemoryFileSystem { path: folder(), file_system: text("tmpfs") },
        ProbeError::NoSpace { path: folder(), needed: 1 << 30, free: 1 << 20 },
        ProbeError::Write { path: folder(), source: refused() },
        ProbeError::NoMemory { bytes: 1 << 20, source: no_memory() },
    ]
}

fn output_errors() -> Vec<OutputError> {
    vec![
        OutputError::Exists { path: path() },
        OutputError::IsSource { path: path() },
        OutputError::NoName { path: "..".into() },
        OutputError::NoParent { path: "missing".into() },
        OutputError::NotLocal { path: path() },
        OutputError::NotReplaceable { path: path(), found: "a symbolic link" },
        OutputError::NoExchange { path: path() },
        OutputError::NoRoom { path: path(), needed: 2 << 30, available: 1 << 30 },
    ]
}

fn view_errors() -> Vec<ViewError> {
    vec![
        ViewError::WrongType { dtype: DType::F32.into(), requested: "f64" },
        ViewError::Quantised { dtype: GgmlType::Q4_0, requested: "u16" },
        ViewError::Misaligned { dtype: DType::F32.into(), requested: "f32", alignment: 4 },
    ]
}

fn mismatches() -> Vec<Mismatch> {
    let (tensor, file) = (|| text("layer.weight"), model);
    let [expected, found] = [checksum(0), checksum(1)];
    vec![
        Mismatch::TensorContent {
            tensor: tensor(),
            file: file(),
            start: 4096,
            end: 8192,
            expected: *expected,
            found: *found,
        },
        Mismatch::TensorKind {
            tensor: tensor(),
            dtype: DType::F32.into(),
            shape: vec![4, 6],
            manifest_dtype: DType::F16.into(),
            manifest_shape: vec![4, 6],
        },
        Mismatch::TensorMissing { tensor: tensor() },
        Mismatch::TensorAdded { tensor: tensor(), file: file() },
        Mismatch::FileContent { file: file(), tensors: false, expected: [0; 32].into(), found: [1; 32].into() },
        Mismatch::FileLength { file: file(), expected: 4096, found: 8192 },
        Mismatch::FileMissing { file: file() },
        Mismatch::FileAdded { file: file() },
    ]
}

fn errors() -> Vec<Error> {
    let name = || text("model");
    let shard = || text("model-00002-of-00002.safetensors");
    let source = refused();
    let index = "tensor_index.json";
    vec![
        CoreError::Read {
            file: model(),
            tensor: text("t"),
            offset: 4096,
            fault: Fault::Os(Errno::NXIO.raw_os_error()),
        }
        .into(),
        OutputError::Exists { path: path() }.into(),
        ProbeError::NotAFolder { path: path() }.into(),
        Error::Io { path: "load.json".into(), action: "write the trace", source },
        StorageError::IsFolder { name: name() }.into(),
        Error::UnknownScheme { uri: text("s3://bucket/model"), known: text("file://") },
        Error::InvalidUri { uri: text("file://host/model") },
        Error::NoCheckpoint { name: name() },
        Error::SeveralFormats { name: name(), names: text("model.gguf, model.safetensors") },
        Error::Partition { name: text("tensor.data_0"), format: SERVERLESSLLM, index },
        Error::Pickle { name: text("pytorch_model.bin") },
        Error::SeveralIndexes { name: name(), names: text("a.index.json, b.index.json") },
        Error::IndexTooLarge { name: name(), len: 1 << 40 },
        Error::MissingShard { index: text("model.safetensors.index.json"), shard: shard() },
        Error::MissingSplit { name: name(), shard: text("model-00002-of-00003.gguf"), count: 3 },
        Error::SeveralModels { name: name(), format: GGUF, names: text("a.gguf, b.gguf") },
        Error::Allocation { bytes: 1 << 30, source: no_memory() },
        Error::NotATrace { path: "model.safetensors".into() },
        Error::UnlistableName { path: "a\\b.safetensors".into(), why: "contains a backslash" },
        Error::TensorAlignment { bytes: 8192, max: 4096 },
        Error::StreamLimit { limit: 1000, min: 1 << 20 },
        Error::StreamBuffer { bytes: 1000, min: 64 << 10, limit: 1 << 20 },
        Error::StreamMapped { backend: backend::MMAP },
        Error::StreamStarted,
        Error::StreamStalled { held: 1 << 20, limit: 1 << 20 },
    ]
}

fn core_warnings() -> Vec<CoreWarning> {
    let keys = || vec![text("tokenizer.ggml.tokens"), text("tokenizer.ggml.scores")];
    vec![
        CoreWarning::TotalSize { index: text("model.safetensors.index.json"), claimed: 8192, found: 4096 },
        CoreWarning::NothingSharded { rank: 1, world: 4, tensors: 2, first: text("layer.weight") },
        CoreWarning::ProfileIgnored { path: text("259-0.json"), why: text("it is of another device") },
        CoreWarning::MetadataLost { target: SAFETENSORS, what: "arrays in its metadata", keys: keys(), more: 0 },
        CoreWarning::MetadataLost { target: SERVERLESSLLM, what: "metadata", keys: keys(), more: 15 },
    ]
}

fn warnings() -> Vec<Warning> {
    let not_copied = |error| Warning::NotCopied { source: Arc::new(error) };
    let source = || Arc::new(refused());
    vec![
        core_warnings().remove(0).into(),
        Warning::NotLocked { why: no_memory().to_string() },
        Warning::BuffersNotLocked { bytes: 4096 },
        not_copied(StorageError::LinkOutside { name: text("config.json"), target: text("/etc/passwd") }),
        not_copied(StorageError::NotAFile { name: text("config.json"), found: "a FIFO" }),
        not_copied(storage_errors().remove(0)),
        Warning::LeftoverNotRemoved { path: path(), source: source() },
        Warning::OldOutputNotRemoved { path: path(), source: source() },
    ]
}

/// Returns every message of the libraries.
fn every_message() -> String {
    let too_large = WriteError::HeaderTooLarge { needed: 200_000_000, limit: 100_000_000 };
    let empty = RenameError::Empty { from: text(""), to: text("b") };
    let mut messages = Messages::new();
    messages.add("floodtide Error", errors());
    messages.add("floodtide Mismatch", mismatches());
    messages.add("floodtide Warning", warnings());
    messages.add("floodtide OutputError", output_errors());
    messages.add("floodtide ViewError", view_errors());
    messages.add("platform-linux ProbeError", probe_errors());
    messages.add("memory PoolError", pool_errors());
    messages.add("core Error", core_errors());
    messages.add("core Fault", faults());
    messages.add("core Warning", core_warnings());
    messages.add("core StorageError", storage_errors());
    messages.add("core HeaderError", header_errors());
    messages.add("core IndexError", index_errors());
    messages.add("core GgufError", gguf_errors());
    messages.add("core SplitError", split_errors());
    messages.add("core ServerlessLlmError", serverlessllm_errors());
    messages.add("core ManifestError", manifest_errors());
    messages.add("core ConvertError", convert_errors());
    messages.add("core WriteError", [too_large, WriteError::FileTooLarge]);
    messages.add("core RenameError", [empty, RenameError::Stars { from: text("a*"), to: text("b") }]);
    messages.add("core PumpError", [PumpError::Stream(Error::StreamStarted), PumpError::Sink("the device is gone")]);
    messages.finish()
}

#[test]
fn every_message_is_reviewed() {
    insta::assert_snapshot!("errors", every_message());
}

/// The command adds hints about its flags; the libraries have none.
#[test]
fn no_message_of_a_library_names_a_flag() {
    for text in [every_message(), every_reason()] {
        let flag = text.lines().find(|line| line.contains("--"));
        assert_eq!(flag, None);
    }
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_floodtide")).args(arguments).output().expect("the command starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the command writes UTF-8")
}

#[test]
fn every_help_text_is_reviewed() {
    let overview = help(&["--help"]);
    let (_, commands) = overview.split_once("Commands:\n").expect("lists the commands");
    let names = commands.lines().map_while(|line| line.split_whitespace().next());
    let mut text = format!("$ floodtide --help\n{overview}");
    for name in names.filter(|name| *name != "help") {
        let _ = write!(text, "\n$ floodtide {name} --help\n{}", help(&[name, "--help"]));
    }
    assert!(text.contains("$ floodtide doctor --help"), "the last command is missing: {text}");
    insta::assert_snapshot!("help", text);
}

/// Two files of 1 GiB on a local device, not cached, which support direct I/O.
fn cold() -> Signals {
    let bytes = 1 << 30;
    let file = FileSignals {
        bytes,
        resident: Some(0.0),
        cached: vec![],
        direct: true,
        aligned: true,
        selected_bytes: bytes,
        device: 0,
    };
    let device = DeviceSignals { file_system: text("ext4"), ..DeviceSignals::default() };
    let backends = vec![backend::URING, backend::MMAP, backend::TOKIO, backend::PREAD];
    Signals {
        files: vec![file.clone(), file],
        devices: vec![Device { signals: device, backends, requested: None }],
        selected_bytes: 2 * bytes,
        consumer: Consumer::Whole,
        verified: false,
        direct_refused: None,
        populate_page_cache: false,
        memory: 1 << 36,
        cpus: 4,
    }
}

fn for_files(change: impl Fn(&mut FileSignals)) -> Signals {
    let mut signals = cold();
    signals.files.iter_mut().for_each(change);
    signals
}

fn for_device(change: impl Fn(&mut Device)) -> Signals {
    let mut signals = cold();
    change(&mut signals.devices[0]);
    signals
}

/// A device whose direct reads reach `direct` GiB/s, and whose buffered reads reach 1.
fn profiled(direct: u64) -> Signals {
    let best = |direct, gib: u64| BestReads {
        ring: true,
        direct,
        chunk_bytes: 1 << 20,
        in_flight: 32,
        bytes_per_second: gib << 30,
    };
    let profile = Profile { device: text("a disk"), best: vec![best(true, direct), best(false, 2)] };
    for_device(|device| device.signals.profile = Some(profile.clone()))
}

/// Returns the decisions of many strategies.
fn every_reason() -> String {
    let small = || Signals { selected_bytes: 1000, ..for_files(|file| file.selected_bytes = 500) };
    let half = ByteRange::new(0, 1 << 29).expect("ascends");
    let mut mixed = cold();
    mixed.files[0].resident = Some(1.0);
    let mut unknown = cold();
    unknown.files[0].resident = None;
    let mut two_devices = cold();
    two_devices.devices.push(two_devices.devices[0].clone());
    two_devices.devices[1].signals.latency = LatencyClass::Network;
    two_devices.files[1].device = 1;
    two_devices.files[1].direct = false;
    let cases = [
        ("cold files", cold()),
        ("cold files, mmap requested", for_device(|device| device.requested = Some(backend::MMAP))),
        ("cold files, tokio requested", for_device(|device| device.requested = Some(backend::TOKIO))),
        ("cold files, io_uring refused", for_device(|d| d.signals.refused = vec![(backend::URING, text("EPERM"))])),
        ("cold files, no io_uring", for_device(|device| device.backends = vec![backend::PREAD])),
        ("cold files, streamed", Signals { consumer: Consumer::Stream, ..cold() }),
        ("cold files, page cache populated", Signals { populate_page_cache: true, ..cold() }),
        ("cold files, direct reads refused", {
            let why = Some(text("the pool's memory is aligned to only 64 bytes, and direct reads need more"));
            Signals { direct_refused: why, ..for_files(|file| file.direct = false) }
        }),
        ("no direct I/O", for_files(|file| file.direct = false)),
        ("no direct I/O, little memory", { Signals { memory: 2 << 30, ..for_files(|file| file.direct = false) } }),
        ("no aligned tensors", for_files(|file| file.aligned = false)),
        ("cached files", for_files(|file| file.resident = Some(1.0))),
        ("one of two files cached", mixed),
        ("partly cached files", for_files(|file| (file.resident, file.cached) = (Some(0.5), vec![half]))),
        ("scattered cached pages", for_files(|file| file.resident = Some(0.2))),
        ("unknown residency", for_files(|file| file.resident = None)),
        ("unknown residency of one of two files", unknown),
        ("nothing selected", Signals { selected_bytes: 8 << 20, ..for_files(|file| file.selected_bytes = 0) }),
        ("small", small()),
        ("small, streamed", Signals { consumer: Consumer::Stream, ..small() }),
        ("small, in memory", {
            let mut small = small();
            small.devices[0].signals.latency = LatencyClass::Memory;
            small
        }),
        ("in memory", for_device(|device| device.signals.latency = LatencyClass::Memory)),
        ("network", for_device(|device| device.signals.latency = LatencyClass::Network)),
        ("two devices", two_devices),
        ("profile, fast direct reads", profiled(3)),
        ("profile, slow direct reads", profiled(1)),
    ];
    let mut text = String::new();
    for (name, signals) in cases {
        let strategy = decide(&signals);
        let routes = strategy.routes.iter().map(|route| {
            let (backend, workers) = (route.backend.name(), route.workers);
            format!("{backend}, {workers} workers, depth {}, chunks of {} KiB", route.depth, route.chunk_bytes >> 10)
        });
        let _ = writeln!(text, "{name}\n  {}", routes.collect::<Vec<_>>().join("\n  "));
        for decision in &strategy.decisions {
            let route = decision.route.filter(|_| strategy.routes.len() > 1);
            let route = route.map_or_else(String::new, |route| format!("route {}, ", route.index()));
            let _ = writeln!(text, "    {route}{decision}");
        }
    }
    text
}

#[test]
fn every_reason_of_a_strategy_is_reviewed() {
    insta::assert_snapshot!("strategy", every_reason());
}
