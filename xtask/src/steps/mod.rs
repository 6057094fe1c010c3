//! The steps of `cargo xtask test`. To add one, write its function and its line in [`STEPS`].

mod builds;
mod fuzz;
mod lints;
mod msrv;
mod sim;
mod tests;
mod wasi;

use crate::step::{Mode, Step};
use crate::structure;
use crate::tools::Result;

/// Every step, cheapest first.
pub(crate) const STEPS: &[Step] = &[
    quick("fmt", "the code is formatted", lints::fmt),
    quick("typos", "no word is misspelled", lints::typos),
    quick("structure", "dependencies between crates and modules point one way", |_| structure::check()),
    full("deny", "licences, advisories, duplicates and sources of the dependencies", lints::deny),
    quick("clippy", "no lint warns", lints::clippy),
    full("doc", "the documentation builds without a warning", lints::doc),
    full("msrv", "the published crates build with the declared rust-version", msrv::check),
    full("no-std", "core links without std", builds::no_std),
    full("features", "floodtide builds without features and with each one alone", builds::features),
    quick("test", "unit, property and integration tests", tests::test),
    full("loom", "every interleaving of the concurrent parts", tests::loom),
    full("miri", "the unsafe code of the memory crate under Miri", tests::miri),
    quick("sim", "simulator seeds, with every fault, recovery and size covered", sim::sim),
    full("seeded-bugs", "the simulator finds every seeded bug", sim::seeded_bugs),
    full("wasi", "the simulator's digests on WASI equal the native ones", wasi::check),
    full("bench", "every bench runs once", tests::bench),
    full("fuzz", "every fuzz target runs for a while", fuzz::fuzz),
];

const fn quick(name: &'static str, about: &'static str, run: fn(Mode) -> Result) -> Step {
    Step { name, about, quick: true, run }
}

const fn full(name: &'static str, about: &'static str, run: fn(Mode) -> Result) -> Step {
    Step { name, about, quick: false, run }
}
