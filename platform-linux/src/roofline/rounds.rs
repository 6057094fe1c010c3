//! Orders the runs: rounds of all combinations, then rounds of the likely best.

use super::bytes::Bytes;
use super::reads::{Run, Scratch};
use super::{CHUNKS, Cell, DEPTHS, Rate, ReadMethod, Roofline};
use std::time::{Duration, Instant};

/// The minimum and the maximum duration of a run.
const RUN: std::ops::RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_millis(250);
/// The number of rounds of all combinations, and their share of the time.
const ROUNDS: u32 = 2;
const SHARE_OF_ALL: f64 = 0.65;
/// The rate below which a combination is not a candidate for the best, relative to the fastest of
/// its kind.
const FINALIST: f64 = 0.85;
const FINALISTS: usize = 5;
/// The maximum fraction of a run for reads in flight to complete. Combinations that need more are
/// skipped.
const MAX_DRAIN_SHARE: f64 = 0.05;

/// A combination and its rates so far.
struct Entry {
    run: Run,
    rates: Vec<f64>,
}

impl Entry {
    fn bytes_in_flight(&self) -> u64 {
        self.run.chunk_bytes * self.run.in_flight as u64
    }

    fn median(&self) -> f64 {
        Rate::of(self.rates.clone()).map_or(0.0, |rate| rate.median)
    }
}

struct Reader<'a> {
    bytes: &'a Bytes,
    scratch: &'a mut Scratch,
    budget: Duration,
    fastest: f64,
    measured: Vec<ReadMethod>,
    failures: Vec<(ReadMethod, String)>,
}

/// Measures reads within the budget, and adds the results to the roofline.
pub(super) fn read(roofline: &mut Roofline, bytes: &Bytes, scratch: &mut Scratch, budget: Duration) {
    let started = Instant::now();
    let mut entries = combinations(roofline, bytes, scratch);
    // On a slow device, runs with few bytes in flight come first, because there may be no time for
    // others.
    entries.sort_by_key(Entry::bytes_in_flight);
    let mut reader = Reader { bytes, scratch, budget, fastest: 0.0, measured: Vec::new(), failures: Vec::new() };
    reader.rounds(&mut entries, started + budget.mul_f64(SHARE_OF_ALL));
    let mut finalists = take_finalists(&mut entries);
    reader.rounds(&mut finalists, started + budget);
    let failures = reader.failures;
    entries.append(&mut finalists);
    entries.retain(|entry| failures.iter().all(|(method, _)| *method != entry.run.method));
    let cells = entries.into_iter().filter_map(|Entry { run, rates }| {
        let Run { method, chunk_bytes, in_flight, .. } = run;
        Some(Cell { method, chunk_bytes, in_flight, rate: Rate::of(rates)? })
    });
    roofline.cells = cells.collect();
    roofline.cells.sort_by_key(|cell| (!cell.method.direct, !cell.method.ring, cell.chunk_bytes, cell.in_flight));
    roofline.refused.extend(failures);
}

fn combinations(roofline: &Roofline, bytes: &Bytes, scratch: &Scratch) -> Vec<Entry> {
    let refused = |method: &ReadMethod| roofline.refused.iter().any(|(refused, _)| refused == method);
    let max = (scratch.byte_len() as u64).min(bytes.total());
    let rings = roofline.cpus;
    let mut entries = Vec::new();
    for method in ReadMethod::ALL.into_iter().filter(|method| !refused(method)) {
        for chunk_bytes in CHUNKS {
            for in_flight in DEPTHS.into_iter().filter(|&depth| depth as u64 * chunk_bytes <= max) {
                let run = Run { method, chunk_bytes, in_flight, rings, time: Duration::ZERO, max_bytes: u64::MAX };
                entries.push(Entry { run, rates: Vec::new() });
            }
        }
    }
    entries
}

/// Removes and returns the fastest combinations of each kind.
fn take_finalists(entries: &mut Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| b.median().total_cmp(&a.median()));
    let mut finalists: Vec<Entry> = Vec::new();
    for method in ReadMethod::ALL {
        let fastest = entries.iter().filter(|entry| entry.run.method == method).map(Entry::median).fold(0.0, f64::max);
        for _ in 0..FINALISTS {
            let good = |entry: &Entry| entry.run.method == method && entry.median() > (fastest * FINALIST).max(0.0);
            match entries.iter().position(good) {
                Some(index) => finalists.push(entries.remove(index)),
                None => break,
            }
        }
    }
    finalists
}

impl Reader<'_> {
    fn rounds(&mut self, entries: &mut [Entry], end: Instant) {
        let left = end.saturating_duration_since(Instant::now());
        let time =
            (left / ROUNDS / u32::try_from(entries.len().max(1)).unwrap_or(u32::MAX)).clamp(*RUN.start(), *RUN.end());
        entries.iter_mut().for_each(|entry| entry.run.time = time);
        let mut random = fastrand::Rng::new();
        loop {
            let before: usize = entries.iter().map(|entry| entry.rates.len()).sum();
            for entry in &mut *entries {
                // Every kind is measured once, whatever delayed the first runs.
                if Instant::now() < end || !self.measured.contains(&entry.run.method) {
                    self.read(entry);
                }
            }
            // The time is up, or nothing can be read.
            if Instant::now() >= end || entries.iter().map(|entry| entry.rates.len()).sum::<usize>() == before {
                return;
            }
            random.shuffle(entries);
        }
    }

    fn read(&mut self, entry: &mut Entry) {
        let run = entry.run;
        let drain = entry.bytes_in_flight() as f64 / self.fastest;
        let too_slow = self.fastest > 0.0 && drain > self.budget.as_secs_f64() * MAX_DRAIN_SHARE;
        if too_slow || self.failures.iter().any(|(method, _)| *method == run.method) {
            return;
        }
        self.bytes.begin();
        match run.rate(self.bytes, self.scratch) {
            Ok(rate) => {
                self.fastest = self.fastest.max(rate);
                entry.rates.push(rate);
                if !self.measured.contains(&run.method) {
                    self.measured.push(run.method);
                }
            }
            // The system may not have that many threads.
            Err(_) if !run.method.ring && run.in_flight > 8 => {}
            Err(why) => self.failures.push((run.method, why)),
        }
        if !run.method.direct {
            self.bytes.drop_cache();
        }
    }
}
