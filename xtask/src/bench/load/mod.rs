//! The head-to-head: the loader, its baselines and plain reads, on one machine, in one run.
//!
//! `subjects` lists what is compared, and `rounds` times it, with a `balloon` of memory. `fio`
//! measures the roofline, and `baselines` installs the other loaders. `results` holds the samples,
//! `targets` compares them with the targets, and `report` writes the section, with the figures of
//! `plot`.

mod baselines;
mod fio;
mod memory_balloon;
mod plot;
mod preparation;
mod report;
mod results;
mod rounds;
mod subjects;
mod targets;

use super::checkpoint::{QUICK, QWEN3_0_6B, QWEN3_1_7B, write_even, write_model};
use super::disk::{Disk, reclaims_memory};
use super::{machine, write_section};
use crate::tools::{cargo, run, target};
use baselines::Baselines;
use clap::{Args, ValueEnum};
use preparation::{INTERRUPTED, State, check_interrupted, preparation};
use results::{Figures, Results, Role, spread};
use rounds::{Case, report, shards, time};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use subjects::{FIRSTS, HALVES, LOADS, program};

const COLD_ZRAM: &str = "cold-zram";
const COLD_DISK: &str = "cold-disk";
const WARM: &str = "warm";
const HALF: &str = "half";
const FIRST: &str = "first";
/// Not a table: single figures of small checkpoints and of many tensors.
const FIGURES: &str = "figures";
/// Linux reports free pages to the host two seconds after some became free (`PAGE_REPORTING_IDLE`
/// in mm/page_reporting.c). A load during that report reads at half the rate.
const QUIET: Duration = Duration::from_secs(3);
/// The values of `--again`.
const TABLES: [&str; 8] = [COLD_ZRAM, "smaller-cold-zram", WARM, HALF, FIRST, FIGURES, COLD_DISK, "smaller-cold-disk"];

#[derive(Args)]
pub(crate) struct Options {
    /// Timed rounds, after one warm-up load of a smaller checkpoint
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Measure on one device only
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Check that the bench works: one round of a small checkpoint; installs nothing and writes no
    /// file
    #[arg(long)]
    quick: bool,
    /// Measure this table again and keep the others of the last run; repeat for more
    #[arg(long, value_name = "TABLE", value_parser = TABLES, conflicts_with_all = ["quick", "only", "redraw", "rounds"])]
    again: Vec<String>,
    /// Measure nothing; write the section and the figures from the results of the last run
    #[arg(long, conflicts_with = "quick")]
    redraw: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// ext4 on zram
    Zram,
    /// The build's disk
    Disk,
}

impl Options {
    /// Returns the file that holds the results.
    fn file(&self) -> PathBuf {
        target().join("bench").join(if self.quick { "load-quick.json" } else { "load.json" })
    }
}

/// Measures, and writes the section and the figures.
pub(crate) fn run_bench(options: &Options) -> Result<(), String> {
    let file = options.file();
    let results = if options.redraw {
        last(&file)?
    } else {
        let results = measure(options)?;
        keep(&results, &file)?;
        results
    };
    let section = report::section(&results);
    if options.quick {
        println!("\n{section}");
        return Ok(());
    }
    report::draw_figures(&results)?;
    write_section(report::HEADING, &section)
}

