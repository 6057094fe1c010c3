//! Selected tensors and slices.

use crate::catalog::{Catalog, TensorInfo};
use crate::element::ElementType;
use crate::error::Error;
use crate::strided_range::StridedRange;
use crate::units::{ByteRange, TensorId};
use alloc::borrow::ToOwned;
use core::ops::Range;

/// The indices `start..end` of one dimension, and all of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The dimension. Dimension 0 is the slowest.
    pub dim: u32,
    /// The first index.
    pub start: u64,
    /// One past the last index.
    pub end: u64,
}

impl Slice {
    /// Returns the number of indices.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "an empty slice is one like any other")]
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// A tensor that is selected, whole or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSlice {
    tensor: TensorId,
    /// [`WHOLE`], or the slice's dimension. An `Option` of a slice would be half as long again.
    dim: u32,
    start: u64,
    end: u64,
}

const WHOLE: u32 = u32::MAX;

impl From<TensorId> for TensorSlice {
    fn from(tensor: TensorId) -> Self {
        Self::whole(tensor)
    }
}

/// Where the bytes of a slice lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileLayout {
    /// The range from the first byte to the last.
    pub(crate) range: ByteRange,
    /// The blocks, when it is not all of `range` that is selected.
    pub(crate) strided: Option<StridedRange>,
}

impl FileLayout {
    pub(crate) fn byte_len(&self) -> u64 {
        self.strided.map_or(self.range.len(), StridedRange::byte_len)
    }
}

impl TensorSlice {
    /// Selects a whole tensor.
    #[must_use]
    pub const fn whole(tensor: TensorId) -> Self {
        Self { tensor, dim: WHOLE, start: 0, end: 0 }
    }

    /// Selects `range` of dimension `dim` of a tensor. All indices select the whole tensor.
    ///
    /// # Errors
    /// - [`Error::SliceDim`] if there is no such dimension.
    /// - [`Error::SliceRange`] if the range is reversed or out of bounds.
    /// - [`Error::SliceBytes`] if a packed dtype puts an edge of the slice inside a byte.
    /// - [`Error::SliceBlock`] if a quantised type puts an edge inside a block.
    pub fn slice(tensor: &TensorInfo<'_>, dim: u32, range: Range<u64>) -> Result<Self, Error> {
        let name = || tensor.name.to_owned();
        let Some(&size) = tensor.shape.get(dim as usize).filter(|_| dim != WHOLE) else {
            return Err(Error::SliceDim { tensor: name(), dim, shape: tensor.shape.to_owned() });
        };
        let Range { start, end } = range;
        if start > end || end > size {
            return Err(Error::SliceRange { tensor: name(), dim, start, end, shape: tensor.shape.to_owned() });
        }
        if (start, end) == (0, size) {
            return Ok(Self::whole(tensor.id));
        }
        let slice = Self { tensor: tensor.id, dim, start, end };
        if slice.try_file_layout(tensor).is_none() {
            let shape = tensor.shape.to_owned();
            return Err(match tensor.dtype {
                ElementType::Plain(dtype) => Error::SliceBytes { tensor: name(), dtype, dim, start, end, shape },
                ElementType::Ggml(dtype) => Error::SliceBlock { tensor: name(), dtype, dim, start, end, shape },
            });
        }
        Ok(slice)
    }

    /// Returns the tensor.
    #[must_use]
    pub const fn tensor(&self) -> TensorId {
        self.tensor
    }

    /// Returns the slice, or `None` for a whole tensor.
    #[must_use]
    pub const fn as_slice(&self) -> Option<Slice> {
        if self.dim == WHOLE { None } else { Some(Slice { dim: self.dim, start: self.start, end: self.end }) }
    }

    /// Returns the range in the file, from the first selected byte to the last. `tensor` must be
    /// the same tensor.
    ///
    /// It includes the gaps of a strided slice.
    #[must_use]
    pub fn range(&self, tensor: &TensorInfo<'_>) -> ByteRange {
        self.file_layout(tensor).range
    }

    /// Returns the blocks of a strided slice in the file. `tensor` must be the same tensor.
    #[must_use]
    pub fn strided(&self, tensor: &TensorInfo<'_>) -> Option<StridedRange> {
        self.file_layout(tensor).strided
    }

    /// Returns the length in bytes. `tensor` must be the same tensor.
    #[must_use]
    pub fn byte_len(&self, tensor: &TensorInfo<'_>) -> u64 {
        self.file_layout(tensor).byte_len()
    }

    /// Returns true if this and `other` are the same, non-empty bytes of a file.
    ///
    /// Tied tensors have the same bytes, and so have equal parts of them.
    #[must_use]
    pub fn same_bytes(&self, other: &Self, catalog: &Catalog) -> bool {
        if !catalog.are_tied(self.tensor, other.tensor) {
            return false;
        }
        let file_layout = |slice: &Self| slice.file_layout(&catalog.tensor(slice.tensor));
        file_layout(self) == file_layout(other) && file_layout(self).byte_len() > 0
    }

    pub(crate) fn file_layout(&self, tensor: &TensorInfo<'_>) -> FileLayout {
        // The slice was created for this tensor, so it starts and ends on blocks.
        self.try_file_layout(tensor).unwrap_or(FileLayout { range: tensor.range, strided: None })
    }

    /// Returns the location, or `None` if it starts or ends inside a block.
    fn try_file_layout(&self, tensor: &TensorInfo<'_>) -> Option<FileLayout> {
        let whole = FileLayout { range: tensor.range, strided: None };
        let Some(Slice { dim, start, end }) = self.as_slice() else { return Some(whole) };
        let nothing = FileLayout { range: ByteRange::new(tensor.range.start(), tensor.range.start())?, strided: None };
        if start == end || tensor.range.is_empty() {
            return Some(nothing);
        }
        // No dimension is 0 and the tensor is in its file, so no product exceeds its number of
        // elements, which fits in 128 bits.
        let product = |dims: &[u64]| dims.iter().try_fold(1_u128, |product, &n| product.checked_mul(n.into()));
        let (outer, rest) = tensor.shape.split_at_checked(dim as usize)?;
        let (&size, inner) = rest.split_first()?;
        let elements = product(inner)?;
        let count = u64::try_from(product(outer)?).ok()?;
        let bytes = |indices: u64| u64::try_from(tensor.dtype.bytes_of(elements.checked_mul(indices.into())?)?).ok();
        let (skipped, block_len) = (bytes(start)?, bytes(end - start)?);
        let first = tensor.range.start().checked_add(skipped)?;
        if count == 1 {
            let range = ByteRange::new(first, first.checked_add(block_len)?)?;
            return Some(FileLayout { range, strided: None });
        }
        let strided = StridedRange::new(first, block_len, bytes(size)?, count)?;
        Some(FileLayout { range: strided.range(), strided: Some(strided) })
    }
}
