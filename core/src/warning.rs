//! Warnings: what a user should know about work that succeeded.

use crate::escape::{Escaped, Quoted};
use crate::format_id::FormatId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A warning about a checkpoint, a selection or a device that floodtide can use all the same.
///
/// ```
/// use floodtide_core::Warning;
///
/// let warning = Warning::TotalSize { index: "model.safetensors.index.json".into(), claimed: 8, found: 4 };
/// assert!(warning.to_string().contains("total_size of 8 bytes"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum Warning {
    /// The total size in an index differs from that of the tensors.
    TotalSize { index: String, claimed: u64, found: u64 },
    /// A selection gives every rank all tensors whole.
    NothingSharded { rank: u32, world: u32, tensors: usize, first: String },
    /// The stored profile of a device cannot be used.
    ProfileIgnored { path: String, why: String },
    /// The target format of a conversion cannot store some of the metadata: these keys, and more.
    MetadataLost { target: FormatId, what: &'static str, keys: Vec<String>, more: usize },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TotalSize { index, claimed, found } => write!(
                f,
                "{}: the index gives a total_size of {claimed} bytes, but the tensors have {found}; \
                 writers count differently, and every shard is complete",
                Escaped(index)
            ),
            Self::NothingSharded { rank, world, tensors, first } => {
                write!(f, "the shard {rank}/{world} divides nothing: each rank gets ")?;
                match tensors {
                    1 => f.write_str("the selected tensor")?,
                    n => write!(f, "all {n} selected tensors")?,
                }
                write!(
                    f,
                    " whole, because no rule matches any (\"{}\" is the first); \
                     add rules with `ShardRules::new`, or divide all by rows with `ShardRules::rows`",
                    Quoted(first)
                )
            }
            Self::ProfileIgnored { path, why } => {
                write!(f, "{}: the profile is ignored: {why}; measure the device again", Escaped(path))
            }
            Self::MetadataLost { target, what, keys, more } => {
                let keys: Vec<String> = keys.iter().map(|key| format!("\"{}\"", Quoted(key))).collect();
                let (target, keys) = (target.title(), keys.join(", "));
                write!(f, "{target} cannot store {what}, so these keys are not in the output: {keys}")?;
                match more {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}
