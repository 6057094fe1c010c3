//! A checkpoint and how it is read: by what, which tensors of it, which rank's part.

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

/// What reads: a backend, or what is measured to be best.
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

    /// Takes the names of the registered backends, and `auto`.
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
pub(crate) struct Source {
    #[arg(help = checkpoint_help())]
    pub(crate) path: PathBuf,
    /// What reads
    #[arg(long, value_name = "BACKEND", value_parser = BackendArg::parser(), default_value_t = BackendArg::AUTO)]
    pub(crate) backend: BackendArg,
    /// Take only tensors whose whole name matches this pattern (*, ?, [a-z]); can be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
    /// Take only the part of one rank of several, ranks counted from 0: 1/4 is the second of four
    #[arg(long, value_name = "RANK/WORLD")]
    pub(crate) shard: Option<ShardArg>,
    /// Which dimension of a tensor --shard cuts
    #[arg(long, value_enum, default_value_t = ShardRulesArg::Rows, requires = "shard")]
    pub(crate) shard_rules: ShardRulesArg,
    /// Partition tensors whose whole name matches the pattern at that dimension (the slowest is 0), or take them whole, whatever
    /// --shard-rules says; can be given several times, the first that matches counts
    #[arg(long, value_name = "GLOB=DIM|GLOB=whole", requires = "shard")]
    pub(crate) shard_rule: Vec<ShardRuleArg>,
    /// Read cold files through the page cache, where the next process that loads them then finds them
    #[arg(long)]
    pub(crate) leave_cached: bool,
    /// Read with so many threads or rings
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
            Some((rank, world)) => Err(format!("there is no rank {rank} among {world}; ranks are counted from 0")),
            None => Err("expected RANK/WORLD, for example 0/4".to_owned()),
        }
    }
}

/// Which dimension of a tensor is cut
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShardRulesArg {
    /// The slowest of every tensor, as FSDP does
    Rows,
    /// That of tensor parallelism for Llama and its like: o_proj and down_proj at dimension 1, the other projections, embed_tokens and lm_head at 0, the
    /// rest whole
    TensorParallel,
}

/// One rule
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardRuleArg {
    glob: Glob,
    partition: Partition,
}

impl FromStr for ShardRuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have a "=" in it, a dimension not.
        let (glob, partition) =
            text.rsplit_once('=').ok_or("expected GLOB=DIM or GLOB=whole, for example *.down_proj.weight=1")?;
        let partition = match partition {
            "whole" => Partition::Replicate,
            dim => Partition::Shard(
                dim.parse().map_err(|_| "expected the number of a dimension, or \"whole\", after the \"=\"")?,
            ),
        };
        Ok(Self { glob: Glob::new(glob).map_err(|error| error.to_string())?, partition })
    }
}

impl Source {
    /// The loader that these options mean.
    pub(crate) fn loader(&self) -> Result<Loader, CoreError> {
        let mut loader = Loader::new().populate_page_cache(self.leave_cached);
        if let Some(backend) = self.backend.backend() {
            loader = loader.backend(backend);
        }
        let mut selection = if self.select.is_empty() { Selection::All } else { Selection::globs(&self.select)? };
        if let Some(ShardArg { rank, world }) = self.shard {
            let preset = match self.shard_rules {
                ShardRulesArg::Rows => ShardRules::rows(),
                ShardRulesArg::TensorParallel => ShardRules::tensor_parallel(),
            };
            let own = self.shard_rule.iter().map(|rule| (rule.glob.clone(), rule.partition));
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
            |text: &str| text.parse::<ShardRuleArg>().map(|rule| (rule.glob.pattern().to_owned(), rule.partition));
        assert_eq!(rule("*.w=1"), Ok(("*.w".to_owned(), Partition::Shard(1))));
        assert_eq!(rule("a=b=whole"), Ok(("a=b".to_owned(), Partition::Replicate)));
        for bad in ["*.w", "*.w=", "*.w=-1", "*.w=rows", "[=1"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
