//! The machine and a path, examined and measured: probes of the platform that are told which files a checkpoint has.

use crate::error::Error;
use crate::locate::locate;
use floodtide_linux::Error as FileError;
use floodtide_linux::probe::doctor::{self, Finding};
use floodtide_linux::probe::roofline::{self, ProbeError, Roofline};
use std::path::Path;
use std::time::Duration;

/// Examines this machine, and the path of a checkpoint or of anything beside it.
///
/// # Errors
/// When the path cannot be examined.
///
/// ```no_run
/// use floodtide::probe::doctor::Status;
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
    let (files, refused) = match locate(path) {
        Ok(located) => (located.files, Vec::new()),
        Err(Error::Io { path, action, source }) => (Vec::new(), vec![FileError::Io { path, action, source }]),
        Err(_) => (Vec::new(), Vec::new()),
    };
    Ok(doctor::examine(path, files, refused)?)
}

/// Measures the device under a folder in about `budget`; `told` is called with what is being done.
///
/// # Errors
/// When there is nothing to read and nothing can be written, or the system gives no memory.
pub fn measure(folder: &Path, budget: Duration, told: impl Fn(&str)) -> Result<Roofline, ProbeError> {
    let files = locate(folder).ok().map(|located| located.files);
    roofline::measure(folder, files, budget, told)
}
