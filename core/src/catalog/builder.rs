//! Builds a [`Catalog`] from the output of the parsers: files, tensors and metadata.
//!
//! Every format uses the same three calls, [`add_file`](CatalogBuilder::add_file),
//! [`add_tensor`](CatalogBuilder::add_tensor) and [`add_metadata`](CatalogBuilder::add_metadata),
//! in the order of its header. A parser checks the rules of its format. The builder ensures that
//! names are unique over all files, sorts by file and offset, and checks that the tables fit their
//! index types.

use super::{Catalog, FileInfo, Record};
use crate::dtype::DType;
use crate::element::ElementType;
use crate::error::Error;
use crate::format_id::FormatId;
use crate::metadata::MetadataValue;
use crate::names::sorted_by_name;
use crate::units::{ByteRange, FileId, TensorId};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// Builds a [`Catalog`] from parsed files.
#[derive(Debug)]
pub struct CatalogBuilder {
    catalog: Catalog,
}

impl CatalogBuilder {
    /// Creates a builder for a catalog of this format.
    #[must_use]
    pub fn new(format: FormatId) -> Self {
        Self {
            catalog: Catalog {
                format,
                files: Vec::new(),
                records: Vec::new(),
                names: String::new(),
                dims: Vec::new(),
                by_name: Vec::new(),
                metadata: Vec::new(),
                has_ties: false,
            },
        }
    }

    /// Adds a file of `bytes` bytes.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if files exceed 32-bit numbers.
    pub fn add_file(&mut self, path: &str, bytes: u64) -> Result<FileId, Error> {
        let files = &mut self.catalog.files;
        let file = u32::try_from(files.len()).map(FileId).map_err(|_| Error::TooMany { what: "files" })?;
        files.push(FileInfo { path: path.to_owned(), bytes });
        Ok(file)
    }

    /// Returns the files added so far.
    #[must_use]
    pub fn files(&self) -> &[FileInfo] {
        &self.catalog.files
    }

    /// Returns the number of tensors of each file.
    #[must_use]
    pub fn tensor_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.catalog.files.len()];
        self.catalog.records.iter().for_each(|record| counts[record.file.index()] += 1);
        counts
    }

    /// Returns the metadata pairs added so far.
    pub fn metadata(&self) -> impl Iterator<Item = (FileId, &str, &MetadataValue)> {
        self.catalog.metadata()
    }

    /// Reserves space for `tensors` more tensors. The number must not come from an unchecked
    /// header.
    pub fn reserve(&mut self, tensors: usize) {
        self.catalog.records.reserve(tensors);
    }

    /// Appends the files of another builder of the same format, as if they had been added here.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if files or tensors exceed 32-bit numbers.
    pub fn append(&mut self, other: Self) -> Result<(), Error> {
        let (catalog, Catalog { files, records, names, dims, metadata, .. }) = (&mut self.catalog, other.catalog);
        let too_many = |what| Error::TooMany { what };
        let fits = |here: usize, more: usize| here.checked_add(more).is_some_and(|sum| u32::try_from(sum).is_ok());
        if !fits(catalog.files.len(), files.len()) {
            return Err(too_many("files"));
        }
        if !fits(catalog.records.len(), records.len()) {
            return Err(too_many("tensors"));
        }
        if catalog.files.is_empty() {
            (catalog.files, catalog.records, catalog.names) = (files, records, names);
            (catalog.dims, catalog.metadata) = (dims, metadata);
            return Ok(());
        }
        let (file, name, dim) = (FileId::from_index(catalog.files.len()).0, catalog.names.len(), catalog.dims.len());
        catalog.records.extend(records.into_iter().map(|record| Record {
            name: record.name.start + name..record.name.end + name,
            dims: record.dims.start + dim..record.dims.end + dim,
            file: FileId(record.file.0 + file),
            ..record
        }));
        catalog.metadata.extend(metadata.into_iter().map(|(of, key, value)| (FileId(of.0 + file), key, value)));
        catalog.files.extend(files);
        catalog.names.push_str(&names);
        catalog.dims.extend(dims);
        Ok(())
    }

    /// Adds a tensor whose bytes are at `range` of an added file. The slowest dimension of `shape`
    /// is first.
    ///
    /// The parser must ensure that the range is within the file and has the length of dtype and
    /// shape.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if tensors exceed 32-bit numbers.
    pub fn add_tensor(
        &mut self,
        file: FileId,
        name: &str,
        dtype: ElementType,
        shape: &[u64],
        range: ByteRange,
    ) -> Result<(), Error> {
        let catalog = &mut self.catalog;
        if u32::try_from(catalog.records.len() + 1).is_err() {
            return Err(Error::TooMany { what: "tensors" });
        }
        let (names, dims) = (catalog.names.len(), catalog.dims.len());
        catalog.names.push_str(name);
        catalog.dims.extend_from_slice(shape);
        let (name, dims) = (names..catalog.names.len(), dims..catalog.dims.len());
        catalog.records.push(Record { name, dims, dtype, file, range });
        Ok(())
    }

    /// Adds a metadata pair of a file.
    pub fn add_metadata(&mut self, file: FileId, key: &str, value: impl Into<MetadataValue>) {
        self.catalog.metadata.push((file, key.to_owned(), value.into()));
    }

    /// Adds a file of any format as one tensor of all its bytes, with its path as the name.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if files or tensors exceed 32-bit numbers.
    pub fn add_whole_file(&mut self, path: &str, bytes: u64) -> Result<FileId, Error> {
        let file = self.add_file(path, bytes)?;
        let range = ByteRange::new(0, bytes).unwrap_or(ByteRange::EMPTY);
        self.add_tensor(file, path, DType::U8.into(), &[bytes], range)?;
        Ok(file)
    }

    /// Returns the catalog of all added files.
    ///
    /// # Errors
    /// Returns [`Error::DuplicateTensor`] if two tensors have the same name.
    pub fn finish(self) -> Result<Catalog, Error> {
        let mut catalog = self.catalog;
        // Most formats are already sorted, so the sort only checks them. Of tensors with equal
        // starts, empty ones come first.
        catalog.records.sort_by_key(|record| (record.file, record.range.start(), record.range.end()));
        let names = catalog.records.iter().map(|record| &catalog.names[record.name.clone()]);
        let by_name: Vec<TensorId> = sorted_by_name(names).into_iter().map(TensorId).collect();
        for pair in by_name.windows(2) {
            let (a, b) = (catalog.tensor(pair[0]), catalog.tensor(pair[1]));
            if a.name == b.name {
                return Err(Error::DuplicateTensor {
                    tensor: a.name.to_owned(),
                    first: catalog.file(a.file).path.clone(),
                    second: catalog.file(b.file).path.clone(),
                });
            }
        }
        catalog.by_name = by_name;
        let ids = || (0..catalog.records.len()).map(TensorId::from_index);
        catalog.has_ties = ids().zip(ids().skip(1)).any(|(a, b)| catalog.are_tied(a, b));
        Ok(catalog)
    }
}
