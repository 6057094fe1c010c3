//! The checkpoint and how it is read: the backend, the selected tensors and the rank's part.

use super::numbers::threads;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, ValueEnum};
use floodtide::core::{Error as CoreError, Glob, Partition, Selection, ShardRules};
use floodtide::format::FORMATS;
use floodtide::{Backend, Loader, backends};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

/// A backend, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BackendArg(Option<Backend>);

impl BackendArg {
    pub(crate) const AUTO: Self = Self(None);

    #[cfg(test)]
    pub(crate) fn of(backend: Backend) -> Self {
        Self(Some(backend))
    }

    pub(crate) fn backend(self) -> Option<Backend> {
        self.0
    }

    /// Accepts the names of the registered backends, and `auto`.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        let auto = PossibleValue::new("auto").help("Measure and choose");
        let named = backends().into_iter().map(|backend| PossibleValue::new(backend.name()).help(backend.about()));
        let find = |name: String| Self(backends().into_iter().find(|backend| backend.name() == name));
        PossibleValuesParser::new(std::iter::once(auto).chain(named)).map(find)
    }
}

impl fmt::Display for BackendArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.map_or("auto", Backend::name))
    }
}

/// Returns the help for the path of a checkpoint.
pub(super) fn checkpoint_help() -> String {
    let formats: Vec<&str> = FORMATS.iter().map(|format| format.id().title()).collect();
    format!("A file, an index or a folder of a checkpoint ({}), or a Hugging Face cache snapshot", formats.join(", "))
}

/// A checkpoint and how it is read
#[derive(Debug, ClapArgs)]
pub(crate) struct CheckpointArgs {
    #[arg(help = checkpoint_help())]
    pub(crate) path: PathBuf,
    /// How to read
    #[arg(long, value_name = "BACKEND", value_parser = BackendArg::parser(), default_value_t = BackendArg::AUTO)]
    pub(crate) backend: BackendArg,
    /// Take only tensors whose whole name matches this pattern (*, ?, [a-z]); can be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
    /// Take only one rank's part; ranks start at 0, so 1/4 is the second of four
    #[arg(long, value_name = "RANK/WORLD")]
    pub(crate) shard: Option<ShardArg>,
    /// Which dimension of each tensor --shard partitions
    #[arg(long, value_enum, default_value_t = PartitionArg::Rows, requires = "shard")]
    pub(crate) partition: PartitionArg,
    /// Partition matching tensors along dimension DIM (the slowest is 0), or give every rank all of
    /// them; overrides --partition; can be repeated, the first match counts
    #[arg(long, value_name = "GLOB=DIM|GLOB=replicate", requires = "shard")]
    pub(crate) partition_rule: Vec<PartitionRuleArg>,
    /// Read cold files through the page cache, so that the next process finds them there
    #[arg(long)]
    pub(crate) populate_page_cache: bool,
    /// Number of threads or rings, 1 to 1024
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// One rank of several
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardArg {
    pub(crate) rank: u32,
    pub(crate) world: u32,
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(rank, world)| Some((rank.parse().ok()?, world.parse().ok()?)));
        match numbers {
            Some((rank, world)) if rank < world => Ok(Self { rank, world }),
            Some((rank, world)) => Err(format!("there is no rank {rank} of {world}; ranks start at 0")),
            None => Err("expected RANK/WORLD, for example 0/4".to_owned()),
        }
    }
}

/// Which dimension of a tensor is partitioned
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PartitionArg {
    /// The slowest dimension of every tensor, as FSDP2 does
    Rows,
    /// Tensor parallelism for Llama and models with the same names: o_proj and down_proj along
    /// dimension 1, the other projections, embed_tokens and lm_head along dimension 0; the rest is
    /// replicated
    TensorParallel,
}

/// One rule of a partition
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRuleArg {
    glob: Glob,
    partition: Partition,
}

impl FromStr for PartitionRuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may contain a "=", a dimension cannot.
        let (glob, partition) =
            text.rsplit_once('=').ok_or("expected GLOB=DIM or GLOB=replicate, for example *.down_proj.weight=1")?;
        let partition = match partition {
            "replicate" => Partition::Replicate,
            dim => Partition::Shard(dim.parse().map_err(|_| "expected a dimension or \"replicate\" after the \"=\"")?),
        };
        Ok(Self { glob: Glob::new(glob).map_err(|error| error.to_string())?, partition })
    }
}

impl CheckpointArgs {
    /// Returns a loader with these options.
    pub(crate) fn loader(&self) -> Result<Loader, CoreError> {
        let mut loader = Loader::new().populate_page_cache(self.populate_page_cache);
        if let Some(backend) = self.backend.backend() {
            loader = loader.backend(backend);
        }
        let mut selection = if self.select.is_empty() { Selection::All } else { Selection::globs(&self.select)? };
        if let Some(ShardArg { rank, world }) = self.shard {
            let preset = match self.partition {
                PartitionArg::Rows => ShardRules::rows(),
                PartitionArg::TensorParallel => ShardRules::tensor_parallel(),
            };
            let own = self.partition_rule.iter().map(|rule| (rule.glob.clone(), rule.partition));
            selection = selection.sharded(rank, world, ShardRules::new(own).or(preset));
        }
        loader = loader.selection(selection);
        Ok(match self.threads {
            Some(threads) => loader.threads(threads),
            None => loader,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_their_rules_are_read() {
        assert_eq!("1/4".parse(), Ok(ShardArg { rank: 1, world: 4 }));
        for bad in ["", "1", "4/4", "1/0", "-1/4", "1/4/2", "a/b", "1/4294967296"] {
            assert!(bad.parse::<ShardArg>().is_err(), "{bad}");
        }
        let rule =
            |text: &str| text.parse::<PartitionRuleArg>().map(|rule| (rule.glob.pattern().to_owned(), rule.partition));
        assert_eq!(rule("*.w=1"), Ok(("*.w".to_owned(), Partition::Shard(1))));
        assert_eq!(rule("a=b=replicate"), Ok(("a=b".to_owned(), Partition::Replicate)));
        for bad in ["*.w", "*.w=", "*.w=-1", "*.w=rows", "[=1"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
