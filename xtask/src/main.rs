//! `cargo xtask`: the checks, the benches and the mutation tests of this repository.
//!
//! Every command needs Rust alone. A step whose tool is missing is skipped, and the output says how
//! to install the tool.

mod bench;
mod mutants;
mod step;
mod steps;
mod structure;
mod suite;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tools::Outcome;

#[derive(Parser)]
#[command(name = "xtask", about = "Checks, benches and mutation tests of floodtide")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check
    Test(suite::Options),
    /// Measure, and write the results to benches/RESULTS.md
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: Bench,
    },
    /// Print which crates, and which top modules of each, use which
    Structure,
    /// Change core in many ways, one at a time, and list the changes that its tests miss
    Mutants {
        /// Change only files that match this glob, such as "core/src/engine/**"; repeat for more
        #[arg(long, value_name = "GLOB")]
        file: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// The buffer pool against other pools and the allocator
    Pool,
    /// A stream in bounded memory against a load that keeps everything
    Stream,
    /// Loads against other loaders and plain reads, cold and warm, on a fast device and on the
    /// build's disk (about 25 minutes)
    Load(bench::load::Options),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Test(options) => return suite::run(&options),
        Command::Bench { what: Bench::Pool } => bench::pool::run_bench(),
        Command::Bench { what: Bench::Stream } => bench::stream::run_bench(),
        Command::Bench { what: Bench::Load(options) } => bench::load::run_bench(&options),
        Command::Structure => structure::print(),
        Command::Mutants { file } => mutants::run(&file).map(|outcome| match outcome {
            Outcome::Passed => println!("Core's tests catch every change."),
            Outcome::Skipped(why) => println!("skipped: {why}"),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
