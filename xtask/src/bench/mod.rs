//! `cargo xtask bench`: measures, and writes the results to `benches/RESULTS.md`, one section per
//! bench.

mod checkpoint;
mod disk;
pub(crate) mod load;
pub(crate) mod pool;
pub(crate) mod stream;

use crate::tools::root;
use std::fs;
use std::process::Command;

const HEAD: &str = "# Results

`cargo xtask bench` measures these results and rewrites one section per run. Compare figures within
a section only: machines and conditions differ between runs.

[docs/benchmarking.md](../docs/benchmarking.md) says how to repeat the measurements.
";

/// Describes the machine in one line: date, CPUs, kernel.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": an unknown processor");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().map(|output| output.stdout).unwrap_or_default();
    format!(
        "{} on {cpus} CPUs ({}), Linux {}",
        String::from_utf8_lossy(&date).trim(),
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim()
    )
}

/// Replaces the section with the same heading, or adds one at the end. Paragraphs are wrapped.
pub(crate) fn write_section(heading: &str, section: &str) -> Result<(), String> {
    let is_prose = |line: &&str| !line.starts_with(['#', '|', '!', '-']);
    let width = textwrap::Options::new(100).word_splitter(textwrap::WordSplitter::NoHyphenation);
    let wrap = |line| if is_prose(&line) { textwrap::fill(line, &width) } else { line.to_owned() };
    let section = section.lines().map(wrap).collect::<Vec<_>>().join("\n") + "\n";
    let path = root().join("benches/RESULTS.md");
    let old = fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
    let new = match old.find(heading) {
        Some(start) => {
            let rest = &old[start + heading.len()..];
            let end = rest.find("\n## ").map_or(old.len(), |at| start + heading.len() + at + 1);
            format!(
                "{}{section}{}",
                &old[..start],
                if end < old.len() { format!("\n{}", &old[end..]) } else { String::new() }
            )
        }
        None => format!("{}\n{section}", old.trim_end_matches('\n').to_owned() + "\n"),
    };
    fs::write(&path, new).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
