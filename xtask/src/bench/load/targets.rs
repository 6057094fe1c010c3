//! The targets of the loader, and whether one run met them.

use super::results::{Results, Role, Row, Sample, Table, spread};
use super::{COLD_DISK, COLD_ZRAM, FIRST, HALF, smaller};

pub(super) struct Target {
    pub(super) what: String,
    /// The measured figure and its limit.
    pub(super) measured: Option<(f64, Limit)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn at_least(what: impl Into<String>, limit: f64, measured: Option<f64>) -> Self {
        Self { what: what.into(), measured: measured.map(|measured| (measured, Limit::AtLeast(limit))) }
    }

    fn at_most(what: impl Into<String>, limit: f64, measured: Option<f64>) -> Self {
        Self { what: what.into(), measured: measured.map(|measured| (measured, Limit::AtMost(limit))) }
    }

    pub(super) fn met(&self) -> Option<bool> {
        self.measured.map(|(measured, limit)| match limit {
            Limit::AtLeast(least) => measured >= least,
            Limit::AtMost(most) => measured <= most,
        })
    }
}

const BASELINES: [Role; 2] = [Role::BaselineOwned, Role::BaselineMapped];

/// Returns the ratio of one loader's median rate to the best of these roles.
fn ratio(table: Option<&Table>, subject: &str, to: &[Role]) -> Option<f64> {
    Some(table?.rate(subject)? / table?.best(to)?.rate())
}

fn ratio_to(table: Option<&Table>, subject: &str, to: &str) -> Option<f64> {
    Some(table?.rate(subject)? / table?.rate(to)?)
}

/// Returns the ratio of `auto` to the best other backend. `auto` and the backend that it chose make
/// the same reads, so their rounds count as one sample: with few rounds, their difference is noise.
fn decision(table: Option<&Table>) -> Option<f64> {
    let table = table?;
    let auto = table.row("auto")?;
    let chosen = auto.note.as_deref().and_then(|note| note.split_once(':')).map(|(backend, _)| backend);
    let same = table.rows.iter().filter(|row| row.role == Role::Fixed && Some(row.subject.as_str()) == chosen);
    let rates = |row: &Row| row.samples.iter().map(Sample::gib_per_second).collect::<Vec<_>>();
    let own = spread(same.chain([auto]).flat_map(rates))[1];
    let others = table.rows.iter().filter(|row| row.role == Role::Fixed && Some(row.subject.as_str()) != chosen);
    Some(own / others.map(Row::rate).max_by(f64::total_cmp)?)
}

