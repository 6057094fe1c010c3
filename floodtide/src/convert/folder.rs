//! The temporary folder of a conversion: created beside the output path, and renamed to it when it
//! is complete.
//!
//! Conversion is atomic: however the process ends, the output path is missing, or holds its former
//! content, or holds the complete new output. A killed process leaves a temporary folder with a
//! telling name and no lock. The next conversion into the same parent folder removes it. The lock
//! (`flock` on the folder itself, which needs no file in it) protects folders that other processes
//! are writing.

use super::output_path::OutputPath;
use crate::error::{Error, OutputError};
use crate::warning::Warning;
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, renameat, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The prefix of the folder names, before 16 hexadecimal digits.
const PREFIX: &str = ".floodtide-convert-";
const DIGITS: usize = 16;
/// The number of attempts: a conversion that starts at the same moment may remove a new folder
/// before it is locked.
const ATTEMPTS: usize = 100;

/// A folder that is removed on drop, unless it has become the output.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    output: &'a OutputPath,
    path: PathBuf,
    /// The open folder, which holds the lock.
    file: File,
    kept: bool,
}

impl<'a> Folder<'a> {
    /// Creates and locks a folder beside the output path.
    pub(super) fn make(output: &'a OutputPath) -> Result<Self, Error> {
        let failed =
            |cause| Error::Io { path: output.parent.clone(), action: "create a folder for the output in it", cause };
        for _ in 0..ATTEMPTS {
            let path = output.parent.join(format!("{PREFIX}{:016x}", fastrand::u64(..)));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(failed)?,
            }
            match lock(&path) {
                Locked::Yes(file) | Locked::NoLocks(file) => return Ok(Self { output, path, file, kept: false }),
                // A process that is cleaning up has locked it.
                Locked::Taken | Locked::Gone => {}
                Locked::Failed(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(failed(error));
                }
            }
        }
        Err(failed(io::Error::other("each new folder was removed at once by another program")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder the output; its files must be synced. Returns the path of the folder that
    /// it has replaced.
    pub(super) fn become_output(mut self) -> Result<Option<PathBuf>, Error> {
        sync_folder(&self.file, &self.path)?;
        let output = self.output;
        let mut attempt = 0;
        let replaced = loop {
            attempt += 1;
            let replaces = output.replaces()?;
            match self.rename(replaces) {
                Ok(()) => break replaces,
                // Another program has created or removed the output meanwhile.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOENT) if attempt < ATTEMPTS => {}
                Err(error) => return Err(self.not_renamed(error, replaces)),
            }
        };
        self.kept = true;
        sync_folder(&output.parent_file, &output.parent)?;
        Ok(replaced.then(|| self.path.clone()))
    }

    /// Renames the folder to the output, exchanging names with what is there.
    fn rename(&self, replaces: bool) -> Result<(), Errno> {
        let (parent, name) = (&self.output.parent_file, self.output.name.as_os_str());
        let own_name = self.path.file_name().unwrap_or_default();
        let rename = |flags| renameat_with(parent, own_name, parent, name, flags);
        if replaces {
            return rename(RenameFlags::EXCHANGE);
        }
        match rename(RenameFlags::NOREPLACE) {
            // The file system does not support the flag. Without it, a rename replaces only an
            // empty folder.
            Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(self.output.resolved()).is_err() => {
                renameat(parent, own_name, parent, name)
            }
            renamed => renamed,
        }
    }

    fn not_renamed(&self, error: Errno, replaces: bool) -> Error {
        let path = self.output.path.clone();
        match error {
            Errno::EXIST | Errno::NOTEMPTY => OutputError::Exists { path }.into(),
            Errno::INVAL | Errno::NOSYS if replaces => OutputError::NoExchange { path }.into(),
            error => Error::Io { path, action: "rename the finished output", cause: error.into() },
        }
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an unfinished output");
        }
    }
}

/// Syncs a folder's entries, if its file system supports it.
fn sync_folder(file: &File, path: &Path) -> Result<(), Error> {
    match rustix::fs::fsync(file) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => {
            let (path, cause) = (path.to_owned(), error.into());
            Err(Error::Io { path, action: "sync the folder", cause })
        }
    }
}

enum Locked {
    Yes(File),
    /// The folder has been removed meanwhile.
    Gone,
    /// Another process holds the lock.
    Taken,
    /// The file system cannot lock folders (NFS), so no process cleans up there.
    NoLocks(File),
    Failed(io::Error),
}

/// Opens and locks a folder.
fn lock(path: &Path) -> Locked {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Locked::Gone,
        Err(error) => return Locked::Failed(error.into()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Locked::Taken,
        Err(_) => return Locked::NoLocks(file),
    }
    // The previous holder of the lock may have removed or renamed it.
    let same =
        |named: fs::Metadata| file.metadata().is_ok_and(|open| (open.dev(), open.ino()) == (named.dev(), named.ino()));
    if fs::symlink_metadata(path).is_ok_and(same) { Locked::Yes(file) } else { Locked::Gone }
}

