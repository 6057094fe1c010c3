//! The program: its options, runs of many seeds, and the shrinking of failures.

mod options;
mod shrink;
mod totals;

pub(crate) use options::{Options, USAGE};

use floodtide_sim::Report;
use floodtide_sim::checkpoint::KnownTensor;
use shrink::{drawn, shrink};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use totals::Totals;

/// Seeds that once failed. They always run first.
const ONCE_FAILED: &str = include_str!("../../seeds.txt");

/// Returns the seeds of the base, without its comments.
fn base() -> impl Iterator<Item = u64> {
    let lines = ONCE_FAILED.lines().filter_map(|line| line.split('#').next());
    lines.filter_map(|line| line.trim().parse().ok())
}

pub(crate) fn run(options: &Options) -> ExitCode {
    if let Some(seed) = options.seed {
        return run_one(seed, options);
    }
    let started = Instant::now();
    let (next, failed) = (AtomicU64::new(options.seeds.start), AtomicBool::new(false));
    let mut totals = Totals::default();
    for seed in base() {
        if !add(&mut totals, seed, options) {
            failed.store(true, Ordering::Relaxed);
        }
    }
    let in_time = || options.budget_seconds.is_none_or(|seconds| started.elapsed().as_secs() < seconds);
    let work = || {
        let mut totals = Totals::default();
        while in_time() && !failed.load(Ordering::Relaxed) {
            // Take several at a time, so that threads do not contend for the counter.
            let first = next.fetch_add(64, Ordering::Relaxed);
            if first >= options.seeds.end {
                break;
            }
            for seed in first..(first + 64).min(options.seeds.end) {
                if !add(&mut totals, seed, options) {
                    failed.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
        totals
    };
    let others = if options.jobs > 1 {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..options.jobs).map(|_| scope.spawn(work)).collect();
            let mine = work();
            threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).chain([mine]).collect()
        })
    } else {
        vec![work()]
    };
    others.iter().for_each(|other| totals.add(other));
    if options.digest {
        out(&format!("{:016x}\n", totals.digest));
    } else {
        out(&format!("{totals}took         {:.1} s\n", started.elapsed().as_secs_f64()));
    }
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    let unreached = totals.unreached(options.verify);
    if options.require_coverage && !unreached.is_empty() {
        eprintln!("error: no seed reached {}", unreached.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a seed and adds it to the totals. Returns false, with an explanation, if it violates a
/// rule.
fn add(totals: &mut Totals, seed: u64, options: &Options) -> bool {
    let report = floodtide_sim::run(&drawn(seed, options.verify), false);
    if options.double_check {
        let again = floodtide_sim::run(&drawn(seed, options.verify), false);
        if again.history.digest() != report.history.digest() {
            eprintln!(
                "seed {seed} went two ways: {:016x} and {:016x}",
                report.history.digest(),
                again.history.digest()
            );
            eprintln!("replay: floodtide-sim --seed {seed}{} --trace", verify_flag(options));
            return false;
        }
    }
    totals.count(seed, &report);
    if report.violations.is_empty() {
        return true;
    }
    explain(seed, &report, options);
    false
}

/// Returns the option that the replay of a seed needs.
fn verify_flag(options: &Options) -> &'static str {
    if options.verify { " --verify" } else { "" }
}

/// Prints which rules a seed violates, how to replay it, and its smallest form.
fn explain(seed: u64, report: &Report, options: &Options) {
    eprintln!("seed {seed} breaks the rules:");
    for violation in &report.violations {
        eprintln!("  {violation}");
    }
    let (small, run) = shrink(seed, options.verify);
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(",") };
    let faults = list(small.swarm.kinds().map(|kind| kind.name().to_owned()).collect());
    let tensors = small.tensors.map(|tensors| list(tensors.iter().map(usize::to_string).collect()));
    let tensors = tensors.map_or_else(String::new, |tensors| format!(" --tensors {tensors}"));
    let verify = verify_flag(options);
    eprintln!("replay: floodtide-sim --seed {seed}{verify} --faults {faults}{tensors} --trace");
    if run.violations != report.violations {
        run.violations.iter().for_each(|violation| eprintln!("  {violation}"));
    }
    let lines = run.history.lines();
    let skipped = lines.len().saturating_sub(40);
    eprintln!("the last of {} events with these alone:", lines.len());
    for line in &lines[skipped..] {
        eprintln!("  {line}");
    }
}

fn run_one(seed: u64, options: &Options) -> ExitCode {
    let mut case = drawn(seed, options.verify);
    if let Some(kinds) = &options.faults {
        let unwanted: Vec<_> = case.swarm.kinds().filter(|kind| !kinds.contains(kind)).collect();
        let swarm = unwanted.into_iter().fold(case.swarm.clone(), |swarm, kind| swarm.without(kind));
        case = case.with_swarm(swarm);
    }
    if let Some(tensors) = &options.tensors {
        case = case.only(tensors);
    }
    let report = floodtide_sim::run(&case, options.trace);
    let mut text = String::new();
    if options.trace {
        text += &format!(
            "{:?}, {} workers of depth {}, chunks of {}, of {:?}\n",
            case.job, case.workers, case.depth, case.chunk_bytes, case.selection
        );
        // By their index in the whole checkpoint.
        let is_left = |number: &usize| options.tensors.as_ref().is_none_or(|tensors| tensors.contains(number));
        for (tensor, number) in case.checkpoint.tensors.iter().zip((0..).filter(is_left)) {
            let KnownTensor { name, dtype, shape, file, start, bytes } = tensor;
            text += &format!("tensor {number}: {name:?}, {dtype} {shape:?}, file {file} from {start}, {bytes} bytes\n");
        }
        report.history.lines().iter().for_each(|line| text += &format!("{line}\n"));
    }
    if options.digest {
        text += &format!("{:016x}\n", report.history.digest());
    } else {
        let mut totals = Totals::default();
        totals.count(seed, &report);
        let end = match &report.result {
            Ok(()) => "well".to_owned(),
            Err(error) => format!("with: {error}"),
        };
        text += &format!("{totals}ended        after {} ms, {end}\n", report.elapsed / 1_000_000);
    }
    out(&text);
    if report.violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    if options.faults.is_none() && options.tensors.is_none() && !options.trace {
        explain(seed, &report, options);
    } else {
        report.violations.iter().for_each(|violation| eprintln!("broken: {violation}"));
    }
    ExitCode::FAILURE
}

/// Prints, and ignores a closed output.
fn out(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes());
}
