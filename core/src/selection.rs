//! Which tensors of a catalog are selected, and how much of each.

use crate::catalog::Catalog;
use crate::error::Error;
use crate::escape::Quoted;
use crate::glob::Glob;
use crate::shard::ShardRules;
use crate::tensor_slice::{Slice, TensorSlice};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Which tensors a load brings. To add a kind of selection, add a variant here and resolve it below.
///
/// ```
/// use floodtide_core::{ByteRange, CatalogBuilder, DType, Format, Selection};
///
/// let mut builder = CatalogBuilder::new(Format::Safetensors);
/// let file = builder.add_file("model.safetensors", 104)?;
/// let weights = ByteRange::new(80, 104).expect("ascending");
/// builder.add_tensor(file, "weights", DType::F32.into(), &[2, 3], weights)?;
/// let catalog = builder.finish()?;
///
/// let first_row = Selection::slice("weights", 0, 0..1).resolve(&catalog)?;
/// let tensor = catalog.tensor(first_row[0].tensor());
/// assert_eq!(first_row[0].bytes(&tensor), 12);
/// assert!(Selection::globs(["bias*"])?.resolve(&catalog).is_err());
/// # Ok::<(), floodtide_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All of them.
    #[default]
    All,
    /// The tensors of exactly these names.
    Names(Vec<String>),
    /// Every tensor that at least one of the patterns matches.
    Globs(Vec<Glob>),
    /// A slice of the tensor of that name.
    Slice(String, Slice),
    /// What any of these selects.
    Several(Vec<Selection>),
    /// What one rank gets when several share what a selection gives.
    Shard {
        /// What is shared.
        of: Box<Selection>,
        /// Which rank, from 0.
        rank: u32,
        /// How many ranks there are.
        world: u32,
        /// What is cut, and where.
        rules: ShardRules,
    },
}

