//! The contents of a checkpoint: its files, and the name, dtype, shape, file, offset and length of
//! every tensor.
//!
//! All formats share this type, which a [`CatalogBuilder`] builds. Names and shapes are in shared
//! vectors, so a catalog of 100,000 tensors needs only a few allocations.

mod builder;

pub use builder::CatalogBuilder;

use crate::element::ElementType;
use crate::format_id::FormatId;
use crate::metadata::MetadataValue;
use crate::units::{ByteRange, FileId, TensorId};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The path in the storage, for messages.
    pub path: String,
    /// The length in bytes.
    pub bytes: u64,
}

/// A tensor as a view into its catalog, or a slice of one with the slice's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// The index in the catalog.
    pub id: TensorId,
    /// The name, unique in the catalog. Untrusted: print it through [`Escaped`](crate::Escaped).
    pub name: &'a str,
    /// The element type.
    pub dtype: ElementType,
    /// The dimensions, slowest first. Empty for a scalar.
    pub shape: &'a [u64],
    /// The file that contains it.
    pub file: FileId,
    /// The range in the file. For a strided slice, from the first byte to the last.
    pub range: ByteRange,
}

impl TensorInfo<'_> {
    /// Returns the length in bytes, computed from the shape, so that it holds for slices too.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        let elements = self.shape.iter().fold(1_u128, |elements, &n| elements.saturating_mul(n.into()));
        // The parser rejects larger tensors.
        self.dtype.bytes_of(elements).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX)
    }

    /// Returns the dimensions in ggml's order, fastest first.
    pub fn ggml_shape(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.shape.iter().rev().copied()
    }
}

#[derive(Debug)]
struct Record {
    name: Range<usize>,
    dims: Range<usize>,
    dtype: ElementType,
    file: FileId,
    range: ByteRange,
}

/// The files and tensors of a checkpoint, in the order of file and offset.
///
/// ```
/// use floodtide_core::format::SAFETENSORS;
/// use floodtide_core::format::safetensors::{Header, header_range};
/// use floodtide_core::CatalogBuilder;
///
/// let json = br#"{"bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#;
/// let mut file = (json.len() as u64).to_le_bytes().to_vec();
/// file.extend_from_slice(json);
/// file.extend_from_slice(&[0; 12]);
///
/// let len = file.len() as u64;
/// let header = header_range(&file, len).expect("a safetensors file");
/// let header = &file[header.indices()];
/// let header = Header::parse(header, len).expect("a valid header");
/// let mut builder = CatalogBuilder::new(SAFETENSORS);
/// header.add_to(&mut builder, "model.safetensors", len)?;
/// let catalog = builder.finish()?;
/// let bias = catalog.find("bias").expect("is listed");
/// assert_eq!((bias.shape, bias.byte_len()), (&[3][..], 12));
/// # Ok::<(), floodtide_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Catalog {
    format: FormatId,
    files: Vec<FileInfo>,
    records: Vec<Record>,
    names: String,
    dims: Vec<u64>,
    by_name: Vec<TensorId>,
    metadata: Vec<(FileId, String, MetadataValue)>,
    has_ties: bool,
}

impl Catalog {
    /// Returns the format of the checkpoint.
    #[must_use]
    pub fn format(&self) -> FormatId {
        self.format
    }

    /// Returns the files, by [`FileId`].
    #[must_use]
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// Returns a file of this catalog.
    ///
    /// # Panics
    /// Panics if `id` is of another catalog and out of bounds in this one.
    #[must_use]
    pub fn file(&self, id: FileId) -> &FileInfo {
        &self.files[id.index()]
    }

