//! Every error, with the message that a user reads.

use crate::declared::Messages;
use crate::formats::{
    convert_errors, gguf_errors, header_errors, index_errors, manifest_errors, serverlessllm_errors, split_errors,
};
use crate::strategy::every_reason;
use crate::{assert_reviewed, model, text};
use floodtide::convert::{ConvertError, OutputError, RenameError, WriteError};
use floodtide::core::format::safetensors::HeaderError;
use floodtide::core::format::{GGUF, SAFETENSORS, SERVERLESSLLM};
use floodtide::core::manifest::ManifestError;
use floodtide::core::storage::{FailureKind, StorageError};
use floodtide::core::{Error as CoreError, Fault, Glob, Warning as CoreWarning};
use floodtide::pool::PoolError;
use floodtide::roofline::ProbeError;
use floodtide::sink::PumpError;
use floodtide::{Checksum, DType, Error, ErrorKind, GgmlType, Mismatch, ViewError, Warning, backend};
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Returns every message of the libraries.
pub(crate) fn every_message() -> String {
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
    assert_reviewed("errors", &every_message());
}

/// The command adds hints about its flags; the libraries have none.
#[test]
fn no_message_of_a_library_names_a_flag() {
    for text in [every_message(), every_reason()] {
        let flag = text.lines().find(|line| line.contains("--"));
        assert_eq!(flag, None);
    }
}

fn refused() -> io::Error {
    Errno::ACCESS.into()
}

fn no_memory() -> io::Error {
    Errno::NOMEM.into()
}

fn path() -> PathBuf {
    "out".into()
}

fn checksum(byte: u8) -> Box<Checksum> {
    Box::new(Checksum::from([byte; 32]))
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
        Error::Io { path: "load.json".into(), action: "write the trace", cause: source },
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
        Error::Allocation { bytes: 1 << 30, cause: no_memory() },
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
