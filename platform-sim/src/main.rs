//! `floodtide-sim`: runs the world for many seeds and counts the results.
//!
//! Exit codes: 0 if no rule was violated and every required path was reached, 1 otherwise, 2 for a
//! wrong command line.

mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    match program::Options::parse() {
        Ok(options) => program::run(&options),
        Err(why) => {
            eprintln!("error: {why}\n\n{}", program::USAGE);
            ExitCode::from(2)
        }
    }
}
