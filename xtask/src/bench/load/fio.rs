//! The roofline: fio's direct reads of the same files, with the settings that are fastest here.

use super::preparation::{State, check_interrupted, preparation};
use super::results::{Sample, spread};
use crate::tools::{run, works};
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    engine: &'static str,
    mib: u64,
    depth: u32,
    jobs: usize,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fio, {}, {} MiB, ", self.engine, self.mib)?;
        if self.engine != "psync" {
            write!(f, "depth {}, ", self.depth)?;
        }
        write!(f, "{} job{}", self.jobs, if self.jobs == 1 { "" } else { "s" })
    }
}

/// Returns fio's version.
pub(super) fn version() -> Result<String, String> {
    let missing = "fio is not installed, so there is no roofline".to_owned();
    if !works(Command::new("fio").arg("--version")) {
        return Err(missing);
    }
    let output = Command::new("fio").arg("--version").output().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches("fio-").to_owned())
}

/// The number of settings that are measured again, and how often.
const FINALISTS: usize = 8;
const TRIES: usize = 3;

/// Returns the two fastest settings. Each is measured once on a part of the files, then the best
/// several times.
pub(super) fn best_two(files: &[PathBuf], quick: bool) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    for jobs in [1, 2] {
        for mib in if quick { vec![2] } else { vec![1, 2, 4, 8] } {
            settings.push(Setting { engine: "psync", mib, depth: 1, jobs });
            for engine in ["io_uring", "libaio"] {
                settings.extend([4, 8, 32].map(|depth| Setting { engine, mib, depth, jobs }));
            }
        }
    }
    const PART: Option<u64> = Some(1 << 30);
    let mut tried = Vec::new();
    // The files were just written and are still in the page cache.
    let preparation = preparation(files, State::Cold, None);
    run(Command::new(&preparation[0]).args(&preparation[1..]))?;
    for setting in settings {
        check_interrupted()?;
        match read(setting, files, PART) {
            Ok(sample) => tried.push((sample.gib_per_second(), setting)),
            Err(why) => println!("{setting} is skipped: {why}"),
        }
    }
    let best_first = |tried: &mut Vec<(f64, Setting)>| tried.sort_by(|a, b| b.0.total_cmp(&a.0));
    best_first(&mut tried);
    if tried.is_empty() {
        return Err("fio cannot use direct I/O here, so there is no roofline".to_owned());
    }
    // On a shared machine, a single sample may be off by a factor of two.
    tried.truncate(FINALISTS);
    let mut rates = vec![Vec::new(); tried.len()];
    for _ in 0..TRIES {
        for ((_, setting), rates) in tried.iter().zip(&mut rates) {
            check_interrupted()?;
            rates.push(read(*setting, files, PART)?.gib_per_second());
        }
    }
    tried.iter_mut().zip(rates).for_each(|((rate, _), rates)| *rate = spread(rates)[1]);
    best_first(&mut tried);
    Ok(tried.into_iter().take(2).map(|(_, setting)| setting).collect())
}

/// Escapes a path for fio, which separates paths by colons.
fn name(path: &Path) -> String {
    path.to_string_lossy().replace(':', "\\:")
}

/// Reads the files once, or at most this many bytes of them.
pub(super) fn read(setting: Setting, files: &[PathBuf], at_most: Option<u64>) -> Result<Sample, String> {
    let mut fio = Command::new("fio");
    // Like the loads, read into huge pages (glibc 2.35), for which the kernel sends fewer and
    // longer requests to the disk.
    fio.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1").arg("--mem_align=2m");
    fio.args(["--output-format=json", "--group_reporting", "--readonly", "--rw=read", "--direct=1"]);
    fio.args(["--file_service_type=sequential", "--invalidate=0"]);
    fio.arg(format!("--ioengine={}", setting.engine));
    fio.arg(format!("--bs={}m", setting.mib)).arg(format!("--iodepth={}", setting.depth));
    if let Some(bytes) = at_most {
        fio.arg(format!("--io_size={}", bytes / setting.jobs as u64));
    }
    for job in 0..setting.jobs {
        fio.arg(format!("--name=job{job}"));
        if files.len() >= setting.jobs {
            let own: Vec<_> = files.iter().skip(job).step_by(setting.jobs).map(|path| name(path)).collect();
            fio.arg(format!("--filename={}", own.join(":")));
        } else {
            // Jobs that share a file each read a part of it.
            let path = files.first().ok_or("there are no files")?;
            let bytes = path.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len();
            let part = (bytes / setting.jobs as u64).next_multiple_of(8 << 20);
            let offset = part * job as u64;
            fio.arg(format!("--filename={}", name(path))).arg(format!("--offset={offset}"));
            fio.arg(format!("--size={}", part.min(bytes - offset)));
        }
    }
    let output = fio.output().map_err(|error| format!("fio: {error}"))?;
    // Messages may stand before the document.
    let text = String::from_utf8_lossy(&output.stdout);
    let document: Value = text.find('{').and_then(|at| serde_json::from_str(&text[at..]).ok()).unwrap_or_default();
    let job = &document["jobs"][0];
    let (bytes, milliseconds) = (job["read"]["io_bytes"].as_u64(), job["read"]["runtime"].as_f64());
    match (bytes, milliseconds) {
        (Some(bytes @ 1..), Some(milliseconds)) if output.status.success() && milliseconds > 0.0 => {
            let seconds = milliseconds / 1e3;
            Ok(Sample { bytes, seconds, cpu_seconds: None, memory_bytes: None, copied_bytes: None })
        }
        _ => Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it printed no error").to_owned()),
    }
}
