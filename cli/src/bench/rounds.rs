//! Runs all loads interleaved and collects their timings.

use super::Checkpoint;
use super::cache::{self, NOISE};
use super::child::{self, Checksums, Measured, Work};
use super::machine::Machine;
use super::roofline::Pattern;
use super::subject::Subject;
use super::unchanged::Unchanged;
use crate::output::{self, Failure};
use floodtide::Loader;
use floodtide::backend::PREAD;
use floodtide::core::{Escaped, Selection};
use std::path::{Path, PathBuf};

/// The number of roofline patterns that are measured in every round; the others are dropped after
/// the first round.
const FINALISTS: usize = 2;

pub(super) struct Options {
    pub(super) path: PathBuf,
    pub(super) cold: bool,
    /// The number of timed rounds, after one warm-up round.
    pub(super) runs: usize,
    pub(super) subjects: Vec<Subject>,
    pub(super) quiet: bool,
}

/// The result of one way to load, or of one pattern of the roofline.
pub(super) struct Row<T> {
    pub(super) what: T,
    pub(super) result: Result<Timing, String>,
}

/// The timed runs.
#[derive(Debug, Default, Clone)]
pub(super) struct Timing {
    pub(super) runs: Vec<Measured>,
}

impl Timing {
    /// Returns the backend of the last run and the reason.
    pub(super) fn chosen(&self) -> Option<(&str, &str)> {
        let last = self.runs.last()?;
        Some((last.backend.as_deref()?, &last.reason))
    }

    fn sorted(&self, of: impl Fn(&Measured) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Returns the lowest, the median and the highest time in seconds.
    pub(super) fn seconds(&self) -> [f64; 3] {
        let sorted = self.sorted(|run| run.seconds);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        [at(0), median(&sorted), at(sorted.len().saturating_sub(1))]
    }

    /// Returns the lowest, the median and the highest rate for `bytes` bytes, in GiB/s.
    pub(super) fn rates(&self, bytes: u64) -> [f64; 3] {
        let [min, median, max] = self.seconds();
        let rate = |seconds: f64| if seconds > 0.0 { bytes as f64 / f64::from(1 << 30) / seconds } else { 0.0 };
        [rate(max), rate(median), rate(min)]
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        median(&self.sorted(|run| run.cpu_seconds))
    }

    /// Returns the largest peak of all runs.
    pub(super) fn peak_rss_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.peak_rss_bytes).max().unwrap_or(0)
    }
}

fn percent(share: f32) -> f32 {
    (share * 100.0).ceil()
}

/// Returns the middle value, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    sorted.get(low).zip(sorted.get(high)).map_or(0.0, |(low, high)| low.midpoint(*high))
}

/// The results of a bench.
pub(super) struct Results {
    pub(super) checkpoint: Checkpoint,
    pub(super) machine: Machine,
    pub(super) cold: bool,
    pub(super) runs: usize,
    pub(super) subjects: Vec<Row<Subject>>,
    /// The roofline patterns that were measured in every round, best first.
    pub(super) roofline: Vec<Row<Pattern>>,
    /// The largest share of a file in the wrong state before a load: cached before a cold load, not
    /// cached before a warm one. `None` if the system does not report it.
    pub(super) disturbed: Option<f32>,
    /// Whether several ways loaded the same bytes.
    pub(super) agree: bool,
}

impl Results {
    /// Returns the best pattern of the roofline and its timing.
    pub(super) fn best(&self) -> Option<(Pattern, &Timing)> {
        self.roofline.iter().find_map(|row| Some((row.what, row.result.as_ref().ok()?)))
    }

    /// Returns the roofline in GiB/s: the fastest run, because a rate reached once can be reached.
    pub(super) fn limit(&self) -> Option<f64> {
        self.best().map(|(_, timing)| timing.rates(self.checkpoint.file_bytes)[2])
    }

    /// Describes the page cache before the loads.
    pub(super) fn cache_state(&self) -> String {
        let wanted = if self.cold { "page cache dropped before each load" } else { "all in the page cache" };
        match self.disturbed {
            Some(share) if share >= NOISE => {
                format!(
                    "up to {} % of a file {} the page cache",
                    percent(share),
                    if self.cold { "in" } else { "not in" }
                )
            }
            Some(_) => wanted.to_owned(),
            None => format!("{wanted} (not verified)"),
        }
    }

