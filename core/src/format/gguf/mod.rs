//! A strict parser of GGUF headers, versions 2 and 3.
//!
//! A file consists of a magic, a version, two counts, the metadata, the tensor descriptions,
//! padding, and the bytes of one tensor after another. Everything is little-endian.
//!
//! The parser accepts what ggml's reader (`gguf.cpp`) accepts, except for input that crashes ggml
//! or that two readers would interpret differently:
//!
//! - tensor names with a zero byte
//! - keys and names that are not UTF-8
//! - keys longer than the specification allows
//! - an alignment above [`MAX_ALIGNMENT`]
//! - shapes that overflow in one order of multiplication but not in another
//! - tensors that extend past the end of the file
//!
//! A header does not state its length, and a tokenizer makes it 10 MB or longer. [`parse`] takes
//! the bytes read so far and returns how many it needs if they are too few. It allocates in
//! proportion to the available bytes, and borrows metadata and names.

mod cursor;
mod error;
mod format;
mod metadata;
mod split;
mod tensor;
mod value;
mod value_type;

pub use error::{GgufError, HeaderPosition};
pub use format::{GGUF, Gguf};
pub use split::{ShardName, Split, SplitError, check_split};
pub use tensor::Entry;
pub use value::{Array, Value};
pub use value_type::ValueType;

use crate::catalog::CatalogBuilder;
use crate::error::Error;
use crate::names::sorted_by_name;
use crate::units::{Alignment, FileId};
use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use cursor::{Cursor, Stop};
use tensor::Layout;

/// The magic at the start of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The maximum size of a header in bytes. The largest known headers have a tenth of it.
pub const MAX_HEADER_BYTES: u64 = 128 << 20;

/// The maximum length of a key in bytes, from the specification.
pub const MAX_KEY_BYTES: u64 = 65535;

/// The limit for the length of a tensor name in bytes, exclusive (`GGML_MAX_NAME`).
pub const MAX_NAME_BYTES: u64 = 64;

/// The maximum number of dimensions (`GGML_MAX_DIMS`).
pub const MAX_DIMS: u32 = 4;

/// The maximum `general.alignment`. The usual value is 32.
pub const MAX_ALIGNMENT: u32 = 16 << 20;

const DEFAULT_ALIGNMENT: u32 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// The minimum size of a key with its value: a length, a character, a type and a byte.
const MIN_KEY_ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;
/// The minimum size of a tensor description: a name length, a number of dimensions, a type and an
/// offset.
const MIN_TENSOR_ENTRY_BYTES: u64 = 8 + 4 + 4 + 8;

/// The result of parsing the start of a file.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// The complete header.
    Header(Header<'a>),
    /// The header is longer. At least this many bytes of the file are needed, and the file has
    /// them.
    Needs(u64),
}

/// A parsed and checked header.
#[derive(Debug)]
pub struct Header<'a> {
    version: u32,
    alignment: Alignment,
    data_start: u64,
    metadata: Vec<(&'a str, Value<'a>)>,
    entries: Vec<Entry<'a>>,
}

/// Parses the header in `bytes`, the start of a file of `file_len` bytes.
///
/// Each call parses from the start. If each read is at least twice as long as the last, all calls
/// together take at most twice the time of the last one.
///
/// # Errors
/// Returns a [`GgufError`], which has one variant per rule of the format.
pub fn parse(bytes: &[u8], file_len: u64) -> Result<Parsed<'_>, GgufError> {
    let mut parser = Parser { cursor: Cursor::new(bytes, file_len), keys_left: 0, tensors_left: 0 };
    match parser.header() {
        Ok(header) => Ok(Parsed::Header(header)),
        Err(Stop::Invalid(error)) => Err(error),
        Err(Stop::PastEnd { at, needed }) => {
            Err(GgufError::PastEnd { position: HeaderPosition::Start, at, needed, file_len })
        }
        Err(Stop::Short { end }) => {
            let rest = min_bytes(parser.keys_left, parser.tensors_left);
            let end = u64::try_from(u128::from(end) + rest).unwrap_or(u64::MAX).min(file_len);
            if end > MAX_HEADER_BYTES { Err(GgufError::HeaderTooLarge { end }) } else { Ok(Parsed::Needs(end)) }
        }
    }
}

