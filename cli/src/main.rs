//! The `floodtide` command: a thin layer over the crate `floodtide`.
//!
//! Exit codes: 0 done, 1 the checkpoint or the I/O failed, 2 the command line is wrong, 130 an
//! interrupt ended the command. `verify` exits with 1 if anything differs. `diff` follows diff(1):
//! 0 no difference, 1 a difference, 2 no comparison, for any reason.
//!
//! Results go to stdout; progress, warnings and errors go to stderr. With `--json`, stdout holds
//! one JSON document and nothing else.

mod args;
mod bench;
mod convert;
mod demo;
mod diff;
mod digest;
mod doctor;
mod hints;
mod inspect;
mod load;
mod manifest;
mod metadata;
mod output;
mod plan;
mod probe;
mod verify;

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut matches = Args::command().get_matches();
    let command = matches.subcommand_name().unwrap_or_default().to_owned();
    let args = Args::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit());
    floodtide::raise_open_file_limit();
    floodtide::ignore_file_size_signal();
    let result = match args.command {
        Command::Load(args) => load::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Digest(args) => digest::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchOne(args) => bench::run_one(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.report(&command)),
    }
}
