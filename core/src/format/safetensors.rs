//! The header of a safetensors file, parsed strictly.
//!
//! A file is a little-endian `u64` N, N bytes of JSON, then the tensors' bytes. The JSON names every tensor's dtype,
//! shape and `data_offsets`, counted from byte 8+N. What is accepted is exactly what the reference accepts (crate
//! `safetensors`, `SafeTensors::read_metadata`), but for two rules: a name that occurs twice, or a key that occurs twice
//! in a tensor's entry, is refused, because keeping one of the two would hide damage.
//!
//! Names are borrowed from the header where it writes them without escapes, and all shapes share one vector: parsing
//! makes no allocation for a tensor. Nothing is ever allocated from a length that the file merely claims.

mod error;
mod format;
mod json;
mod layout;
pub mod write;

pub use error::HeaderError;
pub use format::{SAFETENSORS, Safetensors};

use crate::catalog::CatalogBuilder;
use crate::dtype::DType;
use crate::error::Error;
use crate::units::{ByteRange, FileId};
use alloc::borrow::{Cow, ToOwned};
use alloc::vec::Vec;
use core::ops::Range;

/// The largest header that the reference accepts, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The bytes before the JSON.
pub const PREFIX_BYTES: u64 = 8;

/// Where the JSON header lies, from the first bytes of the file (8 are enough) and the file's length.
///
/// # Errors
/// When the file is shorter than 8 bytes, or the length it claims is over [`MAX_HEADER_BYTES`] or past its end.
pub fn header_range(prefix: &[u8], file_len: u64) -> Result<ByteRange, HeaderError> {
    let Some(length) = prefix.first_chunk::<8>().filter(|_| file_len >= PREFIX_BYTES) else {
        return Err(HeaderError::FileTooShort { file_len });
    };
    let claimed = u64::from_le_bytes(*length);
    if claimed > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLarge { claimed });
    }
    let end = PREFIX_BYTES + claimed;
    if end > file_len {
        return Err(HeaderError::PastEnd { claimed, file_len });
    }
    ByteRange::new(PREFIX_BYTES, end).ok_or(HeaderError::PastEnd { claimed, file_len })
}

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its name, borrowed from the header unless that escapes it.
    pub name: Cow<'a, str>,
    /// The type of its elements.
    pub dtype: DType,
    /// Where its bytes lie, counted from the start of the **file**.
    pub range: ByteRange,
    dims: Range<usize>,
}

/// A parsed and checked header.
#[derive(Debug)]
pub struct Header<'a> {
    /// In the order of their bytes in the file.
    entries: Vec<Entry<'a>>,
    dims: Vec<u64>,
    metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    data_start: u64,
}

impl<'a> Header<'a> {
    /// Parses the JSON of a header, as [`header_range`] finds it in a file of `file_len` bytes.
    ///
    /// # Errors
    /// One variant of [`HeaderError`] for each rule of the format.
    pub fn parse(json: &'a [u8], file_len: u64) -> Result<Self, HeaderError> {
        let text = core::str::from_utf8(json).map_err(|e| HeaderError::NotUtf8 { at: e.valid_up_to() as u64 })?;
        let raw = json::parse(text)?;
        let header_len = json.len() as u64;
        let data_start = PREFIX_BYTES + header_len;
        let Some(data_len) = file_len.checked_sub(data_start) else {
            return Err(HeaderError::PastEnd { claimed: header_len, file_len });
        };
        check_names(&raw.entries)?;
        let mut header =
            Self { entries: Vec::with_capacity(raw.entries.len()), dims: raw.dims, metadata: raw.metadata, data_start };
        let mut order: Vec<json::RawEntry<'a>> = raw.entries;
        order.sort_by_key(|entry| entry.data_offsets);
        let mut end = 0;
        for entry in order {
            end = header.check_and_push(entry, end)?;
        }
        if end > data_len {
            return Err(HeaderError::Truncated { expected: data_start.saturating_add(end), found: file_len });
        }
        if end < data_len {
            return Err(HeaderError::TrailingBytes { expected: data_start + end, found: file_len });
        }
        Ok(header)
    }

    /// The tensors in the order of their bytes in the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// The shape of one of this header's entries; empty for a scalar.
    #[must_use]
    pub fn shape(&self, entry: &Entry<'_>) -> &[u64] {
        &self.dims[entry.dims.clone()]
    }

    /// The `__metadata__` pairs, as written. As in the reference, the last of several equal keys counts; here all are kept.
    #[must_use]
    pub fn metadata(&self) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.metadata
    }

    /// The offset of the first tensor byte in the file: any byte, aligned or not.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Adds the file whose header this is to a catalog.
    ///
    /// # Errors
    /// [`Error::TooMany`] when files or tensors outgrow 32-bit numbers.
    pub fn add_to(&self, catalog: &mut CatalogBuilder, name: &str, len: u64) -> Result<FileId, Error> {
        let file = catalog.add_file(name, len)?;
        catalog.reserve(self.entries.len());
        for entry in &self.entries {
            catalog.add_tensor(file, &entry.name, entry.dtype.into(), self.shape(entry), entry.range)?;
        }
        for (key, value) in &self.metadata {
            catalog.add_metadata(file, key, &**value);
        }
        Ok(file)
    }

    /// Checks one entry against where the one before it ended and returns where it ends, both from the data's start.
    fn check_and_push(&mut self, entry: json::RawEntry<'a>, previous_end: u64) -> Result<u64, HeaderError> {
        let (begin, end) = entry.data_offsets;
        let name = || entry.name.as_ref().to_owned();
        if end < begin {
            return Err(HeaderError::EndBeforeBegin { name: name(), begin, end });
        }
        if begin > previous_end {
            return Err(HeaderError::Hole { name: name(), expected: previous_end, begin });
        }
        if begin < previous_end {
            return Err(HeaderError::Overlap { name: name(), expected: previous_end, begin });
        }
        let shape = &self.dims[entry.dims.clone()];
        let bits = shape
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
            .and_then(|elements| elements.checked_mul(entry.dtype.bits()))
            .ok_or_else(|| HeaderError::ShapeOverflow { name: name(), shape: shape.to_vec() })?;
        if !bits.is_multiple_of(8) {
            return Err(HeaderError::PartialByte { name: name(), dtype: entry.dtype, bits });
        }
        if bits / 8 != end - begin {
            return Err(HeaderError::SizeMismatch {
                name: name(),
                dtype: entry.dtype,
                shape: shape.to_vec(),
                expected: bits / 8,
                found: end - begin,
            });
        }
        let range = begin
            .checked_add(self.data_start)
            .zip(end.checked_add(self.data_start))
            .and_then(|(begin, end)| ByteRange::new(begin, end))
            .ok_or_else(|| HeaderError::ShapeOverflow { name: name(), shape: shape.to_vec() })?;
        self.entries.push(Entry { name: entry.name, dtype: entry.dtype, range, dims: entry.dims });
        Ok(end)
    }
}

/// Refuses names that occur twice. Writers sort names within a dtype, so that the sort mostly merges runs.
fn check_names(entries: &[json::RawEntry<'_>]) -> Result<(), HeaderError> {
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_ref()).collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(HeaderError::DuplicateName { name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
