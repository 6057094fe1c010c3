//! `cargo xtask mutants`: the changes to core that its own tests miss.
//!
//! cargo-mutants makes one change at a time and runs core's tests. A change that it reports as
//! missed lacks a test, or makes no difference; a person tells which. All of core takes hours, so
//! this is no step of `cargo xtask test`.

use crate::tools::{Outcome, Result, cargo, passed, target, works};

/// The tests take a few seconds. A change that makes them run without end counts as caught.
const TIMEOUT_SECONDS: u32 = 60;

/// Changes the files that match these globs, or all of core.
pub(crate) fn run(files: &[String]) -> Result {
    if !works(cargo().args(["mutants", "--version"])) {
        return Ok(Outcome::Skipped("it needs cargo-mutants (cargo install --locked cargo-mutants)".to_owned()));
    }
    let mut command = cargo();
    command
        .args(["mutants", "--package", "floodtide-core", "--jobs", "2"])
        .args(["--timeout", &TIMEOUT_SECONDS.to_string()])
        // Defects that these builds leave out.
        .args(["--exclude", "**/seeded_bug.rs"])
        .arg("--output")
        .arg(target())
        // Each job builds a copy of its own.
        .env_remove("CARGO_TARGET_DIR");
    for file in files {
        command.args(["--file", file]);
    }
    passed(&mut command)
}