impl Selection {
    /// A selection by patterns, see [`Glob`].
    ///
    /// # Errors
    /// [`Error::Glob`] when one of them cannot be read.
    pub fn globs<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let globs = patterns.into_iter().map(|pattern| Glob::new(pattern.as_ref()));
        Ok(Self::Globs(globs.collect::<Result<_, _>>()?))
    }

    /// A selection by names.
    pub fn names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(|name| name.as_ref().to_string()).collect())
    }

    /// The indices `range` of one dimension of the tensor of that name, the slowest dimension being 0.
    ///
    /// A slice of the slowest dimension reads no other bytes; one of another dimension is read and gathered as the planner finds cheaper.
    #[must_use]
    pub fn slice(name: impl Into<String>, dim: u32, range: Range<u64>) -> Self {
        Self::Slice(name.into(), Slice { dim, start: range.start, end: range.end })
    }

    /// What rank `rank` (from 0) of `world` gets of all tensors, each cut by the first of `rules` that matches its name. Parts are equal,
    /// rounded up, as by `torch.chunk`: the last ranks may get less of a tensor, or nothing. Scalars are not cut.
    ///
    /// ```
    /// use floodtide_core::{Selection, ShardRules};
    ///
    /// let mine = Selection::shard(0, 4, ShardRules::tensor_parallel());
    /// let layer = Selection::globs(["model.layers.0.*"])?.sharded(0, 4, ShardRules::rows());
    /// # Ok::<(), floodtide_core::Error>(())
    /// ```
    #[must_use]
    pub fn shard(rank: u32, world: u32, rules: ShardRules) -> Self {
        Self::All.sharded(rank, world, rules)
    }

    /// What rank `rank` (from 0) of `world` gets of this selection, see [`shard`](Self::shard).
    #[must_use]
    pub fn sharded(self, rank: u32, world: u32, rules: ShardRules) -> Self {
        Self::Shard { of: Box::new(self), rank, world, rules }
    }

    /// What this or `other` selects. A tensor that both select must be the same in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::Several(mut several) => {
                several.push(other);
                Self::Several(several)
            }
            first => Self::Several(vec![first, other]),
        }
    }

    /// What is selected, ascending, each tensor once.
    ///
    /// # Errors
    /// When a name is not in the catalog, or a pattern (of a selection, or of [rules](ShardRules::new)) matches nothing: both are most likely
    /// mistyped. When a slice is not one of its tensor, a tensor is selected twice but not alike, or there is no such rank.
    pub fn resolve(&self, catalog: &Catalog) -> Result<Vec<TensorSlice>, Error> {
        let mut slices = self.resolve_with_repeats(catalog)?;
        slices.sort_by_key(TensorSlice::tensor);
        slices.dedup();
        match slices.windows(2).find(|pair| pair[0].tensor() == pair[1].tensor()) {
            Some(pair) => Err(selected_twice(catalog, pair[0])),
            None => Ok(slices),
        }
    }

    /// What is selected in the order in which it is listed, each tensor where it comes first; those that one pattern matches,
    /// and all of them where nothing is listed, ascending.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_in_order(&self, catalog: &Catalog) -> Result<Vec<TensorSlice>, Error> {
        let mut listed = Vec::new();
        let mut seen = BTreeMap::new();
        for slice in self.resolve_with_repeats(catalog)? {
            match seen.insert(slice.tensor(), slice) {
                None => listed.push(slice),
                Some(before) if before == slice => {}
                Some(_) => return Err(selected_twice(catalog, slice)),
            }
        }
        Ok(listed)
    }

    /// What a selection that can be resolved most likely does not mean, in words: ranks that share nothing, as each gets all of every tensor.
    #[must_use]
    pub fn warning(&self, catalog: &Catalog) -> Option<String> {
        match self {
            Self::Several(several) => several.iter().find_map(|selection| selection.warning(catalog)),
            Self::Shard { of, rank, world, rules } if *world > 1 => {
                let shared = of.resolve(catalog).ok()?;
                if shared.iter().any(|slice| rules.is_sharded(&catalog.tensor(slice.tensor()))) {
                    return None;
                }
                let first = catalog.tensor(shared.first()?.tensor()).name;
                let those = match shared.len() {
                    1 => "the selected tensor".to_owned(),
                    n => format!("all {n} selected tensors"),
                };
                Some(format!(
                    "the shard {rank}/{world} cuts nothing: each rank gets {those} whole, as no rule cuts any (\"{}\" is the first); say \
                     where with `ShardRules::new`, or cut all by rows with `ShardRules::rows`",
                    Quoted(first)
                ))
            }
            _ => None,
        }
    }

    fn resolve_with_repeats(&self, catalog: &Catalog) -> Result<Vec<TensorSlice>, Error> {
        let find = |name: &str| catalog.find(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() });
        Ok(match self {
            Self::All => catalog.tensors().map(|tensor| tensor.id.into()).collect(),
            Self::Names(names) => names.iter().map(|name| Ok(find(name)?.id.into())).collect::<Result<_, Error>>()?,
            Self::Globs(globs) => {
                let mut slices = Vec::new();
                for glob in globs {
                    let before = slices.len();
                    let matching = catalog.tensors().filter(|tensor| glob.matches(tensor.name));
                    slices.extend(matching.map(|tensor| TensorSlice::whole(tensor.id)));
                    if slices.len() == before {
                        return Err(Error::NothingSelected { glob: glob.pattern().to_string() });
                    }
                }
                slices
            }
            Self::Slice(name, Slice { dim, start, end }) => vec![TensorSlice::slice(&find(name)?, *dim, *start..*end)?],
            Self::Several(several) => {
                let mut slices = Vec::new();
                for selection in several {
                    slices.extend(selection.resolve_with_repeats(catalog)?);
                }
                slices
            }
            Self::Shard { of, rank, world, rules } => {
                if rank >= world {
                    return Err(Error::NoSuchRank { rank: *rank, world: *world });
                }
                rules.check(catalog)?;
                let mut slices = of.resolve_with_repeats(catalog)?;
                for slice in &mut slices {
                    let tensor = catalog.tensor(slice.tensor());
                    // Cutting a slice again would need slices of two dimensions.
                    if slice.as_slice().is_some() {
                        return Err(Error::SliceOfSlice { tensor: tensor.name.to_owned() });
                    }
                    *slice = rules.slice_for_rank(&tensor, *rank, *world)?;
                }
                slices
            }
        })
    }
}

fn selected_twice(catalog: &Catalog, slice: TensorSlice) -> Error {
    Error::SelectedTwice { tensor: catalog.tensor(slice.tensor()).name.to_owned() }
}

#[cfg(test)]
mod tests;
