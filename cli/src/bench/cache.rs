//! Prepares the page cache before a load: without the files, or with all of them. Neither needs a
//! privilege.

use crate::output::Failure;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The share that other programs may touch meanwhile without changing whether a load counts as warm
/// or cold.
pub(super) const NOISE: f32 = 0.01;

/// Drops the files from the page cache, or brings them into it.
///
/// Returns the share of the worst file that is in the wrong state: cached for a cold load, not
/// cached for a warm one. Returns `None` if the system does not report it.
pub(super) fn prepare(files: &[PathBuf], cold: bool) -> Result<Option<f32>, Failure> {
    let mut worst = Some(0.0_f32);
    for path in files {
        let wrong = if cold { drop_pages(path) } else { fill(path) };
        let verb = if cold { "drop the file from" } else { "bring the file into" };
        let failed = |error| Failure::Failed(format!("{}: cannot {verb} the page cache: {error}", path.display()));
        worst = worst.zip(wrong.map_err(failed)?).map(|(worst, wrong)| worst.max(wrong));
    }
    Ok(worst)
}

/// Drops the pages that no other process has mapped. Only clean pages can be dropped, so it writes
/// them back first.
fn drop_pages(path: &Path) -> io::Result<Option<f32>> {
    let file = File::open(path)?;
    let mut left = Some(0.0);
    for pause in [0, 1, 10, 50] {
        std::thread::sleep(Duration::from_millis(pause));
        fadvise(&file, 0, None, Advice::DontNeed)?;
        left = floodtide::probe::resident_share(&file);
        if left.is_none_or(|left| left == 0.0) {
            break;
        }
        // Remaining pages may wait for writeback, or sit in a processor's batch of new pages.
        file.sync_all()?;
    }
    Ok(left)
}

/// Reads the pages that are not cached.
fn fill(path: &Path) -> io::Result<Option<f32>> {
    let mut file = File::open(path)?;
    let share = floodtide::probe::resident_share(&file);
    if share == Some(1.0) {
        return Ok(Some(0.0));
    }
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer)? > 0 {}
    Ok(floodtide::probe::resident_share(&file).map(|share| 1.0 - share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_dropped_and_brought_back() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 3 << 20]).expect("writes");
        let share = || floodtide::probe::resident_share(&File::open(&path).expect("opens"));
        let left = prepare(std::slice::from_ref(&path), true).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(left, share());
        let missing = prepare(std::slice::from_ref(&path), false).unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(missing.is_none(), share().is_none());
        assert!(missing.is_none_or(|missing| missing < NOISE), "{missing:?}");
        assert!(prepare(&[folder.path().join("missing")], true).is_err());
    }
}
