//! The checks of the project, one command: `cargo xtask test`.
//!
//! Needs nothing but Rust; what wants more (a nightly toolchain, cargo-fuzz) is skipped with a line that says so.

mod bench;
mod msrv;
mod mutants;
mod steps;
mod tools;
mod wasi;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Instant;
use steps::{STEPS, Step};
use tools::Outcome;

#[derive(Parser)]
#[command(name = "xtask", about = "The checks of floodtide")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check, or some of them
    Test {
        /// Run only this step; can be given several times
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// List the steps
        #[arg(long)]
        list: bool,
    },
    /// The step "wasi": the simulator built for WASI gives the same digests as here
    Wasi,
    /// The step "no-std": core builds and links for a machine without an operating system
    NoStd,
    /// Measure, and write the results into benches/RESULTS.md
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: Bench,
    },
    /// Change core in many ways, one at a time, and see whether its tests notice
    Mutants {
        /// Change only what this glob names, such as "core/src/engine/**"; can be given several times
        #[arg(long, value_name = "GLOB")]
        file: Vec<String>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// The buffer pool against other pools and plain allocations
    Pool,
    /// A stream through few buffers against a load that keeps everything
    Stream,
    /// The loader against its peers and plain reads, cold and warm, on a fast device and on the build's disk (about 25 minutes)
    Load(bench::load::Options),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Test { only, list } => return test(&only, list),
        Command::Wasi => return test(&["wasi".to_owned()], false),
        Command::NoStd => return test(&["no-std".to_owned()], false),
        Command::Bench { what: Bench::Pool } => bench::pool::run_bench(),
        Command::Bench { what: Bench::Stream } => bench::stream::run_bench(),
        Command::Bench { what: Bench::Load(options) } => bench::load::run_bench(&options),
        Command::Mutants { file } => mutants::mutants(&file).map(|outcome| match outcome {
            Outcome::Passed => println!("Core's tests notice every change."),
            Outcome::Skipped(why) => println!("skipped: {why}"),
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

fn test(only: &[String], list: bool) -> ExitCode {
    if list {
        for step in STEPS {
            println!("{:10} {}", step.name, step.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        eprintln!("xtask: there is no step \"{unknown}\"; `cargo xtask test --list` lists them");
        return ExitCode::from(2);
    }
    let chosen: Vec<&Step> =
        STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)).collect();
    let mut skipped = 0;
    for step in &chosen {
        println!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        match (step.run)() {
            Ok(Outcome::Passed) => println!("== {} passed in {:.1} s", step.name, start.elapsed().as_secs_f64()),
            Ok(Outcome::Skipped(why)) => {
                skipped += 1;
                println!("== {} skipped: {why}", step.name);
            }
            Err(why) => {
                eprintln!("== {} FAILED after {:.1} s: {why}", step.name, start.elapsed().as_secs_f64());
                return ExitCode::FAILURE;
            }
        }
    }
    let every = if only.is_empty() { "Every check" } else { "Every chosen check" };
    println!("\n{every} passed: {} steps, {skipped} of them skipped.", chosen.len());
    ExitCode::SUCCESS
}