    /// Returns warnings about disturbed results.
    pub(super) fn warnings(&self) -> Vec<String> {
        let cache = match (self.disturbed, self.cold) {
            (None, _) => Some(
                "the system does not report what is cached, so the state of the page cache is not verified".to_owned(),
            ),
            (Some(share), _) if share < NOISE => None,
            (Some(share), true) => Some(format!(
                "not all loads were cold: up to {} % of a file stayed in the page cache; end the programs that have it mapped, \
                 or measure on a file system that is not memory",
                percent(share)
            )),
            (Some(share), false) => Some(format!(
                "not all loads were warm: up to {} % of a file was not in the page cache; free memory, or measure with --cold",
                percent(share)
            )),
        };
        let failed = self.roofline.iter().filter_map(|row| row.result.as_ref().err()).next();
        let roofline = failed.filter(|_| self.best().is_none()).map(|why| format!("there is no roofline: {why}"));
        cache.into_iter().chain(roofline).collect()
    }
}

pub(super) fn measure(options: &Options) -> Result<Results, Failure> {
    // Name a backend, so that small files are checked for direct I/O too. Select nothing, because
    // some ways to load need less memory than others.
    let nothing = Selection::names::<&str>([]);
    let planned = Loader::new().backend(PREAD).selection(nothing).plan(&options.path)?;
    let files = planned.catalog.files();
    let checkpoint = Checkpoint {
        path: options.path.clone(),
        files: files.iter().map(|file| PathBuf::from(&file.path)).collect(),
        file_bytes: files.iter().map(|file| file.bytes).sum(),
        tensors: planned.catalog.len(),
        bytes: planned.catalog.tensor_bytes(),
    };
    if let Some(path) = checkpoint.files.iter().chain([&checkpoint.path]).find(|path| !is_text(path)) {
        let path = path.to_string_lossy();
        return Err(Failure::Failed(format!(
            "{}: the name is not UTF-8, which bench does not support; use a symbolic link with another name",
            Escaped(&path)
        )));
    }
    let direct = options.cold && planned.signals.files.iter().all(|file| file.direct);
    let patterns = Pattern::candidates(direct, !options.cold);
    let machine = Machine::of(checkpoint.files.first().unwrap_or(&checkpoint.path));
    let mut results = Results {
        checkpoint,
        machine,
        cold: options.cold,
        runs: options.runs,
        subjects: options.subjects.iter().map(|&what| Row { what, result: Ok(Timing::default()) }).collect(),
        roofline: patterns.into_iter().map(|what| Row { what, result: Ok(Timing::default()) }).collect(),
        disturbed: Some(0.0),
        agree: false,
    };
    let bar = if options.quiet { None } else { output::progress_bar("measuring") };
    let first = results.subjects.len() + results.roofline.len();
    let loads = options.runs.saturating_mul(results.subjects.len() + FINALISTS).saturating_add(first);
    let step = results.checkpoint.file_bytes;
    if let Some(bar) = &bar {
        bar.set_length(step.saturating_mul(loads as u64));
    }
    let progress = || bar.as_ref().map_or((), |bar| bar.inc(step));
    let unchanged = Unchanged::new(&results.checkpoint.files)?;
    round(&mut results, true, &unchanged, &progress)?;
    for _ in 0..options.runs {
        round(&mut results, false, &unchanged, &progress)?;
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    rank(&mut results.roofline);
    if let Some(Row { what, result: Err(why) }) = results.subjects.first()
        && results.subjects.iter().all(|row| row.result.is_err())
    {
        return Err(Failure::Failed(format!("every way to load the checkpoint failed; {}: {why}", what.name())));
    }
    Ok(results)
}

/// Returns true if a path is valid UTF-8. A catalog's path always is, with replacement characters
/// for the rest, so that no such file exists.
fn is_text(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains(char::REPLACEMENT_CHARACTER) || path.exists())
}

