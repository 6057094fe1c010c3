//! The command line.

use crate::bench::RUNS;
use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use floodtide_core::{Cut, Error as CoreError, Glob, Selection, ShardRules};
use floodtide_linux::{Backend, Loader, Order};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

/// Loads LLM checkpoints at the speed of the hardware
#[derive(Debug, Parser)]
#[command(name = "floodtide", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a checkpoint into memory and report how fast that was
    Load(LoadArgs),
    /// Show the tensors, files and metadata of a checkpoint; reads headers only
    Inspect(InspectArgs),
    /// Show what a whole load (without --stream) would do, and why; reads headers only
    Plan(PlanArgs),
    /// Load a checkpoint and print the SHA-256 of every tensor
    Digest(DigestArgs),
    /// Compare every way to load a checkpoint, and what the storage gives at most
    Bench(BenchArgs),
    /// One load of `bench`, in a process of its own
    #[command(hide = true)]
    BenchOne(BenchOneArgs),
    /// Write a GPT-2 sized checkpoint, load it by every backend and compare them
    Demo(DemoArgs),
    /// Print the manifest of a checkpoint, with which it can be verified: a BLAKE3 of every tensor, a SHA-256 of every file
    Manifest(ManifestArgs),
    /// Check a checkpoint's structure; and with a manifest, every byte of it
    Verify(VerifyArgs),
    /// Show which tensors of two checkpoints differ, whatever their formats; exits with 0 if none does, 1 if any does, 2 in case of trouble
    Diff(DiffArgs),
    /// Measure a device once: what it gives by the size of reads and their number; --store keeps it for later loads
    Probe(ProbeArgs),
    /// Show what this machine and a path allow, what each refusal costs, and how to lift it
    Doctor(DoctorArgs),
}

/// What reads
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// Measure and choose
    Auto,
    /// io_uring, past the page cache where the file system allows
    Uring,
    /// Threads that call pread
    Pread,
    /// Map the files
    Mmap,
    /// tokio's blocking threads
    Tokio,
}

/// A checkpoint and how it is read
#[derive(Debug, ClapArgs)]
pub(crate) struct Source {
    /// A file, an index or a folder of a checkpoint (safetensors, GGUF, ServerlessLLM), or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// What reads
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
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
    /// Cut tensors whose whole name matches the pattern at that dimension (the slowest is 0), or take them whole, whatever
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
    cut: Cut,
}

impl FromStr for ShardRuleArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A name may have a "=" in it, a dimension not.
        let (glob, cut) =
            text.rsplit_once('=').ok_or("expected GLOB=DIM or GLOB=whole, for example *.down_proj.weight=1")?;
        let cut = match cut {
            "whole" => Cut::Whole,
            dim => {
                Cut::Dim(dim.parse().map_err(|_| "expected the number of a dimension, or \"whole\", after the \"=\"")?)
            }
        };
        Ok(Self { glob: Glob::new(glob).map_err(|error| error.to_string())?, cut })
    }
}

impl Source {
    /// The loader that these options mean.
    pub(crate) fn loader(&self) -> Result<Loader, CoreError> {
        let mut loader = Loader::new().leave_cached(self.leave_cached);
        if let Some(backend) = self.backend.backend() {
            loader = loader.backend(backend);
        }
        let mut selection = if self.select.is_empty() { Selection::All } else { Selection::globs(&self.select)? };
        if let Some(ShardArg { rank, world }) = self.shard {
            let preset = match self.shard_rules {
                ShardRulesArg::Rows => ShardRules::rows(),
                ShardRulesArg::TensorParallel => ShardRules::tensor_parallel(),
            };
            let own = self.shard_rule.iter().map(|rule| (rule.glob.clone(), rule.cut));
            selection = selection.sharded(rank, world, ShardRules::new(own).or(preset));
        }
        loader = loader.selection(selection);
        Ok(match self.threads {
            Some(threads) => loader.threads(threads),
            None => loader,
        })
    }
}

impl BackendArg {
    pub(crate) fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => None,
            Self::Uring => Some(Backend::Uring),
            Self::Pread => Some(Backend::Pread),
            Self::Mmap => Some(Backend::Mmap),
            Self::Tokio => Some(Backend::Tokio),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Lock the tensors (or the buffers of --stream) in memory; a refusal is a warning
    #[arg(long)]
    pub(crate) mlock: bool,
    /// Take the tensors one after another through a few buffers, instead of keeping them all
    #[arg(long)]
    pub(crate) stream: bool,
    /// What all buffers of --stream together may have, for example 512MiB; at least 1MiB [default: 1GiB, or half of the free
    /// memory if that is less]
    #[arg(long, value_name = "SIZE", requires = "stream")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// In which order --stream takes the tensors
    #[arg(long, value_enum, default_value_t = OrderArg::Arrival, requires = "stream")]
    pub(crate) order: OrderArg,
    /// Check every tensor against this manifest while it is loaded, and fail if one differs
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) verify: Option<PathBuf>,
    /// Write what happens, read by read, into this file, for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// In which order a stream's tensors come
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// As they land: the fastest
    Arrival,
    /// File by file, as they are stored
    File,
    /// As the patterns of --select list them
    Listed,
}

