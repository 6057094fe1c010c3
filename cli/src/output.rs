//! Prints results, progress, warnings and failures.

use crate::hints;
use floodtide::core::strategy::Decision;
use floodtide::core::{Escaped, HumanBytes, Progress};
use floodtide::{Error, ErrorKind, RouteReport, Warning};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Why a command failed, by exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library: 2 if the request is at fault, otherwise 1.
    Library(Box<Error>),
    /// The command line is wrong: 2.
    BadRequest(String),
    /// The checkpoint or the I/O failed: 1.
    Failed(String),
    /// Ctrl-C or SIGTERM ended it: 130.
    Interrupted,
    /// A comparison found a difference, and the command has reported it: 1.
    Differs,
    /// The comparison could not be made, for this reason: 2.
    Undecided(Box<Self>),
    /// The reader of stdout has closed it.
    PipeClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(Box::new(error))
    }
}

impl Failure {
    /// Prints the failure of `command`, with a hint where its flags help, and returns the exit
    /// code.
    pub(crate) fn report(&self, command: &str) -> u8 {
        match self {
            // The reader of stdout has closed it, as `head` does; that is no failure.
            Self::PipeClosed => 0,
            Self::Interrupted => 130,
            Self::Differs => 1,
            Self::Library(error) => {
                complain("error", &error.to_string());
                if let Some(hint) = hints::of_error(command, error) {
                    complain("hint", &hint);
                }
                if is_usage(error) { 2 } else { 1 }
            }
            Self::BadRequest(message) => {
                complain("error", message);
                2
            }
            Self::Failed(message) => {
                complain("error", message);
                1
            }
            Self::Undecided(failure) => {
                failure.report(command);
                2
            }
        }
    }
}

impl From<floodtide::core::Error> for Failure {
    fn from(error: floodtide::core::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Failed(format!("cannot write to standard output: {error}"))
        }
    }
}

/// Returns true if an error is the fault of the command line. No other code decides that.
pub(crate) fn is_usage(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidRequest
}

/// Returns the result of a comparison, also if the reader closed stdout (`floodtide diff A B |
/// head`).
pub(crate) fn exit_for(shown: Result<(), Failure>, same: bool) -> Result<(), Failure> {
    match shown {
        Ok(()) | Err(Failure::PipeClosed) if !same => Err(Failure::Differs),
        shown => shown,
    }
}

/// Returns a buffered stdout, whose failures are errors where `println!` would panic.
pub(crate) fn stdout() -> io::BufWriter<io::StdoutLock<'static>> {
    io::BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Prints the JSON document of `--json`.
pub(crate) fn print_json(document: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer_pretty(&mut out, document).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Returns the files that a decision concerns, if it does not concern all.
fn scope<'a>(decision: &Decision, routes: &'a [RouteReport]) -> Option<&'a [String]> {
    let route = decision.route.filter(|_| routes.len() > 1)?;
    Some(&routes.get(route.index())?.files)
}

/// Returns the rows of a document's `decisions`. With several routes, a row lists its files.
pub(crate) fn decisions(decisions: &[Decision], routes: &[RouteReport]) -> Vec<Value> {
    let row = |decision: &Decision| {
        let mut row = json!({"what": decision.what, "why": decision.why});
        if let Some(files) = scope(decision, routes) {
            row["files"] = json!(files);
        }
        row
    };
    decisions.iter().map(row).collect()
}

/// Returns the lines about the backends: their names, then the decisions of the load, one per line.
/// With several routes, a line names its files.
pub(crate) fn backend_facts(decisions: &[Decision], routes: &[RouteReport]) -> Vec<(&'static str, String)> {
    let backends: Vec<&str> = routes.iter().map(|route| route.backend.name()).collect();
    let mut facts = vec![("backend", backends.join(", "))];
    facts.extend(decisions.iter().map(|decision| {
        let Decision { what, why, .. } = decision;
        let line = match scope(decision, routes) {
            None | Some([]) => format!("  {what}: {why}"),
            Some([file]) => format!("  {what} ({}): {why}", Escaped(file)),
            Some([first, others @ ..]) => {
                format!("  {what} ({} and {}): {why}", Escaped(first), count(others.len(), "other file"))
            }
        };
        ("", line)
    }));
    facts
}

