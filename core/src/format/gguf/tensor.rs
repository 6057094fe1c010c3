//! The tensors of a header.

use super::cursor::{Cursor, Stop};
use super::error::{GgufError, HeaderPosition};
use super::{MAX_DIMS, MAX_NAME_BYTES};
use crate::element::GgmlType;
use crate::units::{Alignment, ByteRange};
use alloc::borrow::ToOwned;
use alloc::string::String;

/// A tensor description of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name.
    pub name: &'a str,
    /// The element type.
    pub ggml: GgmlType,
    /// The range of its bytes, from the start of the **file**.
    pub range: ByteRange,
    dims: [u64; MAX_DIMS as usize],
    rank: u32,
}

impl<'a> Entry<'a> {
    /// Returns the dimensions in the order of ggml and the file, **fastest** first. Empty for a
    /// scalar.
    #[must_use]
    pub fn ggml_shape(&self) -> &[u64] {
        &self.dims[..self.rank as usize]
    }

    /// Returns the dimensions in row-major order, slowest first.
    pub fn shape(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.ggml_shape().iter().rev().copied()
    }

    /// Parses the description of tensor `number`. Returns it without its range, and the offset that
    /// the file states.
    pub(super) fn read(cursor: &mut Cursor<'a>, number: u64) -> Result<(Self, u64), Stop> {
        let file_len = cursor.file_len();
        let name = name(cursor, number).map_err(|stop| stop.within(file_len, || HeaderPosition::Name(number)))?;
        Self::describe(cursor, name).map_err(|stop| stop.within(file_len, || HeaderPosition::Tensor(name.to_owned())))
    }

    fn describe(cursor: &mut Cursor<'a>, name: &'a str) -> Result<(Self, u64), Stop> {
        let owned = || name.to_owned();
        let rank = cursor.u32()?;
        if rank > MAX_DIMS {
            return Err(GgufError::TooManyDims { name: owned(), dims: rank }.into());
        }
        let mut dims = [0; MAX_DIMS as usize];
        for (dim, to) in (0..rank).zip(&mut dims) {
            let len = cursor.i64()?;
            *to = u64::try_from(len).map_err(|_| GgufError::NegativeDim { name: owned(), dim, len })?;
        }
        let ggml = ggml_type(cursor.i32()?, owned)?;
        let entry = Self { name, ggml, range: ByteRange::EMPTY, dims, rank };
        entry.check_size()?;
        Ok((entry, cursor.u64()?))
    }

    /// Rejects a tensor whose rows end inside a block, or whose size overflows in any order of
    /// multiplication.
    fn check_size(&self) -> Result<(), GgufError> {
        let (name, ggml) = (|| self.name.to_owned(), self.ggml);
        let row = self.ggml_shape().first().copied().unwrap_or(1);
        if !row.is_multiple_of(ggml.block_elements()) {
            return Err(GgufError::PartialBlock { name: name(), ggml, len: row });
        }
        let max = i64::MAX as u64;
        let elements = self.ggml_shape().iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim.max(1)));
        elements
            .filter(|&elements| elements <= max)
            .and_then(|elements| elements.div_ceil(ggml.block_elements()).checked_mul(ggml.block_bytes()))
            .filter(|&bytes| bytes <= max)
            .map(drop)
            .ok_or_else(|| GgufError::Overflow { name: name(), ggml, shape: self.ggml_shape().to_vec() })
    }

    /// Returns the length in bytes.
    fn byte_len(&self) -> u64 {
        // The check above rules out an overflow.
        let elements: u64 = self.ggml_shape().iter().product();
        elements / self.ggml.block_elements() * self.ggml.block_bytes()
    }
}

fn name<'a>(cursor: &mut Cursor<'a>, number: u64) -> Result<&'a str, Stop> {
    let len = cursor.u64()?;
    if len >= MAX_NAME_BYTES {
        return Err(GgufError::NameTooLong { number, len }.into());
    }
    let bytes = cursor.take(len)?;
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(GgufError::NameZeroByte { number, at: at as u64 }.into());
    }
    core::str::from_utf8(bytes)
        .map_err(|error| GgufError::NameNotUtf8 { number, at: error.valid_up_to() as u64 }.into())
}

fn ggml_type(id: i32, name: impl Fn() -> String) -> Result<GgmlType, GgufError> {
    GgmlType::from_id(id).ok_or_else(|| {
        if GgmlType::is_removed(id) {
            GgufError::RemovedType { name: name(), id }
        } else {
            GgufError::UnknownType { name: name(), id }
        }
    })
}

/// Places tensors one after another, each padded to the alignment.
pub(super) struct Layout {
    alignment: Alignment,
    file_len: u64,
    /// The required offset of the next tensor, from the start of the data.
    next: u64,
}

impl Layout {
    pub(super) fn new(alignment: Alignment, file_len: u64) -> Self {
        Self { alignment, file_len, next: 0 }
    }

    /// Returns the range of a tensor with this offset, both from the start of the data.
    pub(super) fn place(&mut self, entry: &Entry<'_>, offset: u64) -> Result<ByteRange, GgufError> {
        if offset != self.next {
            return Err(GgufError::Offset { name: entry.name.to_owned(), expected: self.next, found: offset });
        }
        // The file's length is checked once the start of the data is known, so that the error has
        // the right number.
        let range = offset.checked_add(entry.byte_len()).and_then(|end| ByteRange::new(offset, end));
        let range = range.ok_or_else(|| self.truncated(entry, u64::MAX))?;
        // If rounding up overflows, the offset is past the end of the file too.
        self.next = self.alignment.up(range.end()).unwrap_or(u64::MAX);
        Ok(range)
    }

    /// Moves ranges from the start of the data to the start of the file. Descriptions end at
    /// `header_end`. Returns the start of the data.
    pub(super) fn finish(&self, entries: &mut [Entry<'_>], header_end: u64) -> Result<u64, GgufError> {
        let start = self.alignment.up(header_end).unwrap_or(u64::MAX);
        for entry in entries {
            let moved = start
                .checked_add(entry.range.start())
                .zip(start.checked_add(entry.range.end()))
                .and_then(|(start, end)| ByteRange::new(start, end));
            match moved {
                Some(range) if range.end() <= self.file_len => entry.range = range,
                moved => return Err(self.truncated(entry, moved.map_or(u64::MAX, ByteRange::end))),
            }
        }
        Ok(start)
    }

    fn truncated(&self, entry: &Entry<'_>, expected: u64) -> GgufError {
        GgufError::Truncated { name: entry.name.to_owned(), expected, file_len: self.file_len }
    }
}
