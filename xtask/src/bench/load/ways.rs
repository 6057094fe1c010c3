//! The loads that are compared. To add one, add its line here and its call in
//! `benches/src/bin/ways` or `benches/peers`.

use super::peers::Peers;
use super::results::Role;
use crate::tools::{root, target};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) struct Way {
    /// Identifies it for the targets.
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) role: Role,
    program: Program,
}

enum Program {
    /// The bench's own program: the task and the load.
    Rust(&'static str, &'static str),
    /// A script and the load.
    Python(&'static str, &'static str),
    /// A script with the libraries' pre-releases.
    Next(&'static str, &'static str),
}

const fn way(id: &'static str, name: &'static str, role: Role, program: Program) -> Way {
    Way { id, name, role, program }
}

/// Loads of a whole checkpoint.
pub(super) const LOADS: &[Way] = &[
    way("auto", "floodtide, auto", Role::Auto, Program::Rust("load", "auto")),
    way("uring", "floodtide, uring", Role::Fixed, Program::Rust("load", "uring")),
    way("pread", "floodtide, pread", Role::Fixed, Program::Rust("load", "pread")),
    way("tokio", "floodtide, tokio", Role::Fixed, Program::Rust("load", "tokio")),
    way("mmap", "floodtide, mmap (mapped)", Role::Other, Program::Rust("load", "mmap")),
    way("second", "floodtide, auto, second load", Role::Other, Program::Rust("load", "second")),
    way("read", "std::fs::read", Role::Plain, Program::Rust("load", "read")),
    way("threads", "2 threads, pread, huge pages", Role::Plain, Program::Rust("load", "threads")),
    way("safetensors", "safetensors, crate (mapped)", Role::PeerMapped, Program::Rust("load", "safetensors")),
    way("st-mapped", "safetensors (mapped)", Role::PeerMapped, Program::Python("safetensors_ways.py", "mapped")),
    way("st-owned", "safetensors, copied", Role::PeerOwned, Program::Python("safetensors_ways.py", "owned")),
    way("st-pread", "safetensors pre-release, pread", Role::PeerOwned, Program::Next("safetensors_ways.py", "pread")),
    way("runai-uring", "Run:ai, io_uring_direct", Role::PeerOwned, Program::Python("runai_ways.py", "io_uring_direct")),
    way("runai-libaio", "Run:ai, libaio_direct", Role::PeerOwned, Program::Python("runai_ways.py", "libaio_direct")),
    way("runai-sync", "Run:ai, sync_buffered", Role::PeerOwned, Program::Python("runai_ways.py", "sync_buffered")),
    way(
        "fast-open",
        "fastsafetensors, fastsafe_open",
        Role::PeerOwned,
        Program::Python("fastsafetensors_ways.py", "open"),
    ),
    way(
        "fast-parallel",
        "fastsafetensors, ParallelLoader",
        Role::PeerOwned,
        Program::Python("fastsafetensors_ways.py", "parallel"),
    ),
];

/// Loads of half-cached files, and direct or buffered reads alone.
pub(super) const HALVES: &[Way] = &[
    way("auto", "floodtide, auto", Role::Auto, Program::Rust("load", "auto")),
    way("uring", "floodtide, uring", Role::Fixed, Program::Rust("load", "uring")),
    way("pread", "floodtide, pread", Role::Fixed, Program::Rust("load", "pread")),
    way("tokio", "floodtide, tokio", Role::Fixed, Program::Rust("load", "tokio")),
    way("threads", "2 threads, buffered reads", Role::Plain, Program::Rust("load", "threads")),
    way("threads-direct", "4 threads, direct reads", Role::Plain, Program::Rust("load", "threads-direct")),
];

/// The time to the first tensor of a checkpoint that is only opened.
pub(super) const FIRSTS: &[Way] = &[
    way("auto", "floodtide, Loader::map", Role::Auto, Program::Rust("first", "auto")),
    way("safetensors", "safetensors, crate", Role::PeerMapped, Program::Rust("first", "safetensors")),
    way(
        "safetensors-shard",
        "safetensors, crate, the tensor's shard alone",
        Role::PeerMapped,
        Program::Rust("first", "safetensors-shard"),
    ),
    way(
        "st-mapped",
        "safetensors, safe_open of that shard",
        Role::PeerMapped,
        Program::Python("safetensors_ways.py", "first"),
    ),
];

/// The first tensor.
pub(super) const FIRST_TENSOR: &str = "model.layers.0.self_attn.k_proj.weight";

/// The bench's own program.
pub(super) fn program() -> PathBuf {
    target().join("release/ways")
}

impl Way {
    /// Returns whether it needs only the bench's own program.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.program, Program::Rust(..))
    }

    /// Returns the command that loads the shards of a folder.
    pub(super) fn command(&self, folder: &Path, shards: &[PathBuf], peers: &Peers) -> Result<Command, String> {
        let (script, way, next) = match self.program {
            Program::Rust(what, way) => {
                let mut command = Command::new(program());
                command.args([what, way]).arg(folder);
                if what == "first" {
                    command.arg(FIRST_TENSOR);
                }
                return Ok(command);
            }
            Program::Python(script, way) => (script, way, false),
            Program::Next(script, way) => (script, way, true),
        };
        let mut command = peers.python(next)?;
        command.arg("-B").arg(root().join("benches/peers").join(script)).arg(way).args(shards);
        command.env("FIRST_TENSOR", FIRST_TENSOR);
        Ok(command)
    }
}
