//! `floodtide demo`: writes a checkpoint of GPT-2's size and benchmarks it.

mod layout;
mod room;
mod write;

use crate::args::DemoArgs;
use crate::bench;
use crate::output::{self, Failure};
use layout::Spec;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    let specs = layout::gpt2(args.scale);
    let is_new = args.keep.as_ref().is_some_and(|keep| !keep.exists());
    let (folder, removed_on_drop) = folder(args, &specs)?;
    let kept = Arc::new(AtomicBool::new(false));
    remove_when_interrupted(folder.clone(), removed_on_drop.is_some() || is_new, Arc::clone(&kept));
    write::write(&folder, &specs, args.json)?;
    kept.store(removed_on_drop.is_none(), Ordering::Relaxed);
    bench::compare(&folder, args.json)?;
    if args.keep.is_some() && !args.json {
        let mut out = output::stdout();
        writeln!(out, "\nThe checkpoint is kept in {}", folder.display())?;
        out.flush()?;
    }
    Ok(())
}

/// Creates the folder to write to, if there is room. Also returns the guard that removes a
/// temporary folder.
fn folder(args: &DemoArgs, specs: &[Spec]) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let Some(keep) = &args.keep else {
        room::check(&std::env::temp_dir(), specs)?;
        let folder = tempfile::Builder::new().prefix("floodtide-demo-").tempdir().map_err(|error| {
            let parent = std::env::temp_dir();
            Failure::Failed(format!(
                "{}: cannot create a temporary folder: {error}; set TMPDIR or use --keep DIR",
                parent.display()
            ))
        })?;
        return Ok((folder.path().to_owned(), Some(folder)));
    };
    if keep.to_string_lossy().contains("://") {
        return Err(Failure::BadRequest(format!("{}: --keep needs a path, not a URI", keep.display())));
    }
    let failed = |error| Failure::Failed(format!("{}: cannot use the folder: {error}", keep.display()));
    let exists = keep.try_exists().map_err(failed)?;
    if exists && fs::read_dir(keep).map_err(failed)?.next().is_some() {
        let message = format!("{}: the folder is not empty; --keep needs a new or empty folder", keep.display());
        return Err(Failure::BadRequest(message));
    }
    room::check(keep, specs)?;
    fs::create_dir_all(keep).map_err(failed)?;
    Ok((keep.clone(), None))
}

/// Makes Ctrl-C and SIGTERM remove the files of the demo, unless they are complete and to be
/// `kept`. If the folder is the demo's own, it is removed too.
fn remove_when_interrupted(folder: PathBuf, own: bool, kept: Arc<AtomicBool>) {
    let empty = |folder: &Path| -> std::io::Result<()> {
        fs::read_dir(folder)?.try_for_each(|entry| fs::remove_file(entry?.path()))
    };
    let handler = move || {
        if !kept.load(Ordering::Relaxed) {
            // The writer may have added a file meanwhile, so retry.
            let _ = if own {
                fs::remove_dir_all(&folder).or_else(|_| fs::remove_dir_all(&folder))
            } else {
                empty(&folder).and_then(|()| empty(&folder))
            };
        }
        std::process::exit(130);
    };
    // Without the handler, an interrupted demo leaves its folder, which the system removes with
    // other temporary files.
    let _ = ctrlc::set_handler(handler);
}
