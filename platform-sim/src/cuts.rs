//! Slices, and what they come to: counted element by element, and told from core's own account.

use crate::checkpoint::KnownTensor;
use crate::draw::Draw;
use crate::shard::bytes_of;
use alloc::vec::Vec;

/// What is longer is not cut, as its elements are too many to count.
pub const MAX_COUNTED_BYTES: u64 = 8 << 20;

/// The indices `start..end` of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCut {
    /// The dimension.
    pub dim: usize,
    /// The first index.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

impl KnownCut {
    fn holds(&self, tensor: &KnownTensor, element: u64) -> bool {
        let inner: u64 = tensor.shape[self.dim + 1..].iter().product();
        (self.start..self.end).contains(&(element / inner % tensor.shape[self.dim]))
    }

    /// Whether there is such a slice: a dimension of that number, and no byte that is half in and half out.
    #[must_use]
    pub fn is_possible(&self, tensor: &KnownTensor) -> bool {
        if self.dim >= tensor.shape.len() {
            return false;
        }
        let group = 8 * tensor.dtype.whole_bytes() / tensor.dtype.bits();
        let elements = if group == 1 { 0 } else { tensor.bytes * 8 / tensor.dtype.bits() };
        (0..elements).all(|element| self.holds(tensor, element) == self.holds(tensor, element / group * group))
    }

    /// The shape of the slice.
    #[must_use]
    pub fn shape(&self, tensor: &KnownTensor) -> Vec<u64> {
        let mut shape = tensor.shape.clone();
        if let Some(size) = shape.get_mut(self.dim) {
            *size = self.end - self.start;
        }
        shape
    }

    /// How many bytes the slice has.
    #[must_use]
    pub fn byte_len(&self, tensor: &KnownTensor) -> u64 {
        bytes_of(tensor.dtype, &self.shape(tensor))
    }

    /// In how many blocks its bytes lie in the file, at most.
    pub(crate) fn block_count(&self, tensor: &KnownTensor) -> u64 {
        tensor.shape.iter().take(self.dim).product()
    }

    /// The bytes of the slice, out of those of the tensor.
    #[must_use]
    pub fn out_of(&self, tensor: &KnownTensor, bytes: &[u8]) -> Vec<u8> {
        let whole = tensor.dtype.whole_bytes() as usize;
        let group = 8 * tensor.dtype.whole_bytes() / tensor.dtype.bits();
        let groups = bytes.chunks(whole).zip((0..).step_by(group as usize));
        groups
            .filter(|(_, element)| self.holds(tensor, *element))
            .flat_map(|(bytes, _)| bytes.iter().copied())
            .collect()
    }
}

/// Draws a slice of a tensor, or none.
pub(crate) fn slice(draw: &mut Draw, tensor: &KnownTensor) -> Option<KnownCut> {
    if tensor.shape.is_empty() || tensor.bytes > MAX_COUNTED_BYTES || draw.chance(300_000) {
        return None;
    }
    let dim = draw.index(tensor.shape.len());
    let (a, b) = (draw.number(0..=tensor.shape[dim]), draw.number(0..=tensor.shape[dim]));
    let cut = KnownCut { dim, start: a.min(b), end: a.max(b) };
    if cut.is_possible(tensor) || draw.chance(20_000) {
        return Some(cut);
    }
    Some(KnownCut { start: 0, end: tensor.shape[dim], ..cut })
}

/// What one of so many ranks gets of a dimension: dealt out index by index, as many to each as the first gets.
pub(crate) fn dealt_out(tensor: &KnownTensor, dim: usize, rank: u64, world: u64) -> KnownCut {
    let size = tensor.shape.get(dim).copied().unwrap_or(0);
    let each = (0..size).step_by(world as usize).count() as u64;
    let mine = (0..size).filter(|index| index / each == rank);
    let start = mine.clone().next().unwrap_or(size);
    KnownCut { dim, start, end: start + mine.count() as u64 }
}
