//! Writes the section of `benches/RESULTS.md` and its figures.

use super::plot::{Bar, Panel, draw};
use super::results::{Results, Role, Table};
use super::targets::{Limit, targets};
use super::{COLD_DISK, COLD_ZRAM, FIRST, HALF, WARM};
use crate::tools::root;
use std::fmt::Write;

pub(super) const HEADING: &str = "## Loading";

/// Explains the rows without a loader.
const HALF_NOTE: &str =
    "\nThe two rows of threads read without a loader. They show the best that one method alone can do.\n";

/// The tables that have a figure.
const FIGURES: [&str; 3] = [COLD_ZRAM, WARM, COLD_DISK];

pub(super) fn section(results: &Results) -> String {
    let quick =
        if results.quick { "A quick run of about 100 MiB: it shows only that the bench works.\n\n" } else { "" };
    let mut text = format!(
        "{HEADING}\n\n`cargo xtask bench load`, {}.\n\n{quick}Each loader loads a checkpoint of Qwen3-1.7B's layout (3.2 GiB, 4 shards) in its own process and touches one \
         byte of each page of every tensor. The time runs from the call, after imports, to the last byte touched. Figures are medians of {} interleaved rounds, with the slowest and the \
         fastest. Each round has another order. Every loader first loads a smaller checkpoint once, which is not counted. CPU is the user and system time of all threads. Memory is what the \
         load added to the process at its peak.\n\n*Cold*: the files' pages are dropped just before the load and checked to be gone. Nothing else is dropped, so no library reads its own \
         code in the middle of a run. ",
        results.machine, results.rounds
    );
    text += "Before each run a program takes memory of twice the checkpoint's size in huge pages and frees it just before the clock starts";
    text += if results.reclaims_memory {
        ", after holding it for three seconds. Without that, each loader would pay for the one before it, because this virtual machine returns free memory to its host after a while and gets \
         it back slowly.\n"
    } else {
        ".\n"
    };
    text += "\nOther loaders are called as their documentation shows (`benches/baselines`). Versions: ";
    let versions: Vec<_> = results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(text, "{}.", versions.join(", "));
    if !results.again.is_empty() {
        let _ = writeln!(text, "\nMeasured again in a later run: {}.", results.again.join("; "));
    }
    let targets = targets(results);
    let met = targets.iter().filter(|target| target.met() == Some(true)).count();
    let judged = targets.iter().filter(|target| target.met().is_some()).count();
    let _ = write!(
        text,
        "\n### Targets\n\n{met} of {judged} are met. *Owned* tensors are copies in memory of their own; *mapped* tensors are views of the page cache. fio makes direct reads into huge \
         pages that it reuses, with the two fastest of 56 settings.\n\n| | target | measured | |\n|---|---:|---:|---|\n"
    );
    for target in targets {
        let _ = match target.measured {
            Some((measured, limit)) => {
                let limit = match limit {
                    Limit::AtLeast(least) => format!("≥ {least}"),
                    Limit::AtMost(most) => format!("≤ {most}"),
                };
                let met = if target.met() == Some(true) { "met" } else { "**missed**" };
                writeln!(text, "| {} | {limit} | {measured:.2} | {met} |", target.what)
            }
            None => writeln!(text, "| {} | | | not measured |", target.what),
        };
    }
    for table in &results.tables {
        if table.id == FIRST { first(&mut text, table) } else { rates(&mut text, table) }
    }
    if !results.left_out.is_empty() {
        text += "\n### Skipped\n\n";
        results.left_out.iter().for_each(|why| _ = writeln!(text, "- {why}"));
    }
    text
}

fn rates(text: &mut String, table: &Table) {
    let _ = writeln!(text, "\n### {}\n", table.title);
    if FIGURES.contains(&table.id.as_str()) {
        let _ = writeln!(text, "![GiB/s of each loader](../{})\n", figure_path(&table.id));
    }
    text.push_str("| | GiB/s | to auto | CPU s/GiB | memory |\n|---|---:|---:|---:|---:|\n");
    let mut rows: Vec<_> = table.rows.iter().collect();
    rows.sort_by(|a, b| b.rate().total_cmp(&a.rate()));
    let auto = table.rate("auto").unwrap_or(f64::NAN);
    for row in rows {
        let [least, rate, most] = row.rates();
        let cpu = row.cpu_seconds_per_gib().map_or("–".to_owned(), |seconds| format!("{seconds:.2}"));
        let memory = row.memory_bytes().map_or("–".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let name = if row.role == Role::Auto { format!("**{}**", row.name) } else { row.name.clone() };
        let _ =
            writeln!(text, "| {name} | {rate:.2} ({least:.2} – {most:.2}) | {:.2} | {cpu} | {memory} |", rate / auto);
    }
    if let Some(note) = table.row("auto").and_then(|row| row.note.as_ref()) {
        let _ = writeln!(text, "\nauto chose {note}.");
    }
    if table.id == HALF {
        text.push_str(HALF_NOTE);
    }
}

fn first(text: &mut String, table: &Table) {
    let _ = writeln!(text, "\n### {}\n\n| | ms |\n|---|---:|", table.title);
    for row in &table.rows {
        let [least, median, most] = row.seconds().map(|seconds| seconds * 1e3);
        let _ = writeln!(text, "| {} | {median:.2} ({least:.2} – {most:.2}) |", row.name);
    }
}

fn figure_path(id: &str) -> String {
    format!("docs/load-{id}.svg")
}

/// Draws the figures.
pub(super) fn draw_figures(results: &Results) -> Result<(), String> {
    for table in results.tables.iter().filter(|table| FIGURES.contains(&table.id.as_str())) {
        let bar = |row: &super::results::Row| Bar { subject: row.name.clone(), rates: row.rates(), role: row.role };
        let mut bars: Vec<Bar> = table.rows.iter().map(bar).collect();
        bars.sort_by(|a, b| b.rates[1].total_cmp(&a.rates[1]));
        let path = root().join(figure_path(&table.id));
        let figure = draw(&[Panel { title: table.title.clone(), bars }], &results.machine);
        std::fs::write(&path, figure).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
