//! Tests under cargo, loom and Miri, and the benches.

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo, cargo_of, cargo_with_cfg, passed, run, target, works};

/// The tests run the command as users do, so it is built first, with optimisation.
pub(super) fn test(mode: Mode) -> Result {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--all-features"]);
    if mode == Mode::Quick {
        return passed(tests.arg("--lib"));
    }
    run(cargo().args(["build", "--release", "--package", "floodtide-cli"]))?;
    passed(tests.env("FLOODTIDE_BIN", target().join("release/floodtide")))
}

pub(super) fn loom(_: Mode) -> Result {
    run(cargo_with_cfg("loom")?.args(["test", "--release", "--package", "floodtide-tests", "--test", "loom"]))?;
    passed(cargo_with_cfg("loom")?.args(["test", "--release", "--package", "floodtide", "--lib", "interleavings"]))
}

/// Runs what takes its memory from the allocator under Miri.
pub(super) fn miri(_: Mode) -> Result {
    if !works(cargo_of("nightly").args(["miri", "--version"])) {
        let why = "it needs Miri (rustup component add --toolchain nightly miri rust-src)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let mut tests = cargo_of("nightly");
    tests.args(["miri", "test", "--package", "floodtide-memory", "--lib"]);
    // The tests ask for the system's memory and the time.
    tests.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    passed(tests.env("CARGO_TARGET_DIR", target().join("miri")))
}

/// Criterion runs each bench once where it is run as a test.
pub(super) fn bench(_: Mode) -> Result {
    passed(cargo().args(["test", "--release", "--package", "floodtide-benches", "--benches"]))
}
