//! The manifest of a checkpoint: the BLAKE3 of each tensor and the SHA-256 of each file, in JSON
//! (`docs/manifest.md`).
//!
//! A manifest is untrusted. It is parsed strictly, and allocations are in proportion to its length.
//! Its contents are only compared: no name in it becomes a path that is opened. Writing is
//! deterministic and sorted by name, so equal checkpoints have identical manifests.

mod json;
mod write;

pub use crate::error::manifest::{MAX_BYTES, ManifestError, SCHEMA, VERSION};

use crate::catalog::TensorInfo;
use crate::checksum::{Checksum, NotHex, parse_hex, write_hex};
use crate::element::ElementType;
use crate::names::sorted_by_name;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// The SHA-256 of a file, as in the output of `sha256sum` and in Hugging Face's LFS pointers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self).ok_or(NotHex)
    }
}

/// A tensor of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestTensor {
    /// The name. Untrusted: print it through [`Escaped`](crate::Escaped).
    pub name: String,
    /// The element type.
    pub dtype: ElementType,
    /// The dimensions, slowest first.
    pub shape: Vec<u64>,
    /// The length in bytes, which matches dtype and shape.
    pub bytes: u64,
    /// The hash of its bytes in the file.
    pub blake3: Checksum,
}

/// A file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// The name in the checkpoint's folder. Untrusted: print it through
    /// [`Escaped`](crate::Escaped).
    pub name: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The hash of all its bytes.
    pub sha256: Sha256,
}

/// The checksums of a checkpoint.
///
/// ```
/// use floodtide_core::DType;
/// use floodtide_core::checksum::Checksum;
/// use floodtide_core::manifest::{Manifest, ManifestTensor};
///
/// let bytes = [0; 12];
/// let tensor = ManifestTensor {
///     name: "bias".into(),
///     dtype: DType::F32.into(),
///     shape: vec![3],
///     bytes: 12,
///     blake3: Checksum::of(&bytes),
/// };
/// let manifest = Manifest::new(vec![tensor], vec![])?;
/// let read = Manifest::parse(manifest.to_string().as_bytes())?;
/// assert_eq!(read.tensor("bias").expect("is listed").blake3, Checksum::of(&bytes));
/// # Ok::<(), floodtide_core::manifest::ManifestError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Both lists are sorted by name, without duplicates.
    tensors: Vec<ManifestTensor>,
    files: Vec<ManifestFile>,
}

impl Manifest {
    /// Creates a manifest of these tensors and files, in any order.
    ///
    /// # Errors
    /// Fails if two tensors or two files have the same name, a file's name is not plain, or a
    /// tensor's length does not match its dtype and shape.
    pub fn new(tensors: Vec<ManifestTensor>, files: Vec<ManifestFile>) -> Result<Self, ManifestError> {
        let tensors = sorted(tensors, |tensor| &tensor.name);
        let files = sorted(files, |file| &file.name);
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ManifestError::DuplicateTensor { name: pair[0].name.clone() });
        }
        if let Some(pair) = files.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(ManifestError::DuplicateFile { name: pair[0].name.clone() });
        }
        if let Some(file) = files.iter().find(|file| !crate::format::is_plain_name(&file.name)) {
            return Err(ManifestError::NotPlainName { name: file.name.clone() });
        }
        for ManifestTensor { name, dtype, shape, bytes, .. } in &tensors {
            if bytes_of(*dtype, shape) != Some(*bytes) {
                let (name, dtype, shape) = (name.clone(), *dtype, shape.clone());
                return Err(ManifestError::WrongBytes { name, dtype, shape, bytes: *bytes });
            }
        }
        Ok(Self { tensors, files })
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// Returns an error if it breaks a rule of `docs/manifest.md`.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        json::parse(json)
    }

    /// Returns the tensors, sorted by name.
    #[must_use]
    pub fn tensors(&self) -> &[ManifestTensor] {
        &self.tensors
    }

    /// Returns the files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// Returns the tensor with this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&ManifestTensor> {
        let at = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[at])
    }

    /// Returns the file with this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&ManifestFile> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        Some(&self.files[at])
    }
}

impl ManifestTensor {
    /// Creates the entry of a tensor with this hash.
    #[must_use]
    pub fn of(tensor: &TensorInfo<'_>, blake3: Checksum) -> Self {
        let (name, shape) = (tensor.name.into(), tensor.shape.into());
        Self { name, dtype: tensor.dtype, shape, bytes: tensor.byte_len(), blake3 }
    }
}

/// Sorts by name. The sort is stable.
fn sorted<T>(list: Vec<T>, name: impl Fn(&T) -> &str + Copy) -> Vec<T> {
    let order = sorted_by_name(list.iter().map(name));
    let mut list: Vec<Option<T>> = list.into_iter().map(Some).collect();
    order.into_iter().filter_map(|number| list[number as usize].take()).collect()
}

/// Returns the length of a tensor in bytes, or `None` if it is not a whole number or on overflow.
fn bytes_of(dtype: ElementType, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u128, |elements, &n| elements.checked_mul(n.into()))?;
    u64::try_from(dtype.bytes_of(elements)?).ok()
}

#[cfg(test)]
mod tests;
