//! What is wanted of each tensor of a case, and what that comes to: counted element by element, and told from core's own account.

use crate::checkpoint::{Checkpoint, KnownTensor};
use crate::draw::Draw;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Cut, Glob, Selection, ShardRules};

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

/// By the name of a tensor: the part of it that is wanted, if it is not all.
pub type Cuts = BTreeMap<String, KnownCut>;

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
        shape[self.dim] = self.end - self.start;
        shape
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

/// A selection of slices, and what they are.
pub(crate) fn slices(draw: &mut Draw, checkpoint: &Checkpoint) -> (Selection, Cuts) {
    let (mut selection, mut cuts) = (Selection::names::<&str>([]), Cuts::new());
    for tensor in &checkpoint.tensors {
        if draw.chance(300_000) {
            continue;
        }
        if tensor.shape.is_empty() || draw.chance(300_000) {
            selection = selection.and(Selection::names([&tensor.name]));
            continue;
        }
        let dim = draw.index(tensor.shape.len());
        let (a, b) = (draw.number(0..=tensor.shape[dim]), draw.number(0..=tensor.shape[dim]));
        let mut cut = KnownCut { dim, start: a.min(b), end: a.max(b) };
        if !cut.is_possible(tensor) && !draw.chance(20_000) {
            cut = KnownCut { start: 0, end: tensor.shape[dim], ..cut };
        }
        selection = selection.and(Selection::slice(tensor.name.clone(), dim as u32, cut.start..cut.end));
        cuts.insert(tensor.name.clone(), cut);
    }
    (selection, cuts)
}

/// What one rank of several gets.
pub(crate) fn shard(draw: &mut Draw, checkpoint: &Checkpoint) -> (Selection, Cuts) {
    let world = draw.number(1..=6);
    let rank = draw.number(0..=world - 1);
    let mut cuts = Cuts::new();
    let (mut rules, mut dim) = (ShardRules::rows(), 0);
    if draw.coin()
        && (checkpoint.tensors.iter().all(|tensor| !tensor.name.ends_with("weight") || tensor.shape.len() != 1)
            || draw.chance(20_000))
    {
        dim = 1;
        rules = ShardRules::new(Glob::new("*weight").map(|glob| (glob, Cut::Dim(1))));
    }
    let weights = |tensor: &&KnownTensor| dim == 0 || tensor.name.ends_with("weight");
    for tensor in checkpoint.tensors.iter().filter(weights).filter(|tensor| !tensor.shape.is_empty()) {
        // Dealt out row by row, as many to each as the first gets.
        let size = tensor.shape.get(dim).copied().unwrap_or(0);
        let each = (0..size).step_by(world as usize).count() as u64;
        let mine = (0..size).filter(|row| row / each == rank);
        let start = mine.clone().next().unwrap_or(size);
        cuts.insert(tensor.name.clone(), KnownCut { dim, start, end: start + mine.count() as u64 });
    }
    (Selection::shard(rank as u32, world as u32, rules), cuts)
}
