//! A strict parser of safetensors headers.
//!
//! A file is a little-endian `u64` N, N bytes of JSON, then the bytes of the tensors. The JSON
//! holds the dtype, the shape and the `data_offsets` of every tensor, counted from byte 8+N.
//!
//! The parser accepts what the reference accepts (crate `safetensors`,
//! `SafeTensors::read_metadata`), with one exception: it rejects duplicate names, and duplicate
//! keys of a tensor's entry. Keeping one of the two would hide damage.
//!
//! Names without escapes are borrowed from the header, and all shapes share one vector, so parsing
//! allocates nothing per tensor. Allocations never depend on a length that the file merely claims.

mod error;
mod format;
mod json;
mod layout;
pub mod write;

pub use error::HeaderError;
pub use format::Safetensors;

use crate::catalog::CatalogBuilder;
use crate::dtype::DType;
use crate::error::Error;
use crate::format_id::FormatId;
use crate::units::{ByteRange, FileId};
use alloc::borrow::{Cow, ToOwned};
use alloc::vec::Vec;
use core::ops::Range;

/// One or more safetensors files, with or without an index.
pub const SAFETENSORS: FormatId = FormatId::new("safetensors", "safetensors");

/// The usual name of the index.
const INDEX_NAME: &str = "model.safetensors.index.json";

/// The maximum size of a header in bytes, as in the reference.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The number of bytes before the JSON.
pub const PREFIX_BYTES: u64 = PREFIX_LEN as u64;
const PREFIX_LEN: usize = 8;

/// Returns the range of the JSON header, given the first 8 bytes of a file of `file_len` bytes.
///
/// # Errors
/// Fails if the file is shorter than 8 bytes, or the length exceeds [`MAX_HEADER_BYTES`] or the
/// file.
pub fn header_range(prefix: &[u8], file_len: u64) -> Result<ByteRange, HeaderError> {
    let Some(length) = prefix.first_chunk::<PREFIX_LEN>().filter(|_| file_len >= PREFIX_BYTES) else {
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

/// A tensor description of a header.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The name, borrowed from the header if it has no escapes.
    pub name: Cow<'a, str>,
    /// The element type.
    pub dtype: DType,
    /// The range of its bytes, from the start of the **file**.
    pub range: ByteRange,
    dims: Range<usize>,
}

/// A parsed and checked header.
#[derive(Debug)]
pub struct Header<'a> {
    /// The tensors, in the order of their bytes in the file.
    entries: Vec<Entry<'a>>,
    dims: Vec<u64>,
    metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    data_start: u64,
}

impl<'a> Header<'a> {
    /// Parses the JSON of a header, whose range is [`header_range`], of a file of `file_len` bytes.
    ///
    /// # Errors
    /// Returns a [`HeaderError`], which has one variant per rule of the format.
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

    /// Returns the tensors in the order of their bytes in the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// Returns the shape of an entry of this header. Empty for a scalar.
    #[must_use]
    pub fn shape(&self, entry: &Entry<'_>) -> &[u64] {
        &self.dims[entry.dims.clone()]
    }

    /// Returns the `__metadata__` pairs as written, including duplicate keys. In the reference the
    /// last of them counts.
    #[must_use]
    pub fn metadata(&self) -> &[(Cow<'a, str>, Cow<'a, str>)] {
        &self.metadata
    }

    /// Returns the offset of the first tensor byte in the file, which may be unaligned.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Adds the file of this header to a catalog.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if files or tensors exceed 32-bit numbers.
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

    /// Checks that an entry starts where the previous one ended, and returns its end, both from the
    /// start of the data.
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

/// Rejects duplicate names. Writers sort names within a dtype, so the sort mostly merges runs.
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
