//! The machine and a path, examined and measured: probes of the platform that are told which files a checkpoint has.

use crate::discover::discover;
use crate::error::Error;
use floodtide_core::storage::StorageError;
use floodtide_linux::LocalStorage;
use floodtide_linux::doctor::{self, Finding};
use floodtide_linux::roofline::{self, ProbeError, Roofline};
use floodtide_linux::storage::names;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Examines this machine, and the path of a checkpoint or of anything beside it.
///
/// # Errors
/// When the path cannot be examined.
///
/// ```no_run
/// use floodtide::doctor::Status;
/// use std::path::Path;
///
/// for finding in floodtide::examine(Path::new("/models"))? {
///     if finding.status != Status::Good {
///         println!("{}: {}", finding.name, finding.meaning);
///     }
/// }
/// # Ok::<(), floodtide::Error>(())
/// ```
pub fn examine(path: &Path) -> Result<Vec<Finding>, Error> {
    let (files, refused) = match files_of(path) {
        Ok(files) => (files, Vec::new()),
        Err(Error::Storage(error @ StorageError::Failed { .. })) => (Vec::new(), vec![error]),
        Err(_) => (Vec::new(), Vec::new()),
    };
    Ok(doctor::examine(path, &files, refused)?)
}

/// Measures the device under a folder in about `budget`; `told` is called with what is being done.
///
/// # Errors
/// When there is nothing to read and nothing can be written, or the system gives no memory.
pub fn measure(folder: &Path, budget: Duration, told: impl Fn(&str)) -> Result<Roofline, ProbeError> {
    roofline::measure(folder, files_of(folder).ok(), budget, told)
}

/// The local files of a checkpoint.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = discover(&LocalStorage::new(), &names::encode(path), None)?;
    Ok(found.files.iter().map(|name| names::decode(name)).collect())
}
