//! `floodtide bench`: every way to load a checkpoint against the others, and against what the storage gives at most.
//!
//! Each load is a process of its own ([`child`]), so that its peak memory is its own and no way inherits another's memory. Loads
//! are interleaved in shuffled order ([`rounds`]), the page cache is brought into the same state before each ([`cache`]), and
//! the storage's own limit is measured in between ([`roofline`]). The demo is the same, of a checkpoint that it writes.

mod cache;
mod child;
mod machine;
mod notes;
mod plot;
mod roofline;
mod rounds;
mod show;
mod subject;
mod unchanged;

pub(crate) use child::run_one;

use crate::args::{BenchArgs, RUNS};
use crate::output::{self, Failure};
use rounds::{Options, Results};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use subject::Subject;

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let options = Options {
        path: args.path.clone(),
        cold: args.cold,
        runs: args.runs.get(),
        subjects: Subject::chosen(&args.backends),
        quiet: args.json,
    };
    // Whether it can be written is told now, not after minutes of loads.
    let plot = args.plot.as_deref().map(Plot::create).transpose()?;
    let results = rounds::measure(&options)?;
    // Minutes of loads are told, whatever becomes of the figure; and drawn, although nobody reads on.
    let printed = print(&results, args.json);
    plot.map_or(Ok(()), |plot| plot.draw(&results))?;
    printed
}

/// Every way to load the demo's checkpoint, cold.
pub(crate) fn compare(folder: &Path, json: bool) -> Result<(), Failure> {
    let (path, subjects) = (folder.to_owned(), Subject::all());
    print(&rounds::measure(&Options { path, cold: true, runs: RUNS.get(), subjects, quiet: json })?, json)
}

fn print(results: &Results, json: bool) -> Result<(), Failure> {
    output::warn(&results.warnings());
    if json {
        return output::print_json(&show::document(results));
    }
    let mut out = output::stdout();
    show::table(&mut out, results)?;
    Ok(out.flush()?)
}

/// The figure's file, which can be written. An earlier figure stays until there is something to draw; where there is none, nothing is left
/// if it does not come to that.
struct Plot<'a> {
    path: &'a Path,
    new: bool,
}

impl<'a> Plot<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        if path.extension().is_none_or(|extension| extension != "svg") {
            let message = format!("{}: the figure is an SVG; name it so: --plot FILE.svg", path.display());
            return Err(Failure::BadRequest(message));
        }
        let tried = match File::create_new(path) {
            Ok(_) => fs::remove_file(path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                File::options().write(true).create(true).truncate(false).open(path).map(|_| false)
            }
            Err(error) => Err(error),
        };
        Ok(Self { path, new: tried.map_err(|error| Self::failed(path, &error))? })
    }

    fn draw(self, results: &Results) -> Result<(), Failure> {
        fs::write(self.path, plot::draw(results)).map_err(|error| {
            if self.new {
                // Half a figure is none; and the error to tell is the first one.
                let _ = fs::remove_file(self.path);
            }
            Self::failed(self.path, &error)
        })
    }

    fn failed(path: &Path, error: &io::Error) -> Failure {
        Failure::Failed(format!(
            "{}: cannot write the figure: {error}; name a file in a folder that is there",
            path.display()
        ))
    }
}

/// What all loads are of.
struct Checkpoint {
    path: PathBuf,
    files: Vec<PathBuf>,
    file_bytes: u64,
    tensors: usize,
    /// Of the tensors.
    bytes: u64,
}
