//! The result of comparing a checkpoint with a manifest.

use super::{FileSum, Sums, file_name};
use crate::warning::Warning;
use floodtide_core::checksum::Checksum;
use floodtide_core::manifest::{Manifest, Sha256};
use floodtide_core::{Catalog, ElementType, Escaped, FileId, HumanBytes, Quoted};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of comparing a checkpoint with a manifest.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The files and tensors of the checkpoint.
    pub catalog: Arc<Catalog>,
    /// The differences: first those of tensors, by name, then those of files, by name.
    pub mismatches: Vec<Mismatch>,
    /// The number of files that were read, the index included.
    pub files: usize,
    /// The bytes of these files.
    pub bytes: u64,
    /// Warnings about a valid checkpoint.
    pub warnings: Vec<Warning>,
    /// The time of the comparison.
    pub elapsed: Duration,
}

/// A difference between a checkpoint and a manifest. Names are untrusted: print them through
/// [`Escaped`], as `Display` does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Mismatch {
    /// A tensor's bytes differ: those from `start` to `end` of its file.
    TensorContent { tensor: String, file: String, start: u64, end: u64, expected: Checksum, found: Checksum },
    /// A tensor's dtype or shape differs.
    TensorKind {
        tensor: String,
        dtype: ElementType,
        shape: Vec<u64>,
        manifest_dtype: ElementType,
        manifest_shape: Vec<u64>,
    },
    /// It is in the manifest but not in the checkpoint.
    TensorMissing { tensor: String },
    /// It is in the checkpoint but not in the manifest.
    TensorAdded { tensor: String, file: String },
    /// A file's bytes differ, but not its length. With `tensors`, some of its tensors differ too;
    /// without, only its header or the bytes between its tensors.
    FileContent { file: String, expected: Sha256, found: Sha256, tensors: bool },
    /// A file's length differs.
    FileLength { file: String, expected: u64, found: u64 },
    /// It is in the manifest but not in the checkpoint.
    FileMissing { file: String },
    /// It is in the checkpoint but not in the manifest.
    FileAdded { file: String },
}

impl Mismatch {
    /// Returns the kind, as in the command's JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TensorContent { .. } => "tensor-content",
            Self::TensorKind { .. } => "tensor-kind",
            Self::TensorMissing { .. } => "tensor-missing",
            Self::TensorAdded { .. } => "tensor-added",
            Self::FileContent { .. } => "file-content",
            Self::FileLength { .. } => "file-length",
            Self::FileMissing { .. } => "file-missing",
            Self::FileAdded { .. } => "file-added",
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TensorContent { tensor, file, start, end, expected, found } => write!(
                f,
                "tensor \"{}\" in {} (bytes {start}..{end} of the file, {}): expected BLAKE3 {expected}, found {found}",
                Quoted(tensor),
                Escaped(file),
                HumanBytes(end - start)
            ),
            Self::TensorKind { tensor, dtype, shape, manifest_dtype, manifest_shape } => write!(
                f,
                "tensor \"{}\": expected {manifest_dtype} {manifest_shape:?}, found {dtype} {shape:?}",
                Quoted(tensor)
            ),
            Self::TensorMissing { tensor } => {
                write!(f, "tensor \"{}\": in the manifest, but not in the checkpoint", Quoted(tensor))
            }
            Self::TensorAdded { tensor, file } => write!(
                f,
                "tensor \"{}\" in {}: in the checkpoint, but not in the manifest",
                Quoted(tensor),
                Escaped(file)
            ),
            Self::FileContent { file, expected, found, tensors } => {
                let place = if *tensors { "" } else { " outside its tensors" };
                let file = Escaped(file);
                write!(f, "file {file}: differs{place}: expected SHA-256 {expected}, found {found}")
            }
            Self::FileLength { file, expected, found } => {
                write!(f, "file {}: expected {expected} bytes, found {found}", Escaped(file))
            }
            Self::FileMissing { file } => {
                write!(f, "file {}: in the manifest, but not in the checkpoint", Escaped(file))
            }
            Self::FileAdded { file } => {
                write!(f, "file {}: in the checkpoint, but not in the manifest", Escaped(file))
            }
        }
    }
}