impl<'a> Header<'a> {
    /// Returns the version, 2 or 3. They differ only in what they allow.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the alignment of the tensors' offsets in the data.
    #[must_use]
    pub fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// Returns the offset of the first tensor byte in the file.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Returns the metadata in the order of the file.
    #[must_use]
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.metadata
    }

    /// Returns the value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Returns the tensors in the order of their bytes in the file.
    #[must_use]
    pub fn entries(&self) -> &[Entry<'a>] {
        &self.entries
    }

    /// Adds the file of this header to a catalog.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if files or tensors exceed 32-bit numbers.
    pub fn add_to(&self, catalog: &mut CatalogBuilder, name: &str, len: u64) -> Result<FileId, Error> {
        let file = catalog.add_file(name, len)?;
        catalog.reserve(self.entries.len());
        for entry in &self.entries {
            let mut shape = [0; MAX_DIMS as usize];
            let shape = &mut shape[..entry.ggml_shape().len()];
            shape.iter_mut().zip(entry.shape()).for_each(|(to, dim)| *to = dim);
            catalog.add_tensor(file, entry.name, entry.ggml.into(), shape, entry.range)?;
        }
        for (key, value) in &self.metadata {
            catalog.add_metadata(file, key, value);
        }
        Ok(file)
    }
}

fn min_bytes(keys: u64, tensors: u64) -> u128 {
    u128::from(keys) * u128::from(MIN_KEY_ENTRY_BYTES) + u128::from(tensors) * u128::from(MIN_TENSOR_ENTRY_BYTES)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    /// The keys that are not parsed yet.
    keys_left: u64,
    tensors_left: u64,
}

