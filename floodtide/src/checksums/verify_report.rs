//! A checkpoint against a manifest.

use super::{FileSum, Sums, file_name};
use floodtide_core::checksum::Checksum;
use floodtide_core::manifest::{Manifest, Sha256};
use floodtide_core::{Catalog, ElementType, Escaped, FileId, HumanBytes, Quoted};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a checkpoint compares with a manifest.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What the checkpoint holds.
    pub catalog: Arc<Catalog>,
    /// Everything that differs: first of tensors, by name, then of files, by name.
    pub mismatches: Vec<Mismatch>,
    /// How many files were read, the index among them, and their bytes.
    pub files: usize,
    /// See `files`.
    pub bytes: u64,
    /// What a user should know although the checkpoint is valid.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Something that is not as the manifest says. Names are untrusted: print them through [`Escaped`], as `Display` does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Mismatch {
    /// A tensor's bytes are others: those from `start` to `end` of its file.
    TensorContent { tensor: String, file: String, start: u64, end: u64, expected: Checksum, found: Checksum },
    /// A tensor has another dtype or shape.
    TensorKind {
        tensor: String,
        dtype: ElementType,
        shape: Vec<u64>,
        manifest_dtype: ElementType,
        manifest_shape: Vec<u64>,
    },
    /// The manifest has it, the checkpoint does not.
    TensorMissing { tensor: String },
    /// The checkpoint has it, the manifest does not.
    TensorAdded { tensor: String, file: String },
    /// A file's bytes are others, although it is as long as it should. `tensors`: so are some tensors' that it holds; if not, it differs in its
    /// header, or between its tensors.
    FileContent { file: String, expected: Sha256, found: Sha256, tensors: bool },
    /// A file is longer or shorter.
    FileLength { file: String, expected: u64, found: u64 },
    /// The manifest has it, the checkpoint does not.
    FileMissing { file: String },
    /// The checkpoint has it, the manifest does not.
    FileAdded { file: String },
}

impl Mismatch {
    /// What kind it is, as the command's JSON says it.
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
                "tensor \"{}\" in {} (bytes {start}..{end} of the file, {}): its content differs: BLAKE3 {found}, expected {expected}",
                Quoted(tensor),
                Escaped(file),
                HumanBytes(end - start)
            ),
            Self::TensorKind { tensor, dtype, shape, manifest_dtype, manifest_shape } => write!(
                f,
                "tensor \"{}\": {dtype} {shape:?}, expected {manifest_dtype} {manifest_shape:?}",
                Quoted(tensor)
            ),
            Self::TensorMissing { tensor } => {
                write!(f, "tensor \"{}\": it is in the manifest, and not in the checkpoint", Quoted(tensor))
            }
            Self::TensorAdded { tensor, file } => write!(
                f,
                "tensor \"{}\" in {}: it is in the checkpoint, and not in the manifest",
                Quoted(tensor),
                Escaped(file)
            ),
            Self::FileContent { file, expected, found, tensors } => {
                let place = if *tensors { "" } else { " outside of its tensors" };
                let file = Escaped(file);
                write!(f, "file {file}: its content differs{place}: SHA-256 {found}, expected {expected}")
            }
            Self::FileLength { file, expected, found } => {
                write!(f, "file {}: it has {found} bytes, expected {expected}", Escaped(file))
            }
            Self::FileMissing { file } => {
                write!(f, "file {}: it is in the manifest, and not in the checkpoint", Escaped(file))
            }
            Self::FileAdded { file } => {
                write!(f, "file {}: it is in the checkpoint, and not in the manifest", Escaped(file))
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

    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// What differs of the tensors, by name; and the files in which contents do.
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
