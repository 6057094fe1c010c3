//! The command line: every command and its options. What is a checkpoint and how it is read, which several commands take, is in `source`; the options of
//! a conversion are in `convert`; numbers and the bounds they are held to, in `numbers`.

mod convert;
mod numbers;
mod source;

pub(crate) use convert::ConvertArgs;
pub(crate) use source::{BackendArg, Source};

use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use floodtide::Order;
use numbers::{count, scale, seconds, size};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// How often each way loads unless that is said, beside the first round.
pub(crate) const RUNS: NonZeroUsize = NonZeroUsize::new(5).unwrap();

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
    ///
    /// By default (--backend auto) what is measured chooses between io_uring and threads that read, past the page cache or through it, and
    /// the reason is printed. The tensors are copies in memory of their own: a load never maps files unless --backend mmap asks for
    /// that. `Loader::map` of the library maps them too.
    Load(LoadArgs),
    /// Show the tensors, files and metadata of a checkpoint; reads headers only
    Inspect(InspectArgs),
    /// Show what a whole load (without --stream) would do, and why; reads headers only
    ///
    /// A run is a row of neighbouring tensors of one file that lie in one piece in memory too; each is cut into reads. "from" says how
    /// many bytes are read past the page cache, copied from it, and read through it.
    Plan(PlanArgs),
    /// Load a checkpoint and print the SHA-256 of every tensor
    Digest(DigestArgs),
    /// Compare every way to load a checkpoint, and what the storage gives at most
    ///
    /// The roofline is the fastest of several ways to read the files from front to back and throw the bytes away, which no loader that
    /// copies can beat: of cold files what the device gives, past the page cache where that is possible; of cached files how fast they are
    /// copied from the page cache.
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
    ///
    /// What is kept is one small JSON file for each device in $XDG_CACHE_HOME/floodtide, or else in ~/.cache/floodtide; the command
    /// prints its path. To load without it, remove the file.
    Probe(ProbeArgs),
    /// Write a checkpoint anew: in another format, in other files, a part of it, under other names
    Convert(ConvertArgs),
    /// Show what this machine and a path allow, what each refusal costs, and how to lift it
    ///
    /// Exits with 0 whatever is found, also if it is limited or missing (--json tells how much is); with 1 only if the path cannot be
    /// looked at.
    Doctor(DoctorArgs),
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
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "stream")]
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
            Self::Arrival => Order::Completion,
            Self::File => Order::File,
            Self::Listed => Order::Selection,
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
    #[arg(help = source::checkpoint_help())]
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
    #[arg(long, value_name = "SIZE", value_parser = size)]
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
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "manifest")]
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
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    #[arg(help = source::checkpoint_help())]
    pub(crate) path: PathBuf,
    /// Drop the files from the page cache before each load; without it they are brought into it first
    #[arg(long)]
    pub(crate) cold: bool,
    /// Load so many times by each way; once more at first, which is not counted
    #[arg(long, value_name = "N", default_value_t = RUNS, value_parser = count::<NonZeroUsize>)]
    pub(crate) runs: NonZeroUsize,
    /// Only these backends, separated by commas; plain reads and a plain mapping are always there to compare with
    #[arg(long, value_name = "LIST", value_parser = BackendArg::parser(), value_delimiter = ',')]
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
