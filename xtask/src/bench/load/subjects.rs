//! The loads that are compared. To add one, add its line here and its call in
//! `benches/src/bin/subjects` or `benches/baselines`.

use super::baselines::Baselines;
use super::results::Role;
use crate::tools::{root, target};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) struct Subject {
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

const fn subject(id: &'static str, name: &'static str, role: Role, program: Program) -> Subject {
    Subject { id, name, role, program }
}

/// Loads of a whole checkpoint.
pub(super) const LOADS: &[Subject] = &[
    subject("auto", "floodtide, auto", Role::Auto, Program::Rust("load", "auto")),
    subject("uring", "floodtide, uring", Role::Fixed, Program::Rust("load", "uring")),
    subject("pread", "floodtide, pread", Role::Fixed, Program::Rust("load", "pread")),
    subject("tokio", "floodtide, tokio", Role::Fixed, Program::Rust("load", "tokio")),
    subject("mmap", "floodtide, mmap (mapped)", Role::Other, Program::Rust("load", "mmap")),
    subject("second", "floodtide, auto, second load", Role::Other, Program::Rust("load", "second")),
    subject("read", "std::fs::read", Role::Plain, Program::Rust("load", "read")),
    subject("threads", "2 threads, pread, huge pages", Role::Plain, Program::Rust("load", "threads")),
    subject("safetensors", "safetensors, crate (mapped)", Role::BaselineMapped, Program::Rust("load", "safetensors")),
    subject(
        "st-mapped",
        "safetensors (mapped)",
        Role::BaselineMapped,
        Program::Python("safetensors_loads.py", "mapped"),
    ),
    subject("st-owned", "safetensors, copied", Role::BaselineOwned, Program::Python("safetensors_loads.py", "owned")),
    subject(
        "st-pread",
        "safetensors pre-release, pread",
        Role::BaselineOwned,
        Program::Next("safetensors_loads.py", "pread"),
    ),
    subject(
        "runai-uring",
        "Run:ai, io_uring_direct",
        Role::BaselineOwned,
        Program::Python("runai_loads.py", "io_uring_direct"),
    ),
    subject(
        "runai-libaio",
        "Run:ai, libaio_direct",
        Role::BaselineOwned,
        Program::Python("runai_loads.py", "libaio_direct"),
    ),
    subject(
        "runai-sync",
        "Run:ai, sync_buffered",
        Role::BaselineOwned,
        Program::Python("runai_loads.py", "sync_buffered"),
    ),
    subject(
        "fast-open",
        "fastsafetensors, fastsafe_open",
        Role::BaselineOwned,
        Program::Python("fastsafetensors_loads.py", "open"),
    ),
    subject(
        "fast-parallel",
        "fastsafetensors, ParallelLoader",
        Role::BaselineOwned,
        Program::Python("fastsafetensors_loads.py", "parallel"),
    ),
];

/// Loads of half-cached files, and direct or buffered reads alone.
pub(super) const HALVES: &[Subject] = &[
    subject("auto", "floodtide, auto", Role::Auto, Program::Rust("load", "auto")),
    subject("uring", "floodtide, uring", Role::Fixed, Program::Rust("load", "uring")),
    subject("pread", "floodtide, pread", Role::Fixed, Program::Rust("load", "pread")),
    subject("tokio", "floodtide, tokio", Role::Fixed, Program::Rust("load", "tokio")),
    subject("threads", "2 threads, buffered reads", Role::Plain, Program::Rust("load", "threads")),
    subject("threads-direct", "4 threads, direct reads", Role::Plain, Program::Rust("load", "threads-direct")),
];

/// The time to the first tensor of a checkpoint that is only opened.
pub(super) const FIRSTS: &[Subject] = &[
    subject("auto", "floodtide, Loader::map", Role::Auto, Program::Rust("first", "auto")),
    subject("safetensors", "safetensors, crate", Role::BaselineMapped, Program::Rust("first", "safetensors")),
    subject(
        "safetensors-shard",
        "safetensors, crate, the tensor's shard alone",
        Role::BaselineMapped,
        Program::Rust("first", "safetensors-shard"),
    ),
    subject(
        "st-mapped",
        "safetensors, safe_open of that shard",
        Role::BaselineMapped,
        Program::Python("safetensors_loads.py", "first"),
    ),
];

/// The first tensor.
pub(super) const FIRST_TENSOR: &str = "model.layers.0.self_attn.k_proj.weight";

/// The bench's own program.
pub(super) fn program() -> PathBuf {
    target().join("release/subjects")
}

impl Subject {
    /// Returns true if it needs only the bench's own program.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.program, Program::Rust(..))
    }

    /// Returns the command that loads the shards of a folder.
    pub(super) fn command(&self, folder: &Path, shards: &[PathBuf], baselines: &Baselines) -> Result<Command, String> {
        let (script, subject, next) = match self.program {
            Program::Rust(what, subject) => {
                let mut command = Command::new(program());
                command.args([what, subject]).arg(folder);
                if what == "first" {
                    command.arg(FIRST_TENSOR);
                }
                return Ok(command);
            }
            Program::Python(script, subject) => (script, subject, false),
            Program::Next(script, subject) => (script, subject, true),
        };
        let mut command = baselines.python(next)?;
        command.arg("-B").arg(root().join("benches/baselines").join(script)).arg(subject).args(shards);
        command.env("FIRST_TENSOR", FIRST_TENSOR);
        Ok(command)
    }
}
