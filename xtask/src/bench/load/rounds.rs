//! Times loads in interleaved rounds, each in a process of its own.

use super::baselines::Baselines;
use super::fio::{self, Setting};
use super::memory_balloon::MemoryBalloon;
use super::preparation::{State, check_interrupted, preparation};
use super::results::{Role, Row, Sample, Table};
use super::subjects::Subject;
use crate::tools::run;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a failed preparation of the files is repeated.
const PREPARATIONS: usize = 4;

/// One table to measure.
pub(super) struct Case<'a> {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) folder: &'a Path,
    /// A smaller checkpoint that each loader loads once, untimed, so that its code is in memory.
    pub(super) warm_up: &'a Path,
    pub(super) state: State,
    /// Whether the loads take memory for the tensors.
    pub(super) takes_memory: bool,
    /// How long the memory balloon is held, so that no free memory is left to return to the host
    /// when the clock starts.
    pub(super) quiet: Duration,
    pub(super) subjects: Vec<&'a Subject>,
    /// The settings of fio to time in the same rounds.
    pub(super) roofline: &'a [Setting],
}

enum Runner<'a> {
    Subject(&'a Subject),
    Fio(Setting),
}

/// Returns the shards of a folder, sorted.
pub(super) fn shards(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut shards: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    shards.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    shards.sort();
    Ok(shards)
}

/// Times the loads of a case after a warm-up round. A peer that fails is skipped, with a line in
/// `left_out`.
pub(super) fn time(
    case: &Case<'_>,
    baselines: &Baselines,
    rounds: usize,
    left_out: &mut Vec<String>,
) -> Result<Table, String> {
    println!("\n{}", case.title);
    let mut runners: Vec<(Runner<'_>, Row)> = Vec::new();
    for &setting in case.roofline {
        let row = row(&setting.to_string(), &setting.to_string(), Role::Roofline);
        runners.push((Runner::Fio(setting), row));
    }
    runners.extend(
        case.subjects.iter().map(|subject| (Runner::Subject(subject), row(subject.id, subject.name, subject.role))),
    );
    // Enough for a load that holds everything twice, or once beside the page cache.
    let room = 2 * bytes(&shards(case.folder)?);
    for round in 0..=rounds {
        let folder = if round == 0 { case.warm_up } else { case.folder };
        let files = shards(folder)?;
        let order = order(runners.len(), round);
        let mut failed = Vec::new();
        for i in order {
            check_interrupted()?;
            // Right after the load before, while its memory is not yet returned. A load that takes
            // no memory needs none.
            let balloon = if case.takes_memory { Some(MemoryBalloon::hold(room)?) } else { None };
            if balloon.is_some() {
                std::thread::sleep(case.quiet);
            }
            let preparation = preparation(&files, case.state, balloon.as_ref());
            let (runner, row) = &mut runners[i];
            let mut once = || match runner {
                Runner::Fio(setting) => {
                    run(Command::new(&preparation[0]).args(&preparation[1..]))?;
                    fio::read(*setting, &files, None).map(|sample| (sample, None))
                }
                Runner::Subject(subject) => load(subject, folder, &files, &preparation, baselines),
            };
            let mut result = once();
            // The load has not begun, and the memory balloon is still held.
            for _ in 0..PREPARATIONS {
                if !result.as_ref().is_err_and(|why| why.contains("preparing: ")) {
                    break;
                }
                check_interrupted()?;
                result = once();
            }
            check_interrupted()?;
            match result {
                Ok((sample, note)) if round > 0 => {
                    row.samples.push(sample);
                    row.note = note;
                }
                Ok(_) => {}
                Err(why) if matches!(row.role, Role::BaselineOwned | Role::BaselineMapped | Role::Roofline) => {
                    left_out.push(format!("{} ({}): {why}", row.name, case.title));
                    failed.push(i);
                }
                Err(why) => return Err(format!("{}: {why}", row.name)),
            }
        }
        failed.sort_unstable_by(|a, b| b.cmp(a));
        for i in failed {
            runners.remove(i);
        }
        print!("{}", if round == 0 { "  warmed up" } else { " ." });
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }
    println!();
    Ok(Table {
        id: case.id.clone(),
        title: case.title.clone(),
        rows: runners.into_iter().map(|(_, row)| row).collect(),
    })
}

fn bytes(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn row(subject: &str, name: &str, role: Role) -> Row {
    Row { subject: subject.to_owned(), name: name.to_owned(), role, samples: Vec::new(), note: None }
}

/// Returns an order in which each load has another predecessor in each round, where the count
/// allows: it steps by a stride that is coprime to the count.
fn order(count: usize, round: usize) -> Vec<usize> {
    fn divisor(a: usize, b: usize) -> usize {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let strides: Vec<usize> = (1..count.max(2)).filter(|&stride| divisor(count, stride) == 1).collect();
    let stride = strides.get(round % strides.len().max(1)).copied().unwrap_or(1);
    (0..count).map(|i| (i * stride + round) % count).collect()
}

fn load(
    subject: &Subject,
    folder: &Path,
    files: &[PathBuf],
    preparation: &[String],
    baselines: &Baselines,
) -> Result<(Sample, Option<String>), String> {
    let report = report(&mut subject.command(folder, files, baselines)?, preparation)?;
    let missing = |key: &str| format!("{} reports no {key}", subject.name);
    let seconds = |key: &str| report[key].as_f64().ok_or_else(|| missing(key));
    let bytes = |key: &str| report[key].as_u64().ok_or_else(|| missing(key));
    let sample = Sample {
        bytes: bytes("bytes")?,
        seconds: seconds("seconds")?,
        cpu_seconds: Some(seconds("cpu_seconds")?),
        memory_bytes: Some(bytes("peak_bytes")?.saturating_sub(bytes("before_bytes")?)),
        copied_bytes: report["copied_bytes"].as_u64(),
    };
    Ok((sample, report["note"].as_str().map(str::to_owned)))
}

/// Runs a program and returns its report: the last line, as JSON.
pub(super) fn report(command: &mut Command, preparation: &[String]) -> Result<Value, String> {
    let output = command.env("BENCH_PREPARE", json!(preparation).to_string()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("it cannot be started: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(text.lines().last().map_or_else(|| output.status.to_string(), str::to_owned));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(|error| format!("its report: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_round_has_every_subject_once_and_neighbours_change() {
        for count in [1, 2, 6, 17, 19] {
            let mut pairs = BTreeSet::new();
            for round in 0..6 {
                let order = order(count, round);
                assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), count, "{count}");
                pairs.extend(order.windows(2).map(|pair| (pair[0], pair[1])));
            }
            if count > 12 {
                assert!(pairs.len() >= 6 * (count - 1), "{count}: {}", pairs.len());
            }
        }
    }
}
