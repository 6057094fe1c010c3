//! Selections and their meaning, computed independently of core's matching.

use crate::checkpoint::{Checkpoint, KnownTensor};
use crate::draw::Draw;
use crate::slices::{KnownSlice, draw_slice, rank_slice};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Glob, Partition, Selection, ShardRules};

/// A selection with a known meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownSelection {
    /// All tensors.
    All,
    /// The tensors with these names, which may repeat.
    Names(Vec<String>),
    /// The tensors whose names end with this text, which has no glob characters.
    Ending(&'static str),
    /// Slices of the tensors with these unique names, or whole tensors.
    Slices(Vec<(String, Option<KnownSlice>)>),
    /// The share of a rank in all tensors, divided by rows. Excludes tensors that are too long to
    /// enumerate.
    Rows {
        /// The rank, from 0.
        rank: u32,
        /// The number of ranks.
        world: u32,
    },
    /// The share of a rank, where only tensors with this ending are divided, by their second
    /// dimension.
    Columns {
        /// The rank, from 0.
        rank: u32,
        /// The number of ranks.
        world: u32,
        /// The ending of the names, without glob characters.
        ending: &'static str,
    },
}

impl KnownSelection {
    /// Returns the selection for core.
    #[must_use]
    pub fn selection(&self) -> Selection {
        match self {
            Self::All => Selection::All,
            Self::Names(names) => Selection::names(names),
            Self::Ending(end) => Selection::globs([format!("*{end}")]).unwrap_or_default(),
            Self::Slices(slices) => {
                slices.iter().fold(Selection::names::<&str>([]), |selection, (name, slice)| match slice {
                    None => selection.and(Selection::names([name])),
                    Some(slice) => selection.and(Selection::slice(name.clone(), slice.dim, slice.start..slice.end)),
                })
            }
            Self::Rows { rank, world } => Selection::shard(*rank, *world, ShardRules::rows()),
            Self::Columns { rank, world, ending } => {
                let rules = ShardRules::new(Glob::new(&format!("*{ending}")).map(|glob| (glob, Partition::Shard(1))))
                    .optional();
                Selection::shard(*rank, *world, rules)
            }
        }
    }

    /// Returns true if it selects any part of the tensor.
    #[must_use]
    pub fn takes(&self, tensor: &KnownTensor) -> bool {
        match self {
            Self::All | Self::Rows { .. } | Self::Columns { .. } => true,
            Self::Names(names) => names.contains(&tensor.name),
            Self::Ending(end) => tensor.name.ends_with(end),
            Self::Slices(slices) => slices.iter().any(|(name, _)| *name == tensor.name),
        }
    }

    /// Returns the slice of the tensor, or `None` if it selects all or nothing of it.
    #[must_use]
    pub fn slice(&self, tensor: &KnownTensor) -> Option<KnownSlice> {
        match self {
            Self::All | Self::Names(_) | Self::Ending(_) => None,
            Self::Slices(slices) => slices.iter().find(|(name, _)| *name == tensor.name)?.1,
            Self::Rows { .. } | Self::Columns { .. } if tensor.shape.is_empty() => None,
            Self::Rows { rank, world } => Some(rank_slice(tensor, 0, *rank, *world)),
            Self::Columns { ending, .. } if !tensor.name.ends_with(ending) => None,
            Self::Columns { rank, world, .. } => Some(rank_slice(tensor, 1, *rank, *world)),
        }
    }

    /// Returns the slices by tensor name.
    pub(crate) fn slices_by_name(&self, checkpoint: &Checkpoint) -> BTreeMap<String, KnownSlice> {
        checkpoint.tensors.iter().filter_map(|tensor| Some((tensor.name.clone(), self.slice(tensor)?))).collect()
    }

    /// Returns true if it has an invalid slice.
    pub(crate) fn is_impossible(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.tensors.iter().any(|tensor| self.slice(tensor).is_some_and(|slice| !slice.is_possible(tensor)))
    }

    /// Returns true if it selects only a part of a tensor.
    pub(crate) fn has_slices(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint
            .tensors
            .iter()
            .any(|tensor| self.slice(tensor).is_some_and(|slice| slice.shape(tensor) != tensor.shape))
    }

    /// Returns the number of selected bytes of a selected tensor.
    pub(crate) fn byte_len(&self, tensor: &KnownTensor) -> u64 {
        self.slice(tensor).map_or(tensor.bytes, |slice| slice.byte_len(tensor))
    }
}

/// Draws a selection of slices of these tensors and of some of them whole.
pub(crate) fn slices<'t>(draw: &mut Draw, tensors: impl IntoIterator<Item = &'t KnownTensor>) -> KnownSelection {
    let slices = tensors.into_iter().map(|tensor| (tensor.name.clone(), draw_slice(draw, tensor)));
    KnownSelection::Slices(slices.collect())
}

/// Draws the share of one rank.
pub(crate) fn shard(draw: &mut Draw, checkpoint: &Checkpoint) -> KnownSelection {
    let world = draw.small_number(1..=6);
    let rank = draw.small_number(0..=world - 1);
    let columns = draw.coin()
        && (checkpoint.tensors.iter().all(|tensor| !tensor.name.ends_with("weight") || tensor.shape.len() != 1)
            || draw.chance(20_000));
    if columns {
        KnownSelection::Columns { rank, world, ending: "weight" }
    } else {
        KnownSelection::Rows { rank, world }
    }
}