/// Runs one load of each, in shuffled order.
///
/// The first round warms programs and metadata, compares the loaded bytes, and finds the roofline
/// patterns that deserve more rounds. Its times are dropped.
fn round(results: &mut Results, first: bool, unchanged: &Unchanged, progress: &impl Fn()) -> Result<(), Failure> {
    let Results { checkpoint, subjects, roofline, disturbed, cold, .. } = results;
    let mut expected: Option<(Subject, Checksums)> = None;
    let mut agreeing = 0;
    let mut order: Vec<usize> = (0..subjects.len() + roofline.len()).collect();
    // A load slows the next one (free memory in small pages, a busy disk), so the order changes
    // every round.
    fastrand::shuffle(&mut order);
    for at in order {
        let subject = subjects.get(at).map(|row| row.what);
        let (work, result) = match at.checked_sub(subjects.len()) {
            None => (Work::Load(subjects[at].what), &mut subjects[at].result),
            Some(at) => (Work::Roofline(roofline[at].what), &mut roofline[at].result),
        };
        let Ok(timing) = result else { continue };
        let wrong = cache::prepare(&checkpoint.files, *cold)?;
        *disturbed = disturbed.zip(wrong).map(|(worst, wrong)| worst.max(wrong));
        let measured = child::run(work, checkpoint, first && subject.is_some());
        // If the files have changed, neither a load nor its failure is a result.
        unchanged.check()?;
        match measured {
            Ok(mut measured) => {
                if let (Some(subject), Some(found)) = (subject, measured.checksums.take()) {
                    agreeing += 1;
                    compare(&mut expected, subject, found)?;
                }
                timing.runs.push(measured);
            }
            Err(why) => *result = Err(why),
        }
        progress();
    }
    if first {
        rank(roofline);
        roofline.truncate(FINALISTS);
        let timings =
            roofline.iter_mut().map(|row| &mut row.result).chain(subjects.iter_mut().map(|row| &mut row.result));
        timings.filter_map(|result| result.as_mut().ok()).for_each(|timing| timing.runs.clear());
        results.agree = agreeing > 1;
    }
    Ok(())
}

/// Sorts the fastest first and failures last.
fn rank(roofline: &mut [Row<Pattern>]) {
    roofline.sort_by(|a, b| {
        let seconds = |row: &Row<Pattern>| row.result.as_ref().map_or(f64::INFINITY, |timing| timing.seconds()[0]);
        seconds(a).total_cmp(&seconds(b))
    });
}

fn compare(expected: &mut Option<(Subject, Checksums)>, subject: Subject, found: Checksums) -> Result<(), Failure> {
    let Some((first, expected)) = expected else {
        *expected = Some((subject, found));
        return Ok(());
    };
    let mut names = expected.keys().chain(found.keys());
    match names.find(|name| expected.get(*name) != found.get(*name)) {
        None => Ok(()),
        Some(name) => Err(Failure::Failed(format!(
            "tensor \"{}\" loaded by {} differs from what {} loaded; please report this",
            Escaped(name),
            subject.name(),
            first.name()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn timing(seconds: &[f64]) -> Timing {
        let run = |&seconds: &f64| Measured {
            seconds,
            cpu_seconds: 2.0 * seconds,
            peak_rss_bytes: Duration::from_secs_f64(seconds).as_secs(),
            backend: None,
            reason: String::new(),
            checksums: None,
        };
        Timing { runs: seconds.iter().map(run).collect() }
    }

    #[test]
    fn medians_and_spreads_are_of_all_runs() {
        let odd = timing(&[4.0, 1.0, 2.0]);
        assert_eq!((odd.seconds(), odd.cpu_seconds(), odd.peak_rss_bytes()), ([1.0, 2.0, 4.0], 4.0, 4));
        assert_eq!(odd.rates(4 << 30), [1.0, 2.0, 4.0]);
        assert_eq!(timing(&[1.0, 2.0, 4.0, 8.0]).seconds()[1], 3.0);
        assert_eq!((timing(&[5.0]).seconds(), timing(&[]).seconds()), ([5.0; 3], [0.0; 3]));
    }

    #[test]
    fn a_tensor_that_differs_or_is_missing_is_named_with_both_ways() {
        let sums =
            |pairs: &[(&str, u64)]| pairs.iter().map(|&(name, sum)| (name.to_owned(), sum)).collect::<Checksums>();
        for other in [&[("a", 1), ("b", 3)][..], &[("a", 1)], &[("a", 1), ("b", 2), ("c", 3)]] {
            let mut expected = None;
            compare(&mut expected, Subject::Auto, sums(&[("a", 1), ("b", 2)])).expect("is the first");
            compare(&mut expected, Subject::PlainMmap, sums(&[("a", 1), ("b", 2)])).expect("is the same");
            let error = compare(&mut expected, Subject::StdRead, sums(other)).expect_err("differs");
            let Failure::Failed(why) = error else { panic!("{error:?}") };
            assert!(
                why.contains("std::fs::read")
                    && why.contains("auto")
                    && (why.contains("\"b\"") || why.contains("\"c\""))
            );
        }
    }

    #[test]
    fn patterns_that_failed_are_last() {
        let pattern = Pattern::candidates(true, false)[0];
        let row = |result| Row { what: pattern, result };
        let mut rows = [row(Err("no".to_owned())), row(Ok(timing(&[2.0]))), row(Ok(timing(&[1.0])))];
        rank(&mut rows);
        assert_eq!(rows[0].result.as_ref().expect("ran").seconds()[1], 1.0);
        assert!(rows[2].result.is_err());
    }
}