impl OrderArg {
    pub(crate) fn order(self) -> Order {
        match self {
            Self::Arrival => Order::Arrival,
            Self::File => Order::File,
            Self::Listed => Order::Listed,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::File => "file",
            Self::Listed => "listed",
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    /// A file, an index or a folder of a checkpoint (safetensors, GGUF, ServerlessLLM), or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Show the metadata alone, texts whole and arrays abbreviated
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DigestArgs {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManifestArgs {
    /// A checkpoint's file, folder or index, or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Print lines for `sha256sum -c` instead, of the files alone
    #[arg(long)]
    pub(crate) sha256sum: bool,
    /// What all buffers together may have, for example 64MiB; at least 1MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_limit: Option<ByteSize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// A checkpoint's file, folder or index, or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Compare every tensor and every file with this manifest, which `floodtide manifest` has printed
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// What all buffers together may have, for example 64MiB; at least 1MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", requires = "manifest")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DiffArgs {
    /// One checkpoint
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// The other one
    #[arg(value_name = "B")]
    pub(crate) second: PathBuf,
    /// What all buffers together may have, for example 64MiB; at least 2MiB [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// A file, an index or a folder of a checkpoint (safetensors, GGUF, ServerlessLLM), or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Drop the files from the page cache before each load; without it they are brought into it first
    #[arg(long)]
    pub(crate) cold: bool,
    /// Load so many times by each way; once more at first, which is not counted
    #[arg(long, value_name = "N", default_value_t = RUNS, value_parser = runs)]
    pub(crate) runs: NonZeroUsize,
    /// Only these backends, separated by commas; plain reads and a plain mapping are always there to compare with
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) backends: Vec<BackendArg>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw a figure of it
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchOneArgs {
    /// The checkpoint; the rest is read from standard input
    pub(crate) path: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Write the checkpoint into this folder, which must be new or empty, and keep it there when the comparison is done
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The checkpoint's size, as a share of the whole one of about 550 MB; more than 0, at most 1
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = scale)]
    pub(crate) scale: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProbeArgs {
    /// A folder on the device. Large files in it are read; where there are none, a temporary file is written
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Keep the best reads in the cache folder ($XDG_CACHE_HOME/floodtide or ~/.cache/floodtide), where loads find them
    #[arg(long)]
    pub(crate) store: bool,
    /// About how long to measure; from 1 to 600
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// The checkpoint, or a file or folder on the device in question
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// More threads than any machine can use are a slip of the keyboard, and would end in a failure that does not say so.
const MAX_THREADS: usize = 1024;

fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads: Option<NonZeroUsize> = text.parse().ok();
    threads
        .filter(|threads| threads.get() <= MAX_THREADS)
        .ok_or_else(|| format!("expected a number from 1 to {MAX_THREADS}"))
}

fn runs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number from 1 on".to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if scale > 0.0 && scale <= 1.0 { Ok(scale) } else { Err("expected more than 0 and at most 1".to_owned()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (1.0..=600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 1 to 600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn shards_and_their_rules_are_read() {
        assert_eq!("1/4".parse(), Ok(ShardArg { rank: 1, world: 4 }));
        for bad in ["", "1", "4/4", "1/0", "-1/4", "1/4/2", "a/b", "1/4294967296"] {
            assert!(bad.parse::<ShardArg>().is_err(), "{bad}");
        }
        let rule = |text: &str| text.parse::<ShardRuleArg>().map(|rule| (rule.glob.pattern().to_owned(), rule.cut));
        assert_eq!(rule("*.w=1"), Ok(("*.w".to_owned(), Cut::Dim(1))));
        assert_eq!(rule("a=b=whole"), Ok(("a=b".to_owned(), Cut::Whole)));
        for bad in ["*.w", "*.w=", "*.w=-1", "*.w=rows", "[=1"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn threads_are_in_range() {
        for good in [1, 1024] {
            assert_eq!(threads(&good.to_string()).map(NonZeroUsize::get), Ok(good));
        }
        for bad in ["0", "-1", "1025", "18446744073709551615", "18446744073709551616", "x", ""] {
            assert!(threads(bad).is_err_and(|why| why.contains("1024")), "{bad}");
        }
    }

    #[test]
    fn scales_are_in_range() {
        assert_eq!(scale("0.25"), Ok(0.25));
        for bad in ["0", "-1", "1.1", "NaN", "x"] {
            assert!(scale(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_in_range() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for bad in ["0", "-1", "601", "NaN", "inf", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
