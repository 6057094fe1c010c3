//! The Rust subjects of `cargo xtask bench load`. Each run is its own process, which prints one
//! line of JSON.
//!
//! ```text
//! subjects load SUBJECT FOLDER        one load, timed from the call to the last byte touched
//! subjects first SUBJECT FOLDER NAME  the time to one tensor
//! subjects small FOLDER               many loads of a small file, and std::fs::read
//! subjects plan FOLDER                open and plan, without a load
//! subjects per-tensor MANY FEW        the cost of a tensor: two checkpoints of the same bytes
//! subjects prepare …, subjects hold … see `prepare` and `memory_balloon`
//! ```
//!
//! The baselines in Python are in `benches/baselines`, and measure in the same way.

mod first;
mod load;
mod measure;
mod memory_balloon;
mod prepare;
mod repeated;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["load", way, folder] => load::run(way, Path::new(folder)),
        ["first", way, folder, name] => first::run(way, Path::new(folder), name),
        ["small", folder] => repeated::small(Path::new(folder)),
        ["plan", folder] => repeated::plan(Path::new(folder)),
        ["per-tensor", many, few] => repeated::per_tensor(Path::new(many), Path::new(few)),
        ["hold", bytes] => memory_balloon::hold(bytes),
        ["prepare", state, balloon, ref files @ ..] => prepare::run(state, balloon, files),
        _ => Err("there is no such way; the top of main.rs lists them".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("subjects: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the shards of a folder, in order.
fn shards(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut shards: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    shards.sort();
    Ok(shards)
}

fn explain(error: impl std::fmt::Display) -> String {
    error.to_string()
}
