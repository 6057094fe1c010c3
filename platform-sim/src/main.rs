//! `floodtide-sim`: runs the world by seeds, and counts what happened.
//!
//! Exit codes: 0 no rule was broken and every path was reached that must be, 1 otherwise, 2 the command line is at fault.

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
