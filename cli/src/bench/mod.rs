//! `floodtide bench`: compares every way to load a checkpoint with the others and with the limit of
//! the storage.
//!
//! Each load runs in its own process ([`child`]), so that its peak memory is its own and no load
//! inherits memory from another. Loads are interleaved in shuffled order ([`rounds`]). The page
//! cache is brought into the same state before each ([`cache`]), and the limit of the storage is
//! measured in between ([`roofline`]). The demo does the same with a checkpoint that it writes.

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
    // A figure that cannot be written fails now, not after minutes of loads.
    let plot = args.plot.as_deref().map(Plot::create).transpose()?;
    let results = rounds::measure(&options)?;
    // The results are printed even if the figure fails, and the figure is drawn even if stdout is
    // closed.
    let printed = print(&results, args.json);
    plot.map_or(Ok(()), |plot| plot.draw(&results))?;
    printed
}

/// Benchmarks the demo's checkpoint, cold.
pub(crate) fn compare(folder: &Path, json: bool) -> Result<(), Failure> {
    let (path, subjects) = (folder.to_owned(), Subject::all());
    print(&rounds::measure(&Options { path, cold: true, runs: RUNS.get(), subjects, quiet: json })?, json)
}

fn print(results: &Results, json: bool) -> Result<(), Failure> {
    results.warnings().iter().for_each(|warning| output::complain("warning", warning));
    if json {
        return output::print_json(&show::document(results));
    }
    let mut out = output::stdout();
    show::table(&mut out, results)?;
    Ok(out.flush()?)
}

/// The figure's file, which has been checked to be writable.
///
/// An earlier figure stays until the new one is drawn. A file that this command created is removed
/// if the bench fails.
struct Plot<'a> {
    path: &'a Path,
    new: bool,
}

impl<'a> Plot<'a> {
    fn create(path: &'a Path) -> Result<Self, Failure> {
        if path.extension().is_none_or(|extension| extension != "svg") {
            let message = format!("{}: the figure is an SVG, so its name must end in .svg", path.display());
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
                // Half a figure is useless, and the first error is the one to report.
                let _ = fs::remove_file(self.path);
            }
            Self::failed(self.path, &error)
        })
    }

    fn failed(path: &Path, error: &io::Error) -> Failure {
        Failure::Failed(format!(
            "{}: cannot write the figure: {error}; its folder must exist and be writable",
            path.display()
        ))
    }
}

/// The checkpoint that all runs load.
struct Checkpoint {
    path: PathBuf,
    files: Vec<PathBuf>,
    file_bytes: u64,
    tensors: usize,
    /// The bytes of the tensors.
    bytes: u64,
}
