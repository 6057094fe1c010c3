//! Metadata values. Scalars and strings are parsed, arrays only located.
//!
//! The arrays of a tokenizer make up most of a header, and a load does not need them. The parser
//! skips elements of fixed size by a multiplication, and strings by their lengths. The elements can
//! be parsed later.

use super::cursor::{Cursor, Stop};
use super::value_type::ValueType;
use crate::units::ByteRange;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "they are those of `ValueType`")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    /// As in ggml, every byte except 0 is true.
    Bool(bool),
    /// Usually UTF-8, but not checked.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Returns the type.
    #[must_use]
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// Returns the number if it is a non-negative integer, whatever its type.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => value.try_into().ok(),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => value.try_into().ok(),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => value.try_into().ok(),
            Self::U64(value) => Some(value),
            Self::I64(value) => value.try_into().ok(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// Parses a scalar or a string. Returns `None` for an array.
    pub(super) fn scalar(cursor: &mut Cursor<'a>, value_type: ValueType) -> Result<Option<Self>, Stop> {
        Ok(Some(match value_type {
            ValueType::U8 => Self::U8(u8::from_le_bytes(cursor.array()?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(cursor.array()?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(cursor.array()?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(cursor.array()?)),
            ValueType::U32 => Self::U32(cursor.u32()?),
            ValueType::I32 => Self::I32(cursor.i32()?),
            ValueType::F32 => Self::F32(f32::from_le_bytes(cursor.array()?)),
            ValueType::Bool => Self::Bool(cursor.array()? != [0]),
            ValueType::String => Self::String(cursor.string()?),
            ValueType::U64 => Self::U64(cursor.u64()?),
            ValueType::I64 => Self::I64(cursor.i64()?),
            ValueType::F64 => Self::F64(f64::from_le_bytes(cursor.array()?)),
            ValueType::Array => return Ok(None),
        }))
    }
}

/// The location of an array in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array<'a> {
    /// The element type, which is never an array.
    pub element: ValueType,
    /// The number of elements.
    pub count: u64,
    /// The range in the file, including the lengths of strings.
    pub range: ByteRange,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Skips `count` elements.
    pub(super) fn skip(cursor: &mut Cursor<'a>, element: ValueType, count: u64) -> Result<Self, Stop> {
        let start = cursor.at();
        match element.size() {
            // No file is long enough for a product that overflows.
            Some(bytes) => cursor.take(count.saturating_mul(bytes)).map(drop)?,
            None => skip_strings(cursor, count)?,
        }
        let (range, bytes) = cursor.since(start);
        Ok(Self { element, count, range, bytes })
    }

    /// Returns the elements, parsed on demand.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (element, mut left) = (self.element, self.count);
        let mut cursor = Cursor::new(self.bytes, self.bytes.len() as u64);
        core::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            // `skip` has checked that they are complete.
            Value::scalar(&mut cursor, element).ok().flatten()
        })
    }
}

/// The size of a string's length.
const LENGTH_BYTES: u64 = 8;

fn skip_strings(cursor: &mut Cursor<'_>, count: u64) -> Result<(), Stop> {
    // Each string has at least its length.
    let min = |left: u64| left.saturating_mul(LENGTH_BYTES);
    if min(count) > cursor.left() {
        return Err(Stop::PastEnd { at: cursor.at(), needed: min(count) });
    }
    for skipped in 0..count {
        match cursor.string() {
            Ok(_) => {}
            // The rest needs at least this much, if the file has it. Otherwise the next reads find
            // the end.
            Err(Stop::Short { end }) => {
                let end = end.saturating_add(min(count - skipped - 1));
                return Err(Stop::Short { end: end.min(cursor.file_len()) });
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}
