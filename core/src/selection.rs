//! Which tensors of a catalog are wanted.

use crate::catalog::Catalog;
use crate::error::Error;
use crate::glob::Glob;
use crate::units::TensorId;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Which tensors a load brings. To add a kind of selection, add a variant here and resolve it below.
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

    /// The selected tensors, ascending, each once.
    ///
    /// # Errors
    /// When a name is not in the catalog, or a pattern matches nothing: both are most likely mistyped.
    pub fn resolve(&self, catalog: &Catalog) -> Result<Vec<TensorId>, Error> {
        let mut ids = self.resolve_with_repeats(catalog)?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The selected tensors in the order in which they are listed, each where it comes first; those that one pattern matches,
    /// and all of them where nothing is listed, ascending.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_listed(&self, catalog: &Catalog) -> Result<Vec<TensorId>, Error> {
        let mut ids = self.resolve_with_repeats(catalog)?;
        let mut seen = BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        Ok(ids)
    }

    fn resolve_with_repeats(&self, catalog: &Catalog) -> Result<Vec<TensorId>, Error> {
        Ok(match self {
            Self::All => catalog.tensors().map(|tensor| tensor.id).collect(),
            Self::Names(names) => names
                .iter()
                .map(|name| match catalog.find(name) {
                    Some(tensor) => Ok(tensor.id),
                    None => Err(Error::NoSuchTensor { name: name.clone() }),
                })
                .collect::<Result<_, _>>()?,
            Self::Globs(globs) => {
                let mut ids = Vec::new();
                for glob in globs {
                    let before = ids.len();
                    ids.extend(catalog.tensors().filter(|tensor| glob.matches(tensor.name)).map(|tensor| tensor.id));
                    if ids.len() == before {
                        return Err(Error::NothingSelected { glob: glob.pattern().to_string() });
                    }
                }
                ids
            }
        })
    }
}

#[cfg(test)]
mod tests;