pub(crate) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        complain("warning", &warning.to_string());
        if let Some(hint) = hints::of_warning(warning) {
            complain("hint", hint);
        }
    }
}

/// Returns the texts of warnings, for a JSON document.
pub(crate) fn texts(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

/// Prints a line to stderr. If stderr is full or closed, the line is lost, but the exit code still
/// reports the failure.
pub(crate) fn complain(kind: &str, message: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {message}");
}

/// Returns a bar with rate and remaining time on stderr, if stderr is a terminal.
pub(crate) fn progress_bar(message: impl Into<Cow<'static, str>>) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(0);
    let template = "{msg} [{bar:32}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(message);
    Some(bar)
}

pub(crate) fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
    if progress.bytes_done >= progress.bytes_total {
        bar.finish_and_clear();
    }
}

/// Returns the peak resident memory of this process in bytes.
pub(crate) fn peak_rss_bytes() -> u64 {
    // Not ru_maxrss: the process inherits it through exec from its parent.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib * 1024
}

/// Returns bytes over time in GiB/s, or 0 if no time has passed.
pub(crate) fn gib_per_second(bytes: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { bytes as f64 / f64::from(1 << 30) / seconds } else { 0.0 }
}

/// Formats a duration with three significant digits: "84.2 µs", "203 ms", "2.25 s".
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    // A unit ends where rounding would reach the next one.
    let (value, unit) = match seconds {
        s if s < 999.5e-6 => (s * 1e6, "µs"),
        s if s < 999.5e-3 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Lines of "name  value" with the values in one column.
pub(crate) struct Facts(pub(crate) Vec<(&'static str, String)>);

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name:width$}  {value}"))
    }
}

/// Formats a count with its noun: "1 file", "2 files".
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Formats a size, with the exact number of bytes if the unit hides it.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1024 { HumanBytes(n).to_string() } else { format!("{} ({n} bytes)", HumanBytes(n)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide::backend::{PREAD, URING};
    use floodtide::core::RouteId;

    #[test]
    fn a_decision_names_its_files_if_there_are_several_routes() {
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let of = |backend, names: &[&str]| RouteReport::new(backend, files(names));
        let routes = [of(URING, &["a", "b\u{1b}", "c"]), of(PREAD, &["d"]), of(PREAD, &[])];
        let made = vec![
            Decision::new("reads", "direct").of_route(RouteId(0)),
            Decision::new("reads", "buffered").of_route(RouteId(1)),
            Decision::new("memory", "reused"),
        ];
        let lines = |routes: &[RouteReport]| -> Vec<String> {
            backend_facts(&made, routes).into_iter().map(|(_, line)| line).collect()
        };
        assert_eq!(
            lines(&routes),
            [
                "uring, pread, pread",
                "  reads (a and 2 other files): direct",
                "  reads (d): buffered",
                "  memory: reused"
            ]
        );
        assert_eq!(lines(&routes[..1]), ["uring", "  reads: direct", "  reads: buffered", "  memory: reused"]);
        let rows = decisions(&made, &routes);
        assert_eq!(rows[0], json!({"what": "reads", "why": "direct", "files": ["a", "b\u{1b}", "c"]}));
        assert_eq!(rows[2], json!({"what": "memory", "why": "reused"}));
        assert_eq!(decisions(&made, &routes[..1])[0], json!({"what": "reads", "why": "direct"}));
    }

    #[test]
    fn times_have_three_digits_and_the_unit_that_fits() {
        for (nanoseconds, shown) in [
            (0, "0.00 µs"),
            (84, "0.08 µs"),
            (1_234, "1.23 µs"),
            (9_996, "10.0 µs"),
            (999_400, "999 µs"),
            (999_500, "1.00 ms"),
            (84_240_000, "84.2 ms"),
            (203_400_000, "203 ms"),
            (999_600_000, "1.00 s"),
            (2_251_000_000, "2.25 s"),
            (99_960_000_000, "100 s"),
            (12_345_000_000_000, "12345 s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), shown);
        }
    }
}
