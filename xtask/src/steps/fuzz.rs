//! The fuzz targets.

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo_of, root, run, target, works};
use std::{fs, thread};

const TARGETS: [&str; 7] =
    ["safetensors_header", "shard_index", "serverlessllm", "gguf", "manifest", "planner", "engine"];

const SECONDS_PER_TARGET: u32 = 30;

/// The sanitizer is off: the fuzzed crates forbid unsafe code, and its runtime costs most of the
/// speed.
const NO_SANITIZER: [&str; 2] = ["--sanitizer", "none"];

pub(super) fn fuzz(_: Mode) -> Result {
    if !works(cargo_of("nightly").args(["fuzz", "--version"])) {
        let why = "it needs nightly Rust and cargo-fuzz (rustup toolchain install nightly; cargo install --locked cargo-fuzz)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    run(cargo_of("nightly").args(["fuzz", "build"]).args(NO_SANITIZER))?;
    let parallel = thread::available_parallelism().map_or(1, usize::from);
    for targets in TARGETS.chunks(parallel) {
        println!("{}", targets.join(", "));
        thread::scope(|scope| {
            let threads: Vec<_> = targets.iter().map(|name| scope.spawn(|| fuzz_target(name))).collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap_or(Err("it panicked".to_owned())));
            // Waits for all of them before it reports the first error.
            results.collect::<Vec<_>>().into_iter().collect::<std::result::Result<(), String>>()
        })?;
    }
    Ok(Outcome::Passed)
}

fn fuzz_target(name: &str) -> std::result::Result<(), String> {
    // New inputs go to a folder of their own; the committed corpus stays as it is.
    let found = target().join("fuzz-found").join(name);
    fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let seeds = root().join("fuzz/corpus").join(name);
    let limits =
        [format!("-max_total_time={SECONDS_PER_TARGET}"), "-max_len=4096".to_owned(), "-verbosity=0".to_owned()];
    let mut command = cargo_of("nightly");
    command.args(["fuzz", "run"]).args(NO_SANITIZER).arg(name).arg(&found).arg(&seeds).arg("--").args(limits);
    run(&mut command)
}
