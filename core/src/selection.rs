//! Which tensors of a catalog are selected, and how much of each.

use crate::catalog::Catalog;
use crate::error::Error;
use crate::glob::Glob;
use crate::shard::ShardRules;
use crate::tensor_slice::{Slice, TensorSlice};
use crate::warning::Warning;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Selects the tensors of a load. To add a kind of selection, add a variant here and resolve it
/// below.
///
/// ```
/// use floodtide_core::format::SAFETENSORS;
/// use floodtide_core::{ByteRange, CatalogBuilder, DType, Selection};
///
/// let mut builder = CatalogBuilder::new(SAFETENSORS);
/// let file = builder.add_file("model.safetensors", 104)?;
/// let weights = ByteRange::new(80, 104).expect("ascending");
/// builder.add_tensor(file, "weights", DType::F32.into(), &[2, 3], weights)?;
/// let catalog = builder.finish()?;
///
/// let first_row = Selection::slice("weights", 0, 0..1).resolve(&catalog)?;
/// let tensor = catalog.tensor(first_row[0].tensor());
/// assert_eq!(first_row[0].byte_len(&tensor), 12);
/// assert!(Selection::globs(["bias*"])?.resolve(&catalog).is_err());
/// # Ok::<(), floodtide_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All tensors.
    #[default]
    All,
    /// The tensors with exactly these names.
    Names(Vec<String>),
    /// Every tensor that matches at least one of the patterns.
    Globs(Vec<Glob>),
    /// A slice of the tensor with this name.
    Slice(String, Slice),
    /// The union of these selections.
    Several(Vec<Self>),
    /// The share of one rank in a selection.
    Shard {
        /// The selection to share.
        of: Box<Self>,
        /// The rank, from 0.
        rank: u32,
        /// The number of ranks.
        world: u32,
        /// How each tensor is partitioned.
        rules: ShardRules,
    },
}

impl Selection {
    /// Selects tensors by patterns, see [`Glob`].
    ///
    /// # Errors
    /// Returns [`Error::Glob`] if a pattern is malformed.
    pub fn globs<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let globs = patterns.into_iter().map(|pattern| Glob::new(pattern.as_ref()));
        Ok(Self::Globs(globs.collect::<Result<_, _>>()?))
    }

    /// Selects tensors by name.
    pub fn names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(|name| name.as_ref().to_string()).collect())
    }

    /// Selects `range` of dimension `dim` of a tensor. Dimension 0 is the slowest.
    ///
    /// A slice of the slowest dimension is contiguous in the file. The planner chooses the cheaper
    /// way to read and gather a slice of another dimension.
    #[must_use]
    pub fn slice(name: impl Into<String>, dim: u32, range: Range<u64>) -> Self {
        Self::Slice(name.into(), Slice { dim, start: range.start, end: range.end })
    }

    /// Selects the share of `rank` (from 0) of `world` in all tensors.
    ///
    /// The first of `rules` that matches a tensor's name partitions it. Parts are equal, rounded
    /// up, as in `torch.chunk`: the last ranks may get less of a tensor, or nothing. Every rank
    /// gets scalars whole.
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

    /// Selects the share of `rank` (from 0) of `world` in this selection, see
    /// [`shard`](Self::shard).
    #[must_use]
    pub fn sharded(self, rank: u32, world: u32, rules: ShardRules) -> Self {
        Self::Shard { of: Box::new(self), rank, world, rules }
    }

    /// Returns the union of this selection and `other`. Both must select a common tensor in the
    /// same way.
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

    /// Resolves the selection to tensors, ascending and unique.
    ///
    /// # Errors
    /// Fails if:
    /// - a name is not in the catalog,
    /// - a pattern of a selection or of [rules](ShardRules::new) matches nothing, because it is
    ///   probably mistyped,
    /// - a slice is out of bounds,
    /// - a tensor is selected in two ways, or
    /// - the rank does not exist.
    pub fn resolve(&self, catalog: &Catalog) -> Result<Vec<TensorSlice>, Error> {
        let mut slices = self.resolve_with_repeats(catalog)?;
        slices.sort_by_key(TensorSlice::tensor);
        slices.dedup();
        match slices.windows(2).find(|pair| pair[0].tensor() == pair[1].tensor()) {
            Some(pair) => Err(selected_twice(catalog, pair[0])),
            None => Ok(slices),
        }
    }

    /// Resolves the selection to unique tensors in the order in which it lists them.
    ///
    /// Tensors that match one pattern are ascending, and so are all tensors if nothing is listed.
    ///
    /// # Errors
    /// Fails like [`resolve`](Self::resolve).
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

    /// Returns a warning if the selection is valid but probably a mistake: ranks that all get every
    /// tensor whole.
    #[must_use]
    pub fn warning(&self, catalog: &Catalog) -> Option<Warning> {
        match self {
            Self::Several(several) => several.iter().find_map(|selection| selection.warning(catalog)),
            Self::Shard { of, rank, world, rules } if *world > 1 => {
                let shared = of.resolve(catalog).ok()?;
                if shared.iter().any(|slice| rules.is_sharded(&catalog.tensor(slice.tensor()))) {
                    return None;
                }
                let first = catalog.tensor(shared.first()?.tensor()).name;
                Some(Warning::NothingSharded {
                    rank: *rank,
                    world: *world,
                    tensors: shared.len(),
                    first: first.to_owned(),
                })
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
                    // Slicing a slice would need slices of two dimensions.
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
