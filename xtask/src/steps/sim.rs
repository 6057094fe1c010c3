//! The simulator, with and without seeded bugs.

use crate::step::Mode;
use crate::tools::{RELEASE_TEST, Result, build_programs, cargo_with_cfg, passed, run};
use std::process::Command;
use std::thread::available_parallelism;

pub(super) fn sim(mode: Mode) -> Result {
    if mode == Mode::Quick {
        // Unoptimised: that runs 2,000 seeds sooner than an optimised build is ready.
        return passed(&mut seeds("dev", "0..2000", &[])?);
    }
    run(&mut seeds("release", "0..50000", &["--require-coverage"])?)?;
    // Reads return wrong bytes in some runs; verification must find those and no others.
    run(&mut seeds("release", "0..10000", &["--require-coverage", "--verify"])?)?;
    // Runs each seed twice: a difference depends on more than the seed.
    passed(&mut seeds("release", "0..2000", &["--double-check"])?)
}

fn seeds(profile: &str, range: &str, flags: &[&str]) -> std::result::Result<Command, String> {
    let jobs = available_parallelism().map_or(1, usize::from).to_string();
    let mut simulator = Command::new(build_programs(profile)?.join("floodtide-sim"));
    simulator.args(["--seeds", range, "--jobs", &jobs]).args(flags);
    Ok(simulator)
}

pub(super) fn seeded_bugs(_: Mode) -> Result {
    passed(cargo_with_cfg("floodtide_seeded_bugs")?.args(RELEASE_TEST).args(["--test", "seeded_bugs"]))
}
