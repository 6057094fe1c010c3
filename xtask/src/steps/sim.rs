//! The simulator, with and without seeded bugs.

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo, cargo_with_cfg, passed, run};
use std::thread::available_parallelism;

pub(super) fn sim(mode: Mode) -> Result {
    if mode == Mode::Quick {
        seeds("0..2000", &[])?;
        return Ok(Outcome::Passed);
    }
    seeds("0..50000", &["--require-coverage"])?;
    // Reads return wrong bytes in some runs; verification must find those and no others.
    seeds("0..10000", &["--require-coverage", "--verify"])?;
    // Runs each seed twice: a difference depends on more than the seed.
    seeds("0..2000", &["--double-check"])?;
    Ok(Outcome::Passed)
}

fn seeds(range: &str, flags: &[&str]) -> std::result::Result<(), String> {
    let jobs = available_parallelism().map_or(1, usize::from).to_string();
    let program = ["run", "--release", "--quiet", "--package", "floodtide-sim", "--"];
    run(cargo().args(program).args(["--seeds", range, "--jobs", &jobs]).args(flags))
}

pub(super) fn seeded_bugs(_: Mode) -> Result {
    let tests = ["test", "--release", "--package", "floodtide-tests", "--test", "seeded_bugs"];
    passed(cargo_with_cfg("floodtide_seeded_bugs")?.args(tests))
}
