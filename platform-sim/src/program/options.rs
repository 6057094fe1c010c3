//! The command line.

use floodtide_sim::faults::FaultKind;
use lexopt::prelude::*;
use std::ops::Range;

pub(crate) const USAGE: &str = "\
usage: floodtide-sim [--seeds FROM..TO | --seed N] [options]

  --seeds FROM..TO     run these seeds (default 0..10000), after those that once failed
  --seed N             run this one
  --budget-seconds S   begin no seed after S seconds
  --jobs N             run seeds on N threads (default 1)
  --double-check       run each seed twice and compare
  --require-coverage   fail if a fault, a way of recovery, a size or an end was not reached
  --verify             verify what is read, some of which is wrong
  --digest             print nothing but the digest of all histories
  --faults A,B | none  of --seed: leave only these kinds of faults
  --tensors N,M | none of --seed: leave only these tensors, by number
  --trace              of --seed: print what happened, event by event";

/// The options of the program.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seeds: Range<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) budget_seconds: Option<u64>,
    pub(crate) jobs: usize,
    pub(crate) double_check: bool,
    pub(crate) require_coverage: bool,
    pub(crate) verify: bool,
    pub(crate) digest: bool,
    pub(crate) faults: Option<Vec<FaultKind>>,
    pub(crate) tensors: Option<Vec<usize>>,
    pub(crate) trace: bool,
}

impl Options {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        let mut options = Self {
            seeds: 0..10_000,
            seed: None,
            budget_seconds: None,
            jobs: 1,
            double_check: false,
            require_coverage: false,
            verify: false,
            digest: false,
            faults: None,
            tensors: None,
            trace: false,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("seeds") => options.seeds = range(&parser.value()?.string()?)?,
                Long("seed") => options.seed = Some(parser.value()?.parse()?),
                Long("budget-seconds") => options.budget_seconds = Some(parser.value()?.parse()?),
                Long("jobs") => options.jobs = parser.value()?.parse::<usize>()?.clamp(1, 256),
                Long("double-check") => options.double_check = true,
                Long("require-coverage") => options.require_coverage = true,
                Long("verify") => options.verify = true,
                Long("digest") => options.digest = true,
                Long("faults") => options.faults = Some(kinds(&parser.value()?.string()?)?),
                Long("tensors") => options.tensors = Some(numbers(&parser.value()?.string()?)?),
                Long("trace") => options.trace = true,
                Long("help") | Short('h') => {
                    println!("{USAGE}");
                    std::process::exit(0);
                }
                other => return Err(other.unexpected()),
            }
        }
        if options.seed.is_none() && (options.trace || options.faults.is_some() || options.tensors.is_some()) {
            return Err("--trace, --faults and --tensors go with --seed".into());
        }
        Ok(options)
    }
}

fn range(text: &str) -> Result<Range<u64>, lexopt::Error> {
    let bad = || lexopt::Error::from(format!("--seeds takes FROM..TO, not \"{text}\""));
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    Ok(from.parse().map_err(|_| bad())?..to.parse().map_err(|_| bad())?)
}

fn numbers(text: &str) -> Result<Vec<usize>, lexopt::Error> {
    let numbers = text.split(',').filter(|number| *number != "none").map(str::parse);
    numbers.collect::<Result<_, _>>().map_err(|_| format!("--tensors takes numbers, not \"{text}\"").into())
}

fn kinds(text: &str) -> Result<Vec<FaultKind>, lexopt::Error> {
    let names = text.split(',').filter(|name| *name != "none");
    names
        .map(|name| {
            let kind = FaultKind::ALL.iter().copied().find(|kind| kind.name() == name);
            kind.ok_or_else(|| {
                let all: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
                format!("there is no fault \"{name}\"; there are {}", all.join(", ")).into()
            })
        })
        .collect()
}