impl<'a> Parser<'a> {
    fn header(&mut self) -> Result<Header<'a>, Stop> {
        let (version, tensors, keys) = self.start()?;
        let metadata = self.metadata(keys)?;
        let alignment = alignment(&metadata)?;
        let (entries, data_start) = self.tensors(tensors, alignment)?;
        Ok(Header { version, alignment, data_start, metadata, entries })
    }

    /// Parses the magic, the version and the counts of tensors and keys.
    fn start(&mut self) -> Result<(u32, u64, u64), Stop> {
        let cursor = &mut self.cursor;
        let magic = cursor.array()?;
        if magic != MAGIC {
            return Err(GgufError::Magic { found: magic }.into());
        }
        let version = cursor.u32()?;
        match version {
            2 | 3 => {}
            1 => return Err(GgufError::Version1.into()),
            // ggml uses the same test: no version will be a multiple of 65536.
            1.. if version & 0xffff == 0 => {
                return Err(GgufError::BigEndian { version: version.swap_bytes() }.into());
            }
            _ => return Err(GgufError::UnknownVersion { version }.into()),
        }
        let mut count = |what| {
            let count = cursor.i64()?;
            u64::try_from(count).map_err(|_| Stop::Invalid(GgufError::NegativeCount { what, count }))
        };
        let (tensors, keys) = (count("tensors")?, count("metadata values")?);
        let (file_len, left) = (self.cursor.file_len(), self.cursor.left());
        let min = u128::from(file_len - left) + min_bytes(keys, tensors);
        if min > file_len.into() {
            return Err(GgufError::Counts { tensors, keys, min, file_len }.into());
        }
        (self.keys_left, self.tensors_left) = (keys, tensors);
        Ok((version, tensors, keys))
    }

    fn metadata(&mut self, keys: u64) -> Result<Vec<(&'a str, Value<'a>)>, Stop> {
        let mut metadata = Vec::with_capacity(self.cursor.room_for(keys, MIN_KEY_ENTRY_BYTES));
        for number in 0..keys {
            self.keys_left -= 1;
            let key = self.key(number)?;
            let file_len = self.cursor.file_len();
            let value =
                self.value(key).map_err(|stop| stop.within(file_len, || HeaderPosition::Value(key.to_owned())))?;
            metadata.push((key, value));
        }
        match first_duplicate(metadata.iter().map(|(key, _)| *key)) {
            Some(key) => Err(GgufError::DuplicateKey { key: key.to_owned() }.into()),
            None => Ok(metadata),
        }
    }

    fn key(&mut self, number: u64) -> Result<&'a str, Stop> {
        let cursor = &mut self.cursor;
        let file_len = cursor.file_len();
        let position = |stop: Stop| stop.within(file_len, || HeaderPosition::Key(number));
        match cursor.u64().map_err(position)? {
            0 => Err(GgufError::EmptyKey { number }.into()),
            len @ ..=MAX_KEY_BYTES => core::str::from_utf8(cursor.take(len).map_err(position)?)
                .map_err(|error| GgufError::KeyNotUtf8 { number, at: error.valid_up_to() as u64 }.into()),
            len => Err(GgufError::KeyTooLong { number, len }.into()),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value<'a>, Stop> {
        let cursor = &mut self.cursor;
        let key = || key.to_owned();
        let id = cursor.i32()?;
        let value_type = ValueType::from_id(id).ok_or_else(|| GgufError::UnknownValueType { key: key(), id })?;
        if let Some(value) = Value::scalar(cursor, value_type)? {
            return Ok(value);
        }
        let id = cursor.i32()?;
        let element = ValueType::from_id(id).ok_or_else(|| GgufError::UnknownElementType { key: key(), id })?;
        if element == ValueType::Array {
            return Err(GgufError::NestedArray { key: key() }.into());
        }
        let count = cursor.u64()?;
        Array::skip(cursor, element, count).map(Value::Array)
    }

    /// Parses the tensors, and returns them with the offset of their data.
    fn tensors(&mut self, tensors: u64, alignment: Alignment) -> Result<(Vec<Entry<'a>>, u64), Stop> {
        let mut layout = Layout::new(alignment, self.cursor.file_len());
        let mut entries = Vec::with_capacity(self.cursor.room_for(tensors, MIN_TENSOR_ENTRY_BYTES));
        for number in 0..tensors {
            self.tensors_left -= 1;
            let (mut entry, offset) = Entry::read(&mut self.cursor, number)?;
            entry.range = layout.place(&entry, offset)?;
            entries.push(entry);
        }
        if let Some(name) = first_duplicate(entries.iter().map(|entry| entry.name)) {
            return Err(GgufError::DuplicateName { name: name.to_owned() }.into());
        }
        let data_start = layout.finish(&mut entries, self.cursor.at())?;
        Ok((entries, data_start))
    }
}

/// Returns the alignment that the metadata requests.
fn alignment(metadata: &[(&str, Value<'_>)]) -> Result<Alignment, GgufError> {
    let found = match metadata.iter().find(|(key, _)| *key == ALIGNMENT_KEY) {
        None => DEFAULT_ALIGNMENT,
        Some((_, Value::U32(found))) => *found,
        Some((_, other)) => return Err(GgufError::AlignmentType { found: other.value_type() }),
    };
    Alignment::new(found.into()).filter(|_| found <= MAX_ALIGNMENT).ok_or(GgufError::Alignment { found })
}

/// Returns a name that occurs twice, if there is one.
fn first_duplicate<'n>(names: impl ExactSizeIterator<Item = &'n str> + Clone) -> Option<&'n str> {
    let all: Vec<&str> = names.clone().collect();
    let sorted = sorted_by_name(names);
    sorted.windows(2).map(|pair| (all[pair[0] as usize], all[pair[1] as usize])).find(|(a, b)| a == b).map(|(a, _)| a)
}

#[cfg(test)]
mod tests;
