//! Which runs are made, and in which order: rounds of all combinations, then rounds of those that may be the best.

use super::bytes::Bytes;
use super::reads::{Run, Scratch};
use super::{CHUNKS, Cell, DEPTHS, Rate, Roofline, Way};
use std::time::{Duration, Instant};

/// A run is at least this long, and at most.
const RUN: std::ops::RangeInclusive<Duration> = Duration::from_millis(4)..=Duration::from_millis(250);
/// The rounds of all combinations that the time is cut for, and the share of it that they have.
const ROUNDS: u32 = 2;
const SHARE_OF_ALL: f64 = 0.65;
/// A combination that is this much slower than the fastest of its way is not the best of it.
const FINALIST: f64 = 0.85;
const FINALISTS: usize = 5;
/// What is in flight has to land before a run is over. No run is made for which that would take this share of the time.
const MAX_DRAIN_SHARE: f64 = 0.05;

/// A combination, and what it gave so far.
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
    measured: Vec<Way>,
    failures: Vec<(Way, String)>,
}

/// Reads for as long as the budget says, and puts what came of it into the roofline.
pub(super) fn read(roofline: &mut Roofline, bytes: &Bytes, scratch: &mut Scratch, budget: Duration) {
    let started = Instant::now();
    let mut entries = combinations(roofline, bytes, scratch);
    // On a slow device the runs with little in flight come first, so that time is up for the others.
    entries.sort_by_key(Entry::bytes_in_flight);
    let mut reader = Reader { bytes, scratch, budget, fastest: 0.0, measured: Vec::new(), failures: Vec::new() };
    reader.rounds(&mut entries, started + budget.mul_f64(SHARE_OF_ALL));
    let mut finalists = take_finalists(&mut entries);
    reader.rounds(&mut finalists, started + budget);
    let failures = reader.failures;
    entries.append(&mut finalists);
    entries.retain(|entry| failures.iter().all(|(way, _)| *way != entry.run.way));
    let cells = entries.into_iter().filter_map(|Entry { run, rates }| {
        let Run { way, chunk_bytes, in_flight, .. } = run;
        Some(Cell { way, chunk_bytes, in_flight, rate: Rate::of(rates)? })
    });
    roofline.cells = cells.collect();
    roofline.cells.sort_by_key(|cell| (!cell.way.direct, !cell.way.ring, cell.chunk_bytes, cell.in_flight));
    roofline.refused.extend(failures);
}

fn combinations(roofline: &Roofline, bytes: &Bytes, scratch: &Scratch) -> Vec<Entry> {
    let refused = |way: &Way| roofline.refused.iter().any(|(refused, _)| refused == way);
    let max = (scratch.byte_len() as u64).min(bytes.total());
    let rings = roofline.cpus;
    let mut entries = Vec::new();
    for way in Way::ALL.into_iter().filter(|way| !refused(way)) {
        for chunk_bytes in CHUNKS {
            for in_flight in DEPTHS.into_iter().filter(|&depth| depth as u64 * chunk_bytes <= max) {
                let run = Run { way, chunk_bytes, in_flight, rings, time: Duration::ZERO, max_bytes: u64::MAX };
                entries.push(Entry { run, rates: Vec::new() });
            }
        }
    }
    entries
}

/// Takes the fastest few of each way out.
fn take_finalists(entries: &mut Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| b.median().total_cmp(&a.median()));
    let mut finalists: Vec<Entry> = Vec::new();
    for way in Way::ALL {
        let fastest = entries.iter().filter(|entry| entry.run.way == way).map(Entry::median).fold(0.0, f64::max);
        for _ in 0..FINALISTS {
            let good = |entry: &Entry| entry.run.way == way && entry.median() > (fastest * FINALIST).max(0.0);
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
        let time = (left / (ROUNDS * entries.len().max(1) as u32)).clamp(*RUN.start(), *RUN.end());
        entries.iter_mut().for_each(|entry| entry.run.time = time);
        let mut random = fastrand::Rng::new();
        loop {
            let before: usize = entries.iter().map(|entry| entry.rates.len()).sum();
            for entry in &mut *entries {
                // Whatever held the first runs up, every way is measured once.
                if Instant::now() < end || !self.measured.contains(&entry.run.way) {
                    self.read(entry);
                }
            }
            // Time is up, or nothing can be read any more.
            if Instant::now() >= end || entries.iter().map(|entry| entry.rates.len()).sum::<usize>() == before {
                return;
            }
            random.shuffle(entries);
        }
    }

    fn read(&mut self, entry: &mut Entry) {
        let run = entry.run;
        let landing = entry.bytes_in_flight() as f64 / self.fastest;
        let too_slow = self.fastest > 0.0 && landing > self.budget.as_secs_f64() * MAX_DRAIN_SHARE;
        if too_slow || self.failures.iter().any(|(way, _)| *way == run.way) {
            return;
        }
        self.bytes.begin();
        match run.rate(self.bytes, self.scratch) {
            Ok(rate) => {
                self.fastest = self.fastest.max(rate);
                entry.rates.push(rate);
                if !self.measured.contains(&run.way) {
                    self.measured.push(run.way);
                }
            }
            // That many threads may be more than can be had.
            Err(_) if !run.way.ring && run.in_flight > 8 => {}
            Err(why) => self.failures.push((run.way, why)),
        }
        if !run.way.direct {
            self.bytes.drop_cache();
        }
    }
}