impl VerifyReport {
    pub(super) fn of(sums: Sums, manifest: &Manifest) -> Self {
        let bytes = sums.byte_len();
        let Sums { catalog, tensors, files, warnings, elapsed } = sums;
        let mut damaged = BTreeSet::new();
        let mut mismatches = differing_tensors(&catalog, &tensors, manifest, &mut damaged);
        mismatches.extend(differing_files(&files, manifest, &damaged));
        Self { catalog, mismatches, files: files.len(), bytes, warnings, elapsed }
    }

    /// Returns true if the checkpoint matches the manifest.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// Returns the differences of tensors, by name, and the files in which contents differ.
fn differing_tensors(
    catalog: &Catalog,
    checksums: &[Checksum],
    manifest: &Manifest,
    damaged: &mut BTreeSet<FileId>,
) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let mut there = manifest.tensors().iter().peekable();
    // Both are sorted by name.
    for tensor in catalog.tensors_by_name() {
        let name = || tensor.name.to_owned();
        while let Some(missing) = there.next_if(|other| other.name.as_str() < tensor.name) {
            mismatches.push(Mismatch::TensorMissing { tensor: missing.name.clone() });
        }
        let file = || file_name(&catalog.file(tensor.file).path);
        let Some(expected) = there.next_if(|other| other.name == tensor.name) else {
            mismatches.push(Mismatch::TensorAdded { tensor: name(), file: file() });
            continue;
        };
        let found = checksums[tensor.id.index()];
        if !tensor.dtype.means_same(expected.dtype) || tensor.shape != expected.shape {
            mismatches.push(Mismatch::TensorKind {
                tensor: name(),
                dtype: tensor.dtype,
                shape: tensor.shape.to_owned(),
                manifest_dtype: expected.dtype,
                manifest_shape: expected.shape.clone(),
            });
        } else if found != expected.blake3 {
            damaged.insert(tensor.file);
            let (start, end, expected) = (tensor.range.start(), tensor.range.end(), expected.blake3);
            mismatches.push(Mismatch::TensorContent { tensor: name(), file: file(), start, end, expected, found });
        }
    }
    mismatches.extend(there.map(|missing| Mismatch::TensorMissing { tensor: missing.name.clone() }));
    mismatches
}

fn differing_files(files: &[FileSum], manifest: &Manifest, damaged: &BTreeSet<FileId>) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    for (FileSum { name, bytes, sha256 }, number) in files.iter().zip(0..) {
        let file = name.clone();
        match manifest.file(name) {
            None => mismatches.push(Mismatch::FileAdded { file }),
            Some(expected) if expected.bytes != *bytes => {
                mismatches.push(Mismatch::FileLength { file, expected: expected.bytes, found: *bytes });
            }
            Some(expected) if expected.sha256 != *sha256 => {
                let (expected, found, tensors) = (expected.sha256, *sha256, damaged.contains(&FileId(number)));
                mismatches.push(Mismatch::FileContent { file, expected, found, tensors });
            }
            Some(_) => {}
        }
    }
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let missing = manifest.files().iter().filter(|file| !names.contains(file.name.as_str()));
    mismatches.extend(missing.map(|file| Mismatch::FileMissing { file: file.name.clone() }));
    mismatches.sort_by(|a, b| of_file(a).cmp(of_file(b)));
    mismatches
}

fn of_file(mismatch: &Mismatch) -> &str {
    match mismatch {
        Mismatch::FileContent { file, .. }
        | Mismatch::FileLength { file, .. }
        | Mismatch::FileMissing { file }
        | Mismatch::FileAdded { file } => file,
        _ => "",
    }
}
