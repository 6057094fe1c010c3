//! Error kinds, for callers that branch on an error.

use super::Error;
use super::convert::ConvertError;
use crate::storage::{FailureKind, StorageError};

/// The kind of an error, for callers that branch on it or map it to another language.
///
/// ```
/// use floodtide_core::{Error, ErrorKind};
///
/// let error = Error::NothingSelected { glob: "model.layers.99.*".into() };
/// assert_eq!(error.kind(), ErrorKind::InvalidRequest);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A path, a checkpoint or one of its files does not exist.
    NotFound,
    /// The system forbids access to a file.
    PermissionDenied,
    /// A file or a manifest violates its format, or the files contradict each other.
    InvalidCheckpoint,
    /// The request cannot be met: a pattern matches nothing, a limit is too small, an output
    /// exists.
    InvalidRequest,
    /// floodtide does not support the checkpoint, which may be valid.
    Unsupported,
    /// The requested backend is not available here.
    BackendUnavailable,
    /// The available memory is too small.
    OutOfMemory,
    /// The system or the storage failed.
    Io,
    /// A file changed during the load.
    Changed,
    /// The checkpoint does not match the manifest.
    ChecksumMismatch,
    /// The caller cancelled the work.
    Cancelled,
    /// Buffers that the caller holds were not returned in time.
    Stalled,
    /// A defect of floodtide.
    Internal,
}

impl Error {
    /// Returns the kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Format { .. } | Self::DuplicateTensor { .. } | Self::Manifest { .. } => ErrorKind::InvalidCheckpoint,
            Self::TooMany { .. } => ErrorKind::Unsupported,
            Self::Glob(_)
            | Self::NoSuchTensor { .. }
            | Self::NothingSelected { .. }
            | Self::UnmatchedShardRule { .. }
            | Self::SliceDim { .. }
            | Self::SliceRange { .. }
            | Self::SliceBytes { .. }
            | Self::SliceBlock { .. }
            | Self::SelectedTwice { .. }
            | Self::SliceOfSlice { .. }
            | Self::NoSuchRank { .. }
            | Self::BufferTooSmall { .. }
            | Self::TooManyBuffers { .. }
            | Self::SliceUnverifiable { .. } => ErrorKind::InvalidRequest,
            Self::NotEnoughMemory { .. } | Self::AddressSpace { .. } => ErrorKind::OutOfMemory,
            Self::BackendUnavailable { .. } => ErrorKind::BackendUnavailable,
            Self::Truncated { .. } => ErrorKind::Changed,
            Self::Read { .. } => ErrorKind::Io,
            Self::Platform { kind, .. } => *kind,
            Self::Convert(error) => error.kind(),
            Self::NotInManifest { .. } | Self::ManifestDiffers { .. } | Self::Mismatch { .. } => {
                ErrorKind::ChecksumMismatch
            }
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Contract { .. } => ErrorKind::Internal,
        }
    }
}

impl ConvertError {
    /// Returns the kind of this error, [`ErrorKind::Unsupported`] if no request could write this
    /// checkpoint.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotWritable { .. } | Self::File { .. } | Self::TooLarge { .. } => ErrorKind::Unsupported,
            Self::Inexpressible { .. }
            | Self::Rename(_)
            | Self::RenameUnused { .. }
            | Self::SameName { .. }
            | Self::ReservedName { .. }
            | Self::TooFewTensors { .. }
            | Self::Slice { .. } => ErrorKind::InvalidRequest,
        }
    }
}

