//! Checks that the files have not changed since the bench began: rates of different bytes cannot be
//! compared.

use crate::output::Failure;
use floodtide::core::{Escaped, FileVersion};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The versions of the files when the bench began.
#[derive(Debug)]
pub(super) struct Unchanged {
    files: Vec<(PathBuf, FileVersion)>,
}

impl Unchanged {
    pub(super) fn new(files: &[PathBuf]) -> Result<Self, Failure> {
        let files = files.iter().map(|path| Ok((path.clone(), version(path)?)));
        Ok(Self { files: files.collect::<Result<_, Failure>>()? })
    }

    /// Fails if a file has changed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (path, before) in &self.files {
            if let Some(what) = before.difference(&version(path)?) {
                let (path, advice) =
                    (path.to_string_lossy(), "run the bench again while no program writes to the checkpoint");
                return Err(Failure::Failed(format!(
                    "{}: the file has changed since the bench began ({what}); {advice}",
                    Escaped(&path)
                )));
            }
        }
        Ok(())
    }
}

fn version(path: &Path) -> Result<FileVersion, Failure> {
    let metadata = path.metadata().map_err(|error| {
        Failure::Failed(format!("{}: cannot examine the file: {error}", Escaped(&path.to_string_lossy())))
    })?;
    Ok(FileVersion::Local {
        device: metadata.dev(),
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn another_length_another_time_and_another_file_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a\u{1b}file");
        let write = || fs::write(&path, "one").expect("writes");
        let at = |seconds| {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(&path).expect("opens").set_modified(time).expect("sets");
        };
        let replace = || fs::rename(folder.path().join("other"), &path).expect("renames");
        let changes: [&dyn Fn(); 3] = [&|| fs::write(&path, "longer").expect("writes"), &|| at(2), &replace];
        for change in changes {
            write();
            at(1);
            fs::write(folder.path().join("other"), "two").expect("writes");
            let files = Unchanged::new(std::slice::from_ref(&path)).expect("is there");
            files.check().expect("nothing has happened");
            change();
            let Err(Failure::Failed(why)) = files.check() else { panic!("not noticed") };
            assert!(why.contains("has changed") && why.contains(r"a\u{1b}file"), "{why}");
        }
        fs::remove_file(&path).expect("removes");
        assert!(Unchanged::new(&[path]).is_err());
    }
}
