//! The command line: every command and its options.
//!
//! `source` holds the arguments that several commands share: the checkpoint and how it is read.
//! `convert` holds the options of a conversion, and `numbers` parses numbers and checks their
//! bounds.

mod convert;
mod numbers;
mod source;

pub(crate) use convert::ConvertArgs;
pub(crate) use source::{BackendArg, CheckpointArgs};

use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use floodtide::Order;
use numbers::{count, scale, seconds, size};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The default number of timed runs per backend, not counting the warm-up run.
pub(crate) const RUNS: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// Loads LLM checkpoints at the speed of the hardware
#[derive(Debug, Parser)]
#[command(name = "floodtide", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a checkpoint into memory and report how fast that was
    ///
    /// By default (--backend auto) the command measures, then chooses between io_uring and threads,
    /// and between direct and buffered reads. It prints the reasons. The tensors are owned copies:
    /// only --backend mmap maps the files.
    Load(LoadArgs),
    /// Show the tensors, files and metadata of a checkpoint; reads headers only
    Inspect(InspectArgs),
    /// Show what a load (without --stream) would do, and why; reads headers only
    ///
    /// A run is a sequence of tensors that are contiguous in one file and in memory; each run is
    /// cut into reads. "from" divides the bytes into direct reads, copies from the page cache, and
    /// reads through the page cache.
    Plan(PlanArgs),
    /// Load a checkpoint and print the SHA-256 of every tensor
    Digest(DigestArgs),
    /// Compare all ways to load a checkpoint, and the limit of the storage
    ///
    /// The roofline is the fastest of several ways to read the files from front to back and discard
    /// the bytes. No loader that copies can beat it. For cold files it is the rate of the device,
    /// with direct I/O where the file system supports it. For cached files it is the rate of copies
    /// from the page cache.
    Bench(BenchArgs),
    /// Run one load of `bench` in its own process
    #[command(hide = true)]
    BenchOne(BenchOneArgs),
    /// Write a checkpoint of GPT-2's size, load it with every backend and compare them
    Demo(DemoArgs),
    /// Print a checkpoint's manifest: the BLAKE3 of every tensor and the SHA-256 of every file
    Manifest(ManifestArgs),
    /// Check a checkpoint's structure, and with a manifest every byte
    Verify(VerifyArgs),
    /// List the tensors that differ between two checkpoints of any formats
    ///
    /// Exits with 0 if no tensor differs, with 1 if any does, and with 2 if the comparison could
    /// not be made.
    Diff(DiffArgs),
    /// Measure how fast a device reads; --store keeps the result for later loads
    ///
    /// The result is one small JSON file per device in $XDG_CACHE_HOME/floodtide, or in
    /// ~/.cache/floodtide. The command prints its path. To load without the profile, remove the
    /// file.
    Probe(ProbeArgs),
    /// Write a checkpoint in another format, in other files, in part, or under other names
    Convert(ConvertArgs),
    /// Report what this machine and a path support, what each limit costs, and how to lift it
    ///
    /// Exits with 0 whatever it finds (--json counts what is limited or missing), and with 1 only
    /// if it cannot examine the path.
    Doctor(DoctorArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) source: CheckpointArgs,
    /// Lock the tensors (or the buffers of --stream) in memory; if the system refuses, warn
    #[arg(long)]
    pub(crate) mlock: bool,
    /// Pass the tensors through a few buffers instead of keeping them
    #[arg(long)]
    pub(crate) stream: bool,
    /// Limit for all buffers of --stream together, for example 512MiB; at least 1MiB [default:
    /// 1GiB, or half of the available memory if that is less]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "stream")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Order of the tensors of --stream
    #[arg(long, value_enum, default_value_t = OrderArg::Completion, requires = "stream")]
    pub(crate) order: OrderArg,
    /// Check each tensor against this manifest as it completes, and fail at the first mismatch
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) verify: Option<PathBuf>,
    /// Write a trace of every read to this file, for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The order of a stream's tensors
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderArg {
    /// As they complete: the fastest
    Completion,
    /// File by file, in stored order
    File,
    /// In the order of the --select options
    Selection,
}

impl OrderArg {
    pub(crate) fn order(self) -> Order {
        match self {
            Self::Completion => Order::Completion,
            Self::File => Order::File,
            Self::Selection => Order::Selection,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::File => "file",
            Self::Selection => "selection",
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    #[arg(help = source::checkpoint_help())]
    pub(crate) path: PathBuf,
    /// Show only the metadata, with texts in full and arrays abbreviated
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) source: CheckpointArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DigestArgs {
    #[command(flatten)]
    pub(crate) source: CheckpointArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManifestArgs {
    /// A file, an index or a folder of a checkpoint, or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Print lines for `sha256sum -c` instead, without tensors
    #[arg(long)]
    pub(crate) sha256sum: bool,
    /// Limit for all buffers together, for example 64MiB; at least 1MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<ByteSize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyArgs {
    /// A file, an index or a folder of a checkpoint, or a Hugging Face cache snapshot
    pub(crate) path: PathBuf,
    /// Compare every tensor and every file with this manifest, as printed by `floodtide manifest`
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Limit for all buffers together, for example 64MiB; at least 1MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "manifest")]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DiffArgs {
    /// The first checkpoint
    #[arg(value_name = "A")]
    pub(crate) first: PathBuf,
    /// The second checkpoint
    #[arg(value_name = "B")]
    pub(crate) second: PathBuf,
    /// Limit for the buffers of both sides together, for example 64MiB; at least 2MiB [default:
    /// 512MiB]
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
    /// Drop the files from the page cache before each load; without it, cache them all first
    #[arg(long)]
    pub(crate) cold: bool,
    /// Timed runs per backend, after one warm-up run
    #[arg(long, value_name = "N", default_value_t = RUNS, value_parser = count::<NonZeroUsize>)]
    pub(crate) runs: NonZeroUsize,
    /// Only these backends, separated by commas; std::fs::read and a plain mapping are always
    /// included
    #[arg(long, value_name = "LIST", value_parser = BackendArg::parser(), value_delimiter = ',')]
    pub(crate) backends: Vec<BackendArg>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the result as an SVG
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchOneArgs {
    /// The checkpoint; the request is read from standard input
    pub(crate) path: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Write the checkpoint into this folder, which must be new or empty, and keep it
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Size as a share of the full checkpoint of about 550 MB; above 0, at most 1
    #[arg(long, value_name = "F", default_value_t = 1.0, value_parser = scale)]
    pub(crate) scale: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ProbeArgs {
    /// A folder on the device. The probe reads large files in it, or writes a temporary file if
    /// there are none
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Keep the best reads as a profile in $XDG_CACHE_HOME/floodtide or ~/.cache/floodtide, where
    /// loads find it
    #[arg(long)]
    pub(crate) store: bool,
    /// About how many seconds to measure, 1 to 600
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// The checkpoint, or a file or folder on the device to examine
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
