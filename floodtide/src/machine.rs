//! Examines and measures the machine and a path, with the platform's probes and the files of the
//! checkpoint.

use crate::discover::discover;
use crate::error::Error;
use crate::uri::Storages;
use floodtide_core::storage::StorageError;
use floodtide_linux::LocalStorage;
use floodtide_linux::doctor::{self, Finding};
use floodtide_linux::roofline::{self, Roofline};
use floodtide_linux::storage::names;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Examines this machine and a path: a checkpoint, or any file or folder on its device.
///
/// # Errors
/// Returns an error if the path cannot be examined.
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
    let path = &*local(path)?;
    let (files, refused) = match files_of(path) {
        Ok(files) => (files, Vec::new()),
        Err(Error::Storage(error @ StorageError::Failed { .. })) => (Vec::new(), vec![error]),
        Err(_) => (Vec::new(), Vec::new()),
    };
    Ok(doctor::examine(path, &files, refused)?)
}

/// Measures the device that a folder is on, in about `budget`. Calls `on_step` with a description
/// of each step.
///
/// # Errors
/// Returns an error if the folder is not a folder on a device, there is no file to read and none
/// can be written, or the system grants no memory.
pub fn measure(folder: &Path, budget: Duration, on_step: impl Fn(&str)) -> Result<Roofline, Error> {
    let folder = &*local(folder)?;
    Ok(roofline::measure(folder, files_of(folder).ok(), budget, on_step)?)
}

/// Returns the local path of a path or URI.
fn local(path: &Path) -> Result<PathBuf, Error> {
    // Without a storage of the user's, every scheme but that of local files is an error.
    Ok(Storages::default().local_path(path)?.unwrap_or_else(|| path.to_owned()))
}

/// Returns the local files of a checkpoint.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = discover(&LocalStorage::new(), &names::encode(path), None)?;
    Ok(found.files.iter().map(|name| names::decode(name)).collect())
}
