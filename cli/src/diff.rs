//! `floodtide diff`: lists the tensors that differ between two checkpoints.
//!
//! The exit codes are those of diff(1): 0 no difference, 1 a difference, 2 no comparison.

use crate::args::DiffArgs;
use crate::load::watched;
use crate::output::{self, Facts, Failure};
use floodtide::core::{ElementType, Escaped};
use floodtide::{ByteLocation, Change, Diff, Loader, StreamOptions, TensorDiff};
use serde_json::{Value, json};
use std::fmt;
use std::io::Write;

pub(crate) fn run(args: &DiffArgs) -> Result<(), Failure> {
    compare(args).map_err(|failure| match failure {
        Failure::Failed(_) | Failure::Library(_) => Failure::Undecided(Box::new(failure)),
        failure => failure,
    })
}

fn compare(args: &DiffArgs) -> Result<(), Failure> {
    let mut loader = Loader::new();
    if let Some(limit) = args.memory_limit {
        loader = loader.stream_options(StreamOptions::new().memory_limit(limit.as_u64()));
    }
    let diff = watched(loader, "comparing", args.json, |loader| loader.diff(&args.first, &args.second))?;
    output::warn(&diff.warnings);
    let shown = if args.json { output::print_json(&document(args, &diff)) } else { show(&diff) };
    output::exit_for(shown, diff.tensors.is_empty())
}

/// Formats one difference as a line.
struct Line<'a>(&'a TensorDiff);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Escaped(&self.0.name);
        match &self.0.change {
            Change::Removed => write!(f, "removed  {name}"),
            Change::Added => write!(f, "added    {name}"),
            Change::Kind { dtypes: [from, to], shapes: [before, after] } => {
                write!(f, "changed  {name}: {from} {before:?} became {to} {after:?}")
            }
            Change::Content { range, bytes, locations: [a, b] } => {
                let location = |location: &ByteLocation| {
                    format!("{} bytes {}..{}", Escaped(&location.file), location.range.start, location.range.end)
                };
                let (start, end) = (range.start, range.end);
                let verb = if *bytes == 1 { "differs" } else { "differ" };
                write!(
                    f,
                    "content  {name}: {} {} within {start}..{end} ({}; {})",
                    if *bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") },
                    verb,
                    location(a),
                    location(b)
                )
            }
            _ => write!(f, "differs  {name}"),
        }
    }
}

fn show(diff: &Diff) -> Result<(), Failure> {
    let mut out = output::stdout();
    for tensor in &diff.tensors {
        writeln!(out, "{}", Line(tensor))?;
    }
    let count = |is: fn(&Change) -> bool| diff.tensors.iter().filter(|tensor| is(&tensor.change)).count();
    let counts = format!(
        "{} same, {} with different content, {} changed, {} removed, {} added",
        diff.same,
        count(|change| matches!(change, Change::Content { .. })),
        count(|change| matches!(change, Change::Kind { .. })),
        count(|change| *change == Change::Removed),
        count(|change| *change == Change::Added),
    );
    let rate = output::gib_per_second(diff.bytes, diff.elapsed);
    let time = output::duration(diff.elapsed);
    let formats = format!("{} and {}", diff.first.format(), diff.second.format());
    let compared = format!("{} of each in {time}, {rate:.2} GiB/s", output::bytes(diff.bytes));
    write!(out, "{}", Facts(vec![("formats", formats), ("tensors", counts), ("compared", compared)]))?;
    Ok(out.flush()?)
}

fn document(args: &DiffArgs, diff: &Diff) -> Value {
    let side = |path: &std::path::Path, catalog: &floodtide::Catalog| json!({"path": path.to_string_lossy(), "format": catalog.format().name(), "tensors": catalog.len()});
    json!({
        "a": side(&args.first, &diff.first),
        "b": side(&args.second, &diff.second),
        "same": diff.tensors.is_empty(),
        "same_tensors": diff.same,
        "differences": diff.tensors.iter().map(row).collect::<Vec<_>>(),
        "bytes": diff.bytes,
        "seconds": diff.elapsed.as_secs_f64(),
        "warnings": output::texts(&diff.warnings),
    })
}

fn location(ByteLocation { file, range }: &ByteLocation) -> Value {
    json!({"file": file, "start": range.start, "end": range.end})
}

fn row(TensorDiff { name, change, .. }: &TensorDiff) -> Value {
    let kind = |dtype: &ElementType, shape: &[u64]| json!({"dtype": dtype.name(), "shape": shape});
    match change {
        Change::Removed => json!({"tensor": name, "change": "removed"}),
        Change::Added => json!({"tensor": name, "change": "added"}),
        Change::Kind { dtypes, shapes } => json!({
            "tensor": name, "change": "kind", "a": kind(&dtypes[0], &shapes[0]), "b": kind(&dtypes[1], &shapes[1]),
        }),
        Change::Content { range, bytes, locations: [a, b] } => json!({
            "tensor": name, "change": "content", "start": range.start, "end": range.end, "bytes": bytes,
            "a": location(a), "b": location(b),
        }),
        _ => json!({"tensor": name, "change": "other"}),
    }
}