/// Reads the results of the last run.
fn last(file: &Path) -> Result<Results, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Stores the results so far. A run takes long; `--redraw` shows what an interrupted one measured.
fn keep(results: &Results, file: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(results).map_err(|error| error.to_string())?;
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn measure(options: &Options) -> Result<Results, String> {
    // Without a handler, Ctrl-C ends the program at once, and the next run cleans up.
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    run(cargo().args(["build", "--release", "--package", "floodtide-benches", "--bin", "subjects"]))?;
    fs::create_dir_all(target().join("bench")).map_err(|error| error.to_string())?;
    let baselines = Baselines::set_up(!options.quick);
    let mut results = if options.again.is_empty() {
        Results {
            machine: machine(),
            rounds: if options.quick { 1 } else { options.rounds.into() },
            quick: options.quick,
            reclaims_memory: reclaims_memory(),
            versions: versions(&baselines),
            tables: Vec::new(),
            figures: Figures::default(),
            left_out: Vec::new(),
            again: Vec::new(),
        }
    } else {
        last(&options.file())?
    };
    let mut run = Run { options, baselines: &baselines, results: &mut results, cold_only: false };
    if let Some(why) = baselines.missing() {
        run.leave_out(format!("every loader in Python: {why}"));
    }
    if options.only != Some(Only::Disk) && run.wants_any(&[COLD_ZRAM, &smaller(COLD_ZRAM), WARM, HALF, FIRST, FIGURES])
    {
        // Both models and the file system's own blocks.
        match Disk::zram(if options.quick { 1 << 30 } else { 6 << 30 }) {
            Ok(disk) => run.on(&disk, COLD_ZRAM)?,
            Err(why) => run.leave_out(format!("zram: {why}")),
        }
    }
    if options.only != Some(Only::Zram) && run.wants_any(&[COLD_DISK, &smaller(COLD_DISK)]) {
        run.on(&Disk::ordinary()?, COLD_DISK)?;
    }
    Ok(results)
}

/// Returns the table of the smaller model on the same device.
fn smaller(id: &str) -> String {
    format!("smaller-{id}")
}

fn versions(baselines: &Baselines) -> Vec<(String, String)> {
    let mut versions = vec![("floodtide".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    versions.extend(fio::version().ok().map(|version| ("fio".to_owned(), version)));
    versions.extend(baselines.versions());
    versions
}

struct Run<'a> {
    options: &'a Options,
    baselines: &'a Baselines,
    results: &'a mut Results,
    /// Whether the tables that do not depend on the device are done.
    cold_only: bool,
}

impl Run<'_> {
    /// Measures the tables of a device; on the first device also those that read from the page
    /// cache alone.
    fn on(&mut self, disk: &Disk, id: &str) -> Result<(), String> {
        let large = if self.options.quick { &QUICK } else { &QWEN3_1_7B };
        let folder = disk.path().join(large.name);
        println!("\nWriting checkpoints to {} ...", disk.name());
        write_model(&folder, large)?;
        let warm_up = disk.path().join("warm-up");
        write_model(&warm_up, &QUICK)?;
        check_interrupted()?;
        let device = disk.describe();
        let files = shards(&folder)?;
        let cold = self.wants_any(&[id, &smaller(id)]);
        let settings = || fio::version().and_then(|_| fio::best_two(&files, self.options.quick));
        let roofline = match if cold { settings() } else { Ok(Vec::new()) } {
            Ok(settings) => settings,
            Err(why) => {
                self.leave_out(format!("fio ({}): {why}", disk.name()));
                Vec::new()
            }
        };
        let loads = || LOADS.iter();
        let quiet = if self.results.reclaims_memory && !self.options.quick { QUIET } else { Duration::ZERO };
        self.time(Case {
            id: id.to_owned(),
            title: format!("{device}, cold page cache"),
            folder: &folder,
            warm_up: &warm_up,
            state: State::Cold,
            takes_memory: true,
            quiet,
            subjects: loads().filter(|subject| subject.id != "threads").collect(),
            roofline: &roofline,
        })?;
        if !self.options.quick && self.wants_any(&[&smaller(id)]) {
            let folder = disk.path().join(QWEN3_0_6B.name);
            write_model(&folder, &QWEN3_0_6B)?;
            self.time(Case {
                id: smaller(id),
                title: format!("{device}, cold page cache, Qwen3-0.6B's layout (1.1 GiB, 1 file)"),
                folder: &folder,
                warm_up: &warm_up,
                state: State::Cold,
                takes_memory: true,
                quiet,
                subjects: loads().filter(|subject| !matches!(subject.id, "threads" | "second")).collect(),
                roofline: &roofline,
            })?;
            // On zram, files take memory.
            fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        if std::mem::replace(&mut self.cold_only, true) {
            return Ok(());
        }
        self.time(Case {
            id: WARM.to_owned(),
            title: format!("{device}, warm page cache"),
            folder: &folder,
            warm_up: &warm_up,
            state: State::Warm,
            takes_memory: true,
            quiet,
            subjects: loads().filter(|subject| subject.id != "second").collect(),
            roofline: &[],
        })?;
        self.time(Case {
            id: HALF.to_owned(),
            title: format!("{device}, the first half of each file cached"),
            folder: &folder,
            warm_up: &warm_up,
            state: State::Half,
            takes_memory: true,
            quiet,
            subjects: HALVES.iter().collect(),
            roofline: &[],
        })?;
        self.time(Case {
            id: FIRST.to_owned(),
            title: "Mapped, warm page cache: time to the first tensor, 4 MiB".to_owned(),
            folder: &folder,
            warm_up: &warm_up,
            state: State::Warm,
            takes_memory: false,
            quiet,
            subjects: FIRSTS.iter().collect(),
            roofline: &[],
        })?;
        if !self.wants_any(&[FIGURES]) {
            return Ok(());
        }
        self.figures(disk.path())?;
        if !self.options.again.is_empty() {
            self.results.again.push("small checkpoints and many tensors".to_owned());
        }
        Ok(())
    }

    /// Returns true if the options select one of these tables.
    fn wants_any(&self, ids: &[&str]) -> bool {
        let again = &self.options.again;
        again.is_empty() || ids.iter().any(|id| again.iter().any(|wanted| wanted == id))
    }

    fn time(&mut self, mut case: Case<'_>) -> Result<(), String> {
        if !self.wants_any(&[&case.id]) {
            return Ok(());
        }
        let tables = &self.results.tables;
        let at = tables.iter().position(|table| table.id == case.id).unwrap_or(tables.len());
        if !self.options.again.is_empty() {
            let of_it = format!("({})", case.title);
            self.results.left_out.retain(|why| !why.contains(&of_it));
            self.results.tables.retain(|table| table.id != case.id);
            self.results.again.push(case.title.clone());
        }
        case.subjects.retain(|subject| subject.is_ours() || self.baselines.missing().is_none());
        let table = time(&case, self.baselines, self.results.rounds, &mut self.results.left_out)?;
        self.results.tables.insert(at, table);
        keep(self.results, &self.options.file())
    }

    /// Measures what repeats within one process.
    fn figures(&mut self, disk: &Path) -> Result<(), String> {
        println!("\nSmall checkpoints, and many tensors");
        let [small, scattered, many, few] = ["small", "scattered", "many", "few"].map(|name| disk.join(name));
        let (tensors, files, little) = if self.options.quick { (1000, 5, 200) } else { (100_000, 500, 20_000) };
        write_even(&small, 8, 125_000, 1)?;
        write_even(&scattered, tensors, 64, files)?;
        write_even(&many, little, 8192, 4)?;
        write_even(&few, 20, little / 20 * 8192, 4)?;
        let mut measured: [Vec<f64>; 4] = Default::default();
        for _ in 0..self.results.rounds {
            check_interrupted()?;
            let ask = |what: &str, folders: &[&Path]| {
                let mut files = Vec::new();
                for folder in folders {
                    files.extend(shards(folder)?);
                }
                let preparation = preparation(&files, State::Warm, None);
                report(Command::new(program()).arg(what).args(folders), &preparation)
            };
            let number = |report: &serde_json::Value, key: &str| report[key].as_f64().ok_or(format!("no {key}"));
            let report = ask("small", &[&small])?;
            measured[0].push(number(&report, "seconds")?);
            measured[1].push(number(&report, "read_seconds")?);
            measured[2].push(number(&ask("plan", &[&scattered])?, "seconds")?);
            measured[3].push(number(&ask("per-tensor", &[&many, &few])?, "seconds_per_tensor")?);
        }
        let [own, plain, plan, per_tensor] = measured.map(|values| spread(values)[1]);
        self.results.figures = Figures {
            small: Some((own, plain)),
            plan: Some((plan, tensors as u64)),
            seconds_per_tensor: Some(per_tensor),
        };
        Ok(())
    }

    fn leave_out(&mut self, why: String) {
        println!("{why}");
        self.results.left_out.push(why);
    }
}