    /// Returns the number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns true if there is no tensor, which is valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns a tensor of this catalog.
    ///
    /// # Panics
    /// Panics if `id` is of another catalog and out of bounds in this one.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> TensorInfo<'_> {
        let record = &self.records[id.index()];
        TensorInfo {
            id,
            name: &self.names[record.name.clone()],
            dtype: record.dtype,
            shape: &self.dims[record.dims.clone()],
            file: record.file,
            range: record.range,
        }
    }

    /// Returns the tensors in the order of file and offset.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        (0..self.records.len()).map(|i| self.tensor(TensorId::from_index(i)))
    }

    /// Returns the tensors sorted by the bytes of their names.
    pub fn tensors_by_name(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.by_name.iter().map(|&id| self.tensor(id))
    }

    /// Returns the tensor with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<TensorInfo<'_>> {
        let at = self.by_name.binary_search_by(|&id| self.tensor(id).name.cmp(name)).ok()?;
        Some(self.tensor(self.by_name[at]))
    }

    /// Returns the metadata pairs of all files, in file order.
    pub fn metadata(&self) -> impl Iterator<Item = (FileId, &str, &MetadataValue)> {
        self.metadata.iter().map(|(file, key, value)| (*file, key.as_str(), value))
    }

    /// Returns true if two tensors are tied: they are the same, non-empty bytes of a file.
    ///
    /// Such tensors shared storage when they were saved. They are adjacent in a catalog.
    #[must_use]
    pub fn are_tied(&self, a: TensorId, b: TensorId) -> bool {
        let (a, b) = (&self.records[a.index()], &self.records[b.index()]);
        a.range == b.range && a.file == b.file && !a.range.is_empty()
    }

    /// Returns true if any two tensors [are tied](Self::are_tied).
    #[must_use]
    pub fn has_ties(&self) -> bool {
        self.has_ties
    }

    /// Returns the total length of all tensors in bytes. [Tied](Self::are_tied) tensors count once.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        // Tensors are within their files, so the sum is at most the size of all files. Saturate for
        // absurd sparse files.
        let (mut sum, mut before) = (0_u64, None);
        for record in &self.records {
            let place = Some((record.file, record.range));
            if before != place {
                sum = sum.saturating_add(record.range.len());
            }
            before = place;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::error::Error;
    use crate::format::SAFETENSORS;
    use crate::format::safetensors::Header;
    use alloc::borrow::ToOwned;
    use alloc::format;

    /// Returns a catalog of files "a", "b" and so on, with one-byte tensors of these names.
    fn catalog(files: &[&[&str]]) -> Result<Catalog, Error> {
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        for (names, path) in files.iter().zip(["a", "b", "c"]) {
            let entry = |(i, name): (usize, &&str)| {
                format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)
            };
            let json = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
            let bytes = (8 + json.len() + names.len()) as u64;
            Header::parse(json.as_bytes(), bytes).expect("valid").add_to(&mut builder, path, bytes)?;
        }
        builder.finish()
    }

    #[test]
    fn a_name_in_two_files_is_refused() {
        let duplicate =
            Error::DuplicateTensor { tensor: "t".to_owned(), first: "a".to_owned(), second: "c".to_owned() };
        assert_eq!(catalog(&[&["s", "t"], &["u"], &["t"]]).map(drop), Err(duplicate));
    }

    #[test]
    fn what_is_appended_is_as_if_it_had_been_added() {
        let add = |builder: &mut CatalogBuilder, files: Range<u64>| {
            for number in files {
                let file = builder.add_file(&format!("file {number}"), 100 + number).expect("few");
                for tensor in 0..number % 4 {
                    let (name, shape) = (format!("{number}.{tensor}"), [tensor + 1, number, 1]);
                    let range = ByteRange::new(tensor * 9, tensor * 9 + number % 9).expect("forwards");
                    let shape = &shape[..tensor as usize];
                    builder.add_tensor(file, &name, DType::U8.into(), shape, range).expect("few");
                }
                builder.add_metadata(file, &format!("key {number}"), "value");
            }
        };
        let mut all = CatalogBuilder::new(SAFETENSORS);
        add(&mut all, 0..30);
        let mut parts = CatalogBuilder::new(SAFETENSORS);
        for files in [0..7, 7..7, 7..8, 8..30] {
            let mut part = CatalogBuilder::new(SAFETENSORS);
            add(&mut part, files);
            parts.append(part).expect("few");
        }
        let tables = |builder: CatalogBuilder| format!("{:?}", builder.finish().expect("no duplicates"));
        assert_eq!(tables(parts), tables(all));
    }

    #[test]
    fn tensors_are_found_by_number_by_name_and_in_both_orders() {
        let catalog = catalog(&[&["t", "s"], &["r"]]).expect("no duplicates");
        let names =
            |tensors: &mut dyn Iterator<Item = TensorInfo<'_>>| tensors.map(|t| t.name.to_owned()).collect::<String>();
        assert_eq!((catalog.len(), catalog.is_empty(), catalog.tensor_bytes()), (3, false, 3));
        assert_eq!(names(&mut catalog.tensors()), "tsr");
        assert_eq!(names(&mut catalog.tensors_by_name()), "rst");
        for tensor in catalog.tensors() {
            assert_eq!((catalog.tensor(tensor.id), catalog.find(tensor.name)), (tensor, Some(tensor)));
        }
        assert_eq!(catalog.find("q"), None);
        let last = catalog.find("r").expect("it is there");
        assert_eq!((last.id, last.file, last.shape), (TensorId(2), FileId(1), &[1][..]));
        assert_eq!(last.dtype, DType::U8);
        assert_eq!(last.range.end(), catalog.file(last.file).bytes, "it ends its file");
        assert_eq!(catalog.files().iter().map(|file| file.path.as_str()).collect::<String>(), "ab");
    }

    #[test]
    fn metadata_says_which_file_it_is_of() {
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        for json in [r#"{"__metadata__":{"k":"v","l":"w"}}"#, "{}", r#"{"__metadata__":{"k":"x"}}"#] {
            let bytes = 8 + json.len() as u64;
            Header::parse(json.as_bytes(), bytes).expect("valid").add_to(&mut builder, "a", bytes).expect("adds");
        }
        let catalog = builder.finish().expect("no duplicates");
        let pairs = [(FileId(0), "k", "v"), (FileId(0), "l", "w"), (FileId(2), "k", "x")];
        let texts = catalog.metadata().map(|(file, key, value)| (file, key, value.as_text().expect("a text")));
        assert_eq!(texts.collect::<Vec<_>>(), pairs);
        assert!(catalog.is_empty() && catalog.format() == SAFETENSORS);
    }
}
