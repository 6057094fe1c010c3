//! Runs the steps of `cargo xtask test` in order and prints how long each took.
//!
//! The first step that fails ends the run. A step that needs a missing tool is skipped.

use crate::step::{Mode, Step};
use crate::steps::STEPS;
use crate::tools::Outcome;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the checks to make before a commit, in under four minutes
    #[arg(long)]
    quick: bool,
    /// Run only this step; repeat for more
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// List the steps
    #[arg(long)]
    list: bool,
}

impl Options {
    fn selects(&self, step: &Step) -> bool {
        if self.only.is_empty() { step.quick || !self.quick } else { self.only.iter().any(|name| name == step.name) }
    }
}

pub(crate) fn run(options: &Options) -> ExitCode {
    if let Some(unknown) = options.only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        eprintln!("xtask: unknown step \"{unknown}\"; `cargo xtask test --list` lists the steps");
        return ExitCode::from(2);
    }
    let steps: Vec<&Step> = STEPS.iter().filter(|step| options.selects(step)).collect();
    if options.list {
        for step in steps {
            println!("{:12} {}{}", step.name, step.about, if step.quick { " (quick)" } else { "" });
        }
        return ExitCode::SUCCESS;
    }
    let mode = if options.quick { Mode::Quick } else { Mode::Full };
    let mut times: Vec<(&str, Duration, &str)> = Vec::new();
    let mut failed = false;
    for step in steps {
        println!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let result = (step.run)(mode);
        let (word, why) = match result {
            Ok(Outcome::Passed) => ("passed", None),
            Ok(Outcome::Skipped(why)) => ("skipped", Some(why)),
            Err(why) => ("FAILED", Some(why)),
        };
        println!("== {} {word}{}", step.name, why.map_or(String::new(), |why| format!(": {why}")));
        times.push((step.name, start.elapsed(), word));
        if word == "FAILED" {
            failed = true;
            break;
        }
    }
    print_times(&times);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_times(times: &[(&str, Duration, &str)]) {
    println!();
    for (name, time, word) in times {
        println!("{name:12} {:>8.1} s  {word}", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time, _)| *time).sum();
    println!("{:12} {:>8.1} s", "total", total.as_secs_f64());
}