pub(super) fn targets(results: &Results) -> Vec<Target> {
    let zram = results.table(COLD_ZRAM);
    let disk = results.table(COLD_DISK);
    let warm = results.table(super::WARM);
    let half = results.table(HALF);
    let mut targets = vec![
        Target::at_least("cold, fast device: to fio's best", 0.92, ratio(zram, "auto", &[Role::Roofline])),
        Target::at_least(
            "cold, fast device: to safetensors, mapped and touched",
            1.5,
            ratio(zram, "auto", &[Role::BaselineMapped]),
        ),
        Target::at_least(
            "cold, fast device: to the best peer whose tensors are owned",
            4.0,
            ratio(zram, "auto", &[Role::BaselineOwned]),
        ),
        Target::at_least("cold, fast device: to std::fs::read", 7.0, ratio_to(zram, "auto", "read")),
        Target::at_least("cold, disk: to fio's best", 0.97, ratio(disk, "auto", &[Role::Roofline])),
        Target::at_least("cold, disk: to the best peer", 1.0, ratio(disk, "auto", &BASELINES)),
        Target::at_least(
            "warm: to the best peer whose tensors are owned",
            3.5,
            ratio(warm, "auto", &[Role::BaselineOwned]),
        ),
        Target::at_least("warm: to two threads that pread into huge pages", 0.9, ratio_to(warm, "auto", "threads")),
        Target::at_least("second load, fast device: to fio's best", 0.97, ratio(zram, "second", &[Role::Roofline])),
        Target::at_least("second load, disk: to fio's best", 0.97, ratio(disk, "second", &[Role::Roofline])),
    ];
    let first = results.table(FIRST);
    let seconds = |subject: &str| Some(first?.row(subject)?.seconds()[1]);
    let to = |subject: &str| Some(seconds("auto")? / seconds(subject)?);
    let copied = || {
        let samples = &first?.row("auto")?.samples;
        samples.iter().filter_map(|sample| sample.copied_bytes).max().map(|bytes| bytes as f64 / f64::from(1 << 20))
    };
    targets.extend([
        Target::at_most("warm, first tensor: time, to safetensors' safe_open", 1.0, to("st-mapped")),
        Target::at_most("warm, first tensor: time, to the safetensors crate with all shards", 1.0, to("safetensors")),
        // Half of the tensor: enough for the catalog, too little for a copy.
        Target::at_most("warm, first tensor of 4 MiB: MiB of memory taken, none of it a copy", 2.0, copied()),
        Target::at_least(
            "half cached: to the better of direct and buffered reads alone",
            1.0,
            ratio(half, "auto", &[Role::Plain]),
        ),
    ]);
    let figures = &results.figures;
    targets.extend([
        Target::at_most("1 MB, warm: time, to std::fs::read", 1.1, figures.small.map(|(own, plain)| own / plain)),
        Target::at_most(
            "100,000 tensors in 500 files: open and plan, ms",
            100.0,
            figures.plan.map(|(seconds, _)| seconds * 1e3),
        ),
        Target::at_most(
            "20,000 tensors of 8 KiB: µs per tensor beyond the reads",
            1.0,
            figures.seconds_per_tensor.map(|seconds| seconds * 1e6),
        ),
    ]);
    for (id, what) in [
        (COLD_ZRAM, "cold, fast device"),
        (&smaller(COLD_ZRAM), "cold, fast device, smaller model"),
        (super::WARM, "warm"),
        (COLD_DISK, "cold, disk"),
        (&smaller(COLD_DISK), "cold, disk, smaller model"),
        (HALF, "half cached"),
    ] {
        let measured = decision(results.table(id));
        targets.push(Target::at_least(format!("{what}, owned: auto to the best other backend"), 0.97, measured));
    }
    let cpu = |subjects: &[&str]| {
        let rows = subjects.iter().filter_map(|subject| disk?.row(subject)?.cpu_seconds_per_gib());
        rows.min_by(f64::total_cmp)
    };
    let cpu_to = |subjects: &[&str]| Some(cpu(&["auto"])? / cpu(subjects)?);
    targets.extend([
        Target::at_most(
            "cold, disk: CPU per GiB, to Run:ai's least",
            1.0,
            cpu_to(&["runai-uring", "runai-libaio", "runai-sync"]),
        ),
        Target::at_most(
            "cold, disk: CPU per GiB, to safetensors' least",
            1.0,
            cpu_to(&["safetensors", "st-mapped", "st-owned"]),
        ),
    ]);
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, Role, Option<&str>, &[f64])]) -> Table {
        let row = |&(subject, role, note, rates): &(&str, Role, Option<&str>, &[f64])| Row {
            subject: subject.to_owned(),
            name: subject.to_owned(),
            role,
            samples: rates.iter().map(|&rate| sample(rate)).collect(),
            note: note.map(str::to_owned),
        };
        Table { id: String::new(), title: String::new(), rows: rows.iter().map(row).collect() }
    }

    fn sample(rate: f64) -> Sample {
        Sample { bytes: 1 << 30, seconds: 1.0 / rate, cpu_seconds: None, memory_bytes: None, copied_bytes: None }
    }

    #[test]
    fn a_decision_is_held_against_what_was_not_decided_for() {
        let auto = ("auto", Role::Auto, Some("pread: it said why"), &[4.0, 5.0, 6.0][..]);
        let chosen = ("pread", Role::Fixed, None, &[8.0, 9.0, 10.0][..]);
        let other = ("uring", Role::Fixed, None, &[4.0, 16.0, 20.0][..]);
        assert_eq!(decision(Some(&table(&[auto, chosen, other]))), Some(8.0 / 16.0));
        assert_eq!(decision(Some(&table(&[auto, other]))), Some(5.0 / 16.0), "its backend was not timed");
        assert_eq!(decision(Some(&table(&[auto, chosen]))), None, "there is no other");
        assert_eq!(decision(None), None);
    }

    #[test]
    fn limits_are_met_or_missed() {
        assert_eq!(Target::at_least("", 0.92, Some(0.92)).met(), Some(true));
        assert_eq!(Target::at_least("", 0.92, Some(0.9)).met(), Some(false));
        assert_eq!(Target::at_most("", 1.1, Some(1.2)).met(), Some(false));
        assert_eq!(Target::at_most("", 1.1, None).met(), None);
    }
}
