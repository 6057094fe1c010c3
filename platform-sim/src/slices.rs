//! Slices and their contents, computed element by element and independently of core.

use crate::checkpoint::KnownTensor;
use crate::draw::Draw;
use crate::shard::bytes_of;
use alloc::vec::Vec;
use floodtide_core::to_usize;

/// The maximum size of a sliced tensor in bytes. Longer ones have too many elements to enumerate.
pub const MAX_COUNTED_BYTES: u64 = 8 << 20;

/// The indices `start..end` of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownSlice {
    /// The dimension.
    pub dim: u32,
    /// The first index.
    pub start: u64,
    /// One past the last index.
    pub end: u64,
}

impl KnownSlice {
    fn dim(&self) -> usize {
        self.dim as usize
    }

    fn holds(&self, tensor: &KnownTensor, element: u64) -> bool {
        let inner: u64 = tensor.shape[self.dim() + 1..].iter().product();
        (self.start..self.end).contains(&(element / inner % tensor.shape[self.dim()]))
    }

    /// Returns true if the slice is valid: the dimension exists, and no byte is split.
    #[must_use]
    pub fn is_possible(&self, tensor: &KnownTensor) -> bool {
        if self.dim() >= tensor.shape.len() {
            return false;
        }
        let group = 8 * tensor.dtype.whole_bytes() / tensor.dtype.bits();
        let elements = if group == 1 { 0 } else { tensor.bytes * 8 / tensor.dtype.bits() };
        (0..elements).all(|element| self.holds(tensor, element) == self.holds(tensor, element / group * group))
    }

    /// Returns the shape of the slice.
    #[must_use]
    pub fn shape(&self, tensor: &KnownTensor) -> Vec<u64> {
        let mut shape = tensor.shape.clone();
        if let Some(size) = shape.get_mut(self.dim()) {
            *size = self.end - self.start;
        }
        shape
    }

    /// Returns the length of the slice in bytes.
    #[must_use]
    pub fn byte_len(&self, tensor: &KnownTensor) -> u64 {
        bytes_of(tensor.dtype, &self.shape(tensor))
    }

    /// Returns the maximum number of its blocks in the file.
    pub(crate) fn block_count(&self, tensor: &KnownTensor) -> u64 {
        tensor.shape.iter().take(self.dim()).product()
    }

    /// Returns the bytes of the slice, given those of the tensor.
    #[must_use]
    pub fn out_of(&self, tensor: &KnownTensor, bytes: &[u8]) -> Vec<u8> {
        let whole = to_usize(tensor.dtype.whole_bytes());
        let group = 8 * tensor.dtype.whole_bytes() / tensor.dtype.bits();
        let groups = bytes.chunks(whole).zip((0..).step_by(to_usize(group)));
        groups
            .filter(|(_, element)| self.holds(tensor, *element))
            .flat_map(|(bytes, _)| bytes.iter().copied())
            .collect()
    }
}

/// Draws a slice of a tensor, or none.
pub(crate) fn draw_slice(draw: &mut Draw, tensor: &KnownTensor) -> Option<KnownSlice> {
    if tensor.shape.is_empty() || tensor.bytes > MAX_COUNTED_BYTES || draw.chance(300_000) {
        return None;
    }
    let dim = draw.index(tensor.shape.len());
    let size = tensor.shape[dim];
    let dim = u32::try_from(dim).expect("a tensor has few dimensions");
    let (a, b) = (draw.number(0..=size), draw.number(0..=size));
    let slice = KnownSlice { dim, start: a.min(b), end: a.max(b) };
    if slice.is_possible(tensor) || draw.chance(20_000) {
        return Some(slice);
    }
    Some(KnownSlice { start: 0, end: size, ..slice })
}

/// Returns the share of a rank in a dimension: consecutive indices, as many for each rank as for
/// the first.
pub(crate) fn rank_slice(tensor: &KnownTensor, dim: u32, rank: u32, world: u32) -> KnownSlice {
    let size = tensor.shape.get(dim as usize).copied().unwrap_or(0);
    let each = (0..size).step_by(world as usize).count() as u64;
    let mine = (0..size).filter(|index| index / each == u64::from(rank));
    let start = mine.clone().next().unwrap_or(size);
    KnownSlice { dim, start, end: start + mine.count() as u64 }
}
