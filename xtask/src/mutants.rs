//! `cargo xtask mutants`: what in core could be wrong without a test that notices.
//!
//! cargo-mutants changes one thing at a time and runs core's own tests. What it names as missed is a test that is not there,
//! or a change that makes no difference; a person tells the two apart. That takes hours for all of core, so it is no step of
//! `cargo xtask test`.

use crate::tools::{Outcome, Result, cargo, run, target, works};

/// Seconds for core's tests, which take a few; a change that makes them run without end is a change that they notice.
const TIMEOUT_SECONDS: u32 = 60;

/// Changes what these globs name, or all of core.
pub(crate) fn mutants(files: &[String]) -> Result {
    if !works(cargo().args(["mutants", "--version"])) {
        return Ok(Outcome::Skipped("it needs cargo-mutants (cargo install --locked cargo-mutants)".to_owned()));
    }
    let mut command = cargo();
    command
        .args(["mutants", "--package", "floodtide-core", "--jobs", "2"])
        .args(["--timeout", &TIMEOUT_SECONDS.to_string()])
        // Defects of their own, which are off in these builds.
        .args(["--exclude", "**/planted.rs"])
        .arg("--output")
        .arg(target())
        // Each job builds in a copy of its own.
        .env_remove("CARGO_TARGET_DIR");
    for file in files {
        command.args(["--file", file]);
    }
    run(&mut command).map(|()| Outcome::Passed)
}
