//! Which tensors are selected, and how much of each, as whoever asks means it: the rules know it without core's own matching.

use crate::checkpoint::{Checkpoint, KnownTensor};
use crate::cuts::{KnownCut, dealt_out, slice};
use crate::draw::Draw;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use floodtide_core::{Glob, Partition, Selection, ShardRules};

/// A selection, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownSelection {
    /// All tensors.
    All,
    /// Those of these names, any of which may come twice.
    Names(Vec<String>),
    /// Those whose names end so; without what a glob would take for its own.
    Ending(&'static str),
    /// Of those of these names, each of which comes once: a slice, or all.
    Slices(Vec<(String, Option<KnownCut>)>),
    /// Of all tensors, what rank `rank` of `world` gets when they are shared by rows. Not of tensors that are too long to be counted.
    Rows {
        /// Which rank, from 0.
        rank: u64,
        /// How many there are.
        world: u64,
    },
    /// The same, but only those whose names end so are shared, by their second dimension.
    Columns {
        /// Which rank, from 0.
        rank: u64,
        /// How many there are.
        world: u64,
        /// The end of the names; without what a glob would take for its own.
        ending: &'static str,
    },
}

impl KnownSelection {
    /// What core is asked for.
    #[must_use]
    pub fn selection(&self) -> Selection {
        match self {
            Self::All => Selection::All,
            Self::Names(names) => Selection::names(names),
            Self::Ending(end) => Selection::globs([format!("*{end}")]).unwrap_or_default(),
            Self::Slices(slices) => {
                slices.iter().fold(Selection::names::<&str>([]), |selection, (name, cut)| match cut {
                    None => selection.and(Selection::names([name])),
                    Some(cut) => selection.and(Selection::slice(name.clone(), cut.dim as u32, cut.start..cut.end)),
                })
            }
            Self::Rows { rank, world } => Selection::shard(*rank as u32, *world as u32, ShardRules::rows()),
            Self::Columns { rank, world, ending } => {
                let rules = ShardRules::new(Glob::new(&format!("*{ending}")).map(|glob| (glob, Partition::Shard(1))))
                    .optional();
                Selection::shard(*rank as u32, *world as u32, rules)
            }
        }
    }

    /// Whether it takes that tensor, or some of it.
    #[must_use]
    pub fn takes(&self, tensor: &KnownTensor) -> bool {
        match self {
            Self::All | Self::Rows { .. } | Self::Columns { .. } => true,
            Self::Names(names) => names.contains(&tensor.name),
            Self::Ending(end) => tensor.name.ends_with(end),
            Self::Slices(slices) => slices.iter().any(|(name, _)| *name == tensor.name),
        }
    }

    /// Which slice it takes of that tensor; `None` for all of it, or nothing.
    #[must_use]
    pub fn cut(&self, tensor: &KnownTensor) -> Option<KnownCut> {
        match self {
            Self::All | Self::Names(_) | Self::Ending(_) => None,
            Self::Slices(slices) => slices.iter().find(|(name, _)| *name == tensor.name)?.1,
            Self::Rows { .. } | Self::Columns { .. } if tensor.shape.is_empty() => None,
            Self::Rows { rank, world } => Some(dealt_out(tensor, 0, *rank, *world)),
            Self::Columns { ending, .. } if !tensor.name.ends_with(ending) => None,
            Self::Columns { rank, world, .. } => Some(dealt_out(tensor, 1, *rank, *world)),
        }
    }

    /// The slices that it takes, by the names of the tensors.
    pub(crate) fn cuts(&self, checkpoint: &Checkpoint) -> BTreeMap<String, KnownCut> {
        checkpoint.tensors.iter().filter_map(|tensor| Some((tensor.name.clone(), self.cut(tensor)?))).collect()
    }

    /// Whether it asks for a slice that there is not.
    pub(crate) fn is_impossible(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.tensors.iter().any(|tensor| self.cut(tensor).is_some_and(|cut| !cut.is_possible(tensor)))
    }

    /// Whether it takes less than all of a tensor that it takes.
    pub(crate) fn has_slices(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.tensors.iter().any(|tensor| self.cut(tensor).is_some_and(|cut| cut.shape(tensor) != tensor.shape))
    }

    /// How many bytes it takes of that tensor, which it takes.
    pub(crate) fn byte_len(&self, tensor: &KnownTensor) -> u64 {
        self.cut(tensor).map_or(tensor.bytes, |cut| cut.byte_len(tensor))
    }
}

/// A selection of slices of these tensors, and of some of them whole.
pub(crate) fn slices<'t>(draw: &mut Draw, tensors: impl IntoIterator<Item = &'t KnownTensor>) -> KnownSelection {
    let slices = tensors.into_iter().map(|tensor| (tensor.name.clone(), slice(draw, tensor)));
    KnownSelection::Slices(slices.collect())
}

/// What one rank of several gets.
pub(crate) fn shard(draw: &mut Draw, checkpoint: &Checkpoint) -> KnownSelection {
    let world = draw.number(1..=6);
    let rank = draw.number(0..=world - 1);
    let columns = draw.coin()
        && (checkpoint.tensors.iter().all(|tensor| !tensor.name.ends_with("weight") || tensor.shape.len() != 1)
            || draw.chance(20_000));
    if columns {
        KnownSelection::Columns { rank, world, ending: "weight" }
    } else {
        KnownSelection::Rows { rank, world }
    }
}