impl StorageError {
    /// Returns the kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Failed { kind, .. } => match kind {
                FailureKind::NotFound => ErrorKind::NotFound,
                FailureKind::PermissionDenied => ErrorKind::PermissionDenied,
                FailureKind::InvalidName => ErrorKind::InvalidRequest,
                FailureKind::Other => ErrorKind::Io,
            },
            Self::NotAFile { .. } | Self::IsFolder { .. } | Self::LinkOutside { .. } => ErrorKind::InvalidCheckpoint,
            Self::Changed { .. } => ErrorKind::Changed,
            Self::Memory { .. } => ErrorKind::OutOfMemory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Rename;
    use crate::format::SAFETENSORS;
    use crate::format::safetensors::HeaderError;
    use crate::glob::Glob;
    use crate::manifest::ManifestError;
    use crate::source::Fault;
    use crate::{DType, ElementType, GgmlType};
    use alloc::boxed::Box;
    use alloc::string::{String, ToString};
    use alloc::vec;

    fn text() -> String {
        "x".to_string()
    }

    #[test]
    fn what_is_wrong_with_a_checkpoint_is_not_the_requests_fault() {
        let json = HeaderError::FileTooShort { file_len: 3 };
        for (error, kind) in [
            (Error::format(text(), json), ErrorKind::InvalidCheckpoint),
            (Error::DuplicateTensor { tensor: text(), first: text(), second: text() }, ErrorKind::InvalidCheckpoint),
            (
                Error::Manifest { file: text(), source: ManifestError::Version { found: 2 } },
                ErrorKind::InvalidCheckpoint,
            ),
            (Error::TooMany { what: "tensors" }, ErrorKind::Unsupported),
            (Error::Truncated { file: text(), tensor: text(), expected: 2, found: 1 }, ErrorKind::Changed),
            (Error::Read { file: text(), tensor: text(), offset: 0, fault: Fault::Os(5) }, ErrorKind::Io),
            (Error::Platform { kind: ErrorKind::OutOfMemory, message: text() }, ErrorKind::OutOfMemory),
            (Error::AddressSpace { needed: 1 }, ErrorKind::OutOfMemory),
            (Error::NotEnoughMemory { file: text(), needed: 2, available: 1, limit: text() }, ErrorKind::OutOfMemory),
            (Error::NotInManifest { tensor: text() }, ErrorKind::ChecksumMismatch),
            (
                Error::ManifestDiffers {
                    tensor: text(),
                    dtype: ElementType::Plain(DType::F32),
                    shape: vec![1],
                    manifest_dtype: ElementType::Plain(DType::F16),
                    manifest_shape: vec![1],
                },
                ErrorKind::ChecksumMismatch,
            ),
            (
                Error::Mismatch {
                    file: text(),
                    tensor: text(),
                    start: 0,
                    end: 1,
                    expected: Box::new([0; 32].into()),
                    found: Box::new([1; 32].into()),
                },
                ErrorKind::ChecksumMismatch,
            ),
            (Error::BackendUnavailable { backend: crate::storage::COPY, why: text() }, ErrorKind::BackendUnavailable),
            (Error::Cancelled, ErrorKind::Cancelled),
            (Error::Contract { what: "x" }, ErrorKind::Internal),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn what_was_asked_for_wrongly_is_an_invalid_request() {
        let slice = |tensor| (tensor, 0_u32, 1_u64, 2_u64, vec![1_u64]);
        let (tensor, dim, start, end, shape) = slice(text());
        for error in [
            Error::Glob(Glob::new("[").expect_err("not closed")),
            Error::NoSuchTensor { name: text() },
            Error::NothingSelected { glob: text() },
            Error::UnmatchedShardRule { glob: text() },
            Error::SliceDim { tensor: text(), dim, shape: shape.clone() },
            Error::SliceRange { tensor: text(), dim, start, end, shape: shape.clone() },
            Error::SliceBytes { tensor: text(), dtype: DType::F4, dim, start, end, shape: shape.clone() },
            Error::SliceBlock { tensor, dtype: GgmlType::Q4_0, dim, start, end, shape },
            Error::SelectedTwice { tensor: text() },
            Error::SliceOfSlice { tensor: text() },
            Error::NoSuchRank { rank: 2, world: 2 },
            Error::BufferTooSmall { tensor: text(), needed: 2, limit: 1 },
            Error::TooManyBuffers { bytes: 1, buffer_bytes: 1, limit: 1 },
            Error::SliceUnverifiable { tensor: text() },
            ConvertError::Rename(Rename::new("", "").expect_err("says nothing")).into(),
            ConvertError::RenameUnused { rule: text() }.into(),
            ConvertError::SameName { name: text(), first: text(), second: text() }.into(),
            ConvertError::ReservedName { target: SAFETENSORS, tensor: text(), name: text() }.into(),
            ConvertError::TooFewTensors { files: 2, tensors: 1 }.into(),
            ConvertError::Slice { tensor: text() }.into(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        }
        assert_eq!(ConvertError::TooLarge { target: SAFETENSORS }.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_storages_failure_has_the_kind_that_the_storage_gave_it() {
        let failed =
            |kind| StorageError::Failed { name: text(), action: "open the file", kind, source: "no".into(), hint: "" };
        for (error, kind) in [
            (failed(FailureKind::NotFound), ErrorKind::NotFound),
            (failed(FailureKind::PermissionDenied), ErrorKind::PermissionDenied),
            (failed(FailureKind::InvalidName), ErrorKind::InvalidRequest),
            (failed(FailureKind::Other), ErrorKind::Io),
            (StorageError::NotAFile { name: text(), found: "a FIFO" }, ErrorKind::InvalidCheckpoint),
            (StorageError::IsFolder { name: text() }, ErrorKind::InvalidCheckpoint),
            (StorageError::LinkOutside { name: text(), target: text() }, ErrorKind::InvalidCheckpoint),
            (StorageError::Changed { name: text(), what: "its length" }, ErrorKind::Changed),
            (StorageError::Memory { bytes: 1, source: "no".into() }, ErrorKind::OutOfMemory),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