/// Removes the folders that killed conversions have left in `parent`. Warns about those that it
/// cannot remove.
pub(super) fn sweep(parent: &Path) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // A folder that cannot be listed cannot be written to either, which fails later with its own
    // error.
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(is_ours) || !is_own_folder(&path) {
            continue;
        }
        let Locked::Yes(_file) = lock(&path) else { continue };
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed the leftovers of a killed conversion"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warnings.push(Warning::LeftoverNotRemoved { path, source: Arc::new(error) });
            }
        }
    }
    warnings
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    })
}

/// Returns true if the path is a folder of the current user: in /tmp, other users may choose any
/// name.
fn is_own_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(parent: &Path, force: bool) -> OutputPath {
        OutputPath::check(&parent.join("out"), &[], force).expect("may be there")
    }

    fn entries(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn an_output_is_there_whole_or_not_at_all() {
        let parent = tempfile::tempdir().expect("a folder");
        let output = output(parent.path(), false);
        let folder = Folder::make(&output).expect("makes");
        fs::write(folder.path().join("file"), b"new").expect("writes");
        assert!(is_ours(&entries(parent.path())[0]));
        drop(folder);
        assert!(entries(parent.path()).is_empty(), "given up");

        let folder = Folder::make(&output).expect("makes");
        fs::write(folder.path().join("file"), b"new").expect("writes");
        assert_eq!(folder.become_output().expect("renames"), None);
        assert_eq!(entries(parent.path()), ["out"]);
        assert_eq!(entries(&parent.path().join("out")), ["file"]);

        // Another that was begun before is too late.
        let folder = Folder::make(&output).expect("makes");
        let error = folder.become_output().expect_err("it is there");
        assert!(matches!(error, Error::Output(OutputError::Exists { .. })), "{error}");
        assert_eq!(entries(parent.path()), ["out"]);
    }

    #[test]
    fn what_is_replaced_changes_places_with_the_new_one() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::create_dir(parent.path().join("out")).expect("makes");
        fs::write(parent.path().join("out/model.safetensors"), b"old").expect("writes");
        let output = output(parent.path(), true);
        let folder = Folder::make(&output).expect("makes");
        fs::write(folder.path().join("file"), b"new").expect("writes");
        let old = folder.become_output().expect("exchanges").expect("there was one");
        assert_eq!(entries(&old), ["model.safetensors"]);
        assert_eq!(entries(&parent.path().join("out")), ["file"]);
        // If the process were killed now, the old folder would be a leftover.
        assert!(sweep(parent.path()).is_empty());
        assert_eq!(entries(parent.path()), ["out"]);
    }

    #[test]
    fn only_what_nobody_writes_to_is_litter() {
        let parent = tempfile::tempdir().expect("a folder");
        let output = output(parent.path(), false);
        let written = Folder::make(&output).expect("makes");
        let litter = parent.path().join(format!("{PREFIX}0123456789abcdef"));
        let alike =
            [".floodtide-convert-0123456789ABCDEF", ".floodtide-convert-0", "floodtide-convert-0123456789abcdef"];
        fs::create_dir(&litter).expect("makes");
        fs::write(litter.join("tensor.data_0"), b"half").expect("writes");
        for name in alike {
            fs::create_dir(parent.path().join(name)).expect("makes");
        }
        let file = format!("{PREFIX}fedcba9876543210");
        fs::write(parent.path().join(&file), b"no folder").expect("writes");
        let link = format!("{PREFIX}aaaaaaaaaaaaaaaa");
        std::os::unix::fs::symlink(parent.path().join(alike[0]), parent.path().join(&link)).expect("links");
        assert!(sweep(parent.path()).is_empty());
        assert!(written.path().exists() && !litter.exists());
        assert_eq!(entries(parent.path()).len(), 1 + alike.len() + 2);
        drop(written);
        assert!(sweep(parent.path()).is_empty());
        assert_eq!(entries(parent.path()).len(), alike.len() + 2);
    }

    #[test]
    fn what_is_made_while_others_sweep_is_not_lost() {
        let parent = tempfile::tempdir().expect("a folder");
        let output = output(parent.path(), false);
        let done = floodtide_memory::sync::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(floodtide_memory::sync::Ordering::Relaxed) {
                    sweep(parent.path());
                }
            });
            for _ in 0..200 {
                let folder = Folder::make(&output).expect("makes");
                fs::write(folder.path().join("file"), b"new").expect("it is still there");
            }
            done.store(true, floodtide_memory::sync::Ordering::Relaxed);
        });
    }
}
