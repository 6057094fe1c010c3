//! The manifest of a checkpoint: the BLAKE3 of each tensor and the SHA-256 of each file, as a documented JSON (`docs/manifest.md`).
//!
//! A manifest comes from outside like the checkpoint, so it is parsed strictly, and nothing is allocated but in proportion to what is there.
//! What it says is only ever compared with: no name in it becomes a path that is opened. Writing is deterministic: everything is sorted by
//! name, so that two manifests of equal checkpoints are equal byte for byte.

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

/// The SHA-256 of a file, as `sha256sum` prints it and as Hugging Face's LFS pointers hold it.
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

/// A tensor in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestTensor {
    /// Its name. Untrusted: print it through [`Escaped`](crate::Escaped).
    pub name: String,
    /// The type of its elements.
    pub dtype: ElementType,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
    /// How many bytes it has; as many as dtype and shape say.
    pub bytes: u64,
    /// The hash of its bytes as they lie in the file.
    pub blake3: Checksum,
}

/// A file in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its name within the checkpoint's folder. Untrusted: print it through [`Escaped`](crate::Escaped).
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// The hash of all of them.
    pub sha256: Sha256,
}

/// A checkpoint's checksums.
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
    /// Sorted by name, each name once; so are the files.
    tensors: Vec<ManifestTensor>,
    files: Vec<ManifestFile>,
}

impl Manifest {
    /// A manifest of these, in any order.
    ///
    /// # Errors
    /// When two tensors or two files have one name, a file's name is not plain, or a tensor has not as many bytes as its dtype and shape say.
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
    /// When it breaks a rule of `docs/manifest.md`.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        json::parse(json)
    }

    /// The tensors, sorted by name.
    #[must_use]
    pub fn tensors(&self) -> &[ManifestTensor] {
        &self.tensors
    }

    /// The files, sorted by name.
    #[must_use]
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// The tensor of that name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&ManifestTensor> {
        let at = self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[at])
    }

    /// The file of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&ManifestFile> {
        let at = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        Some(&self.files[at])
    }
}

impl ManifestTensor {
    /// A tensor of a checkpoint with the hash of its bytes.
    #[must_use]
    pub fn of(tensor: &TensorInfo<'_>, blake3: Checksum) -> Self {
        let (name, shape) = (tensor.name.into(), tensor.shape.into());
        Self { name, dtype: tensor.dtype, shape, bytes: tensor.byte_len(), blake3 }
    }
}

/// In the order of their names; equal ones as they were.
fn sorted<T>(list: Vec<T>, name: impl Fn(&T) -> &str + Copy) -> Vec<T> {
    let order = sorted_by_name(list.iter().map(name));
    let mut list: Vec<Option<T>> = list.into_iter().map(Some).collect();
    order.into_iter().filter_map(|number| list[number as usize].take()).collect()
}

/// How many bytes a tensor has; `None` when they are no whole number, or more than can be counted.
fn bytes_of(dtype: ElementType, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1_u128, |elements, &n| elements.checked_mul(n.into()))?;
    u64::try_from(dtype.bytes_of(elements)?).ok()
}

#[cfg(test)]
mod tests;
