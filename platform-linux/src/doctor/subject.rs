//! The examined path, and a file of it for trying features.

use crate::file::{LocalFile, describe, failed, names};
use crate::probe;
use floodtide_core::storage::{StorageError, StorageFile};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The subject of an examination.
pub(super) struct Subject {
    /// The open path itself.
    pub(super) handle: File,
    /// A regular file to try features on, or why there is none.
    pub(super) file: Result<LocalFile, String>,
    /// Why files of the checkpoint cannot be read, one error per file.
    pub(super) refused: Vec<StorageError>,
    /// The number and the total size of the checkpoint's files, if it is one.
    pub(super) checkpoint: Option<(usize, u64)>,
    /// The name of the file system, and whether it is on another machine.
    pub(super) file_system: String,
    pub(super) network: bool,
    /// An unnamed file, which disappears when this is dropped.
    _temporary: Option<File>,
}

impl Subject {
    pub(super) fn open(
        path: &Path,
        discovered: &[PathBuf],
        mut refused: Vec<StorageError>,
    ) -> Result<Self, StorageError> {
        let failed = |action| failed(path, action);
        let metadata = fs::metadata(path).map_err(failed("examine the path"))?;
        refused.extend(discovered.iter().filter_map(|file| LocalFile::open(file).err()));
        let bytes = discovered.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        let checkpoint = (!discovered.is_empty()).then_some((discovered.len(), bytes));
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(StorageError::NotAFile { name: names::encode(path), found: describe(metadata.mode()) });
        }
        let mut folder = path.to_owned();
        if metadata.is_file() {
            match LocalFile::open(path) {
                Ok(opened) => {
                    let subject = Self::new(opened.buffered().try_clone(), Ok(opened), checkpoint, None);
                    return subject.map(|subject| Self { refused, ..subject }).map_err(failed("examine the file"));
                }
                // Other checks examine the folder instead.
                Err(error) if refused.is_empty() => return Err(error),
                Err(_) => folder = fs::canonicalize(path).map_err(failed("examine the path"))?,
            }
            folder.pop();
        }
        let path = &*folder;
        let readable = |path: &PathBuf| LocalFile::open(path).ok();
        let existing = discovered.iter().find_map(readable).or_else(|| largest(path).as_ref().and_then(readable));
        let (file, temporary) = match existing {
            Some(file) => (Ok(file), None),
            None => match temporary(path) {
                Ok((file, opened)) => (Ok(opened), Some(file)),
                Err(error) => {
                    let why = if refused.is_empty() { "there is no file to read" } else { "its files cannot be read" };
                    (Err(format!("{why}, and no temporary file can be created ({error})")), None)
                }
            },
        };
        let subject = Self::new(File::open(path), file, checkpoint, temporary);
        subject.map(|subject| Self { refused, ..subject }).map_err(failed("open the folder"))
    }

    fn new(
        handle: io::Result<File>,
        file: Result<LocalFile, String>,
        checkpoint: Option<(usize, u64)>,
        temporary: Option<File>,
    ) -> io::Result<Self> {
        let handle = handle?;
        // A checkpoint's files may be links to another file system than their folder's.
        let (file_system, network) = match &file {
            Ok(file) => probe::file_system(file.buffered()),
            Err(_) => probe::file_system(&handle),
        };
        if let Ok(file) = &file {
            // This opens the file for direct reads.
            let _ = file.direct_limits();
        }
        Ok(Self { handle, file, refused: Vec::new(), checkpoint, file_system, network, _temporary: temporary })
    }

    /// Returns an open file on the file system in question: the file, or else the path itself.
    pub(super) fn on_it(&self) -> &File {
        self.file.as_ref().map_or(&self.handle, LocalFile::buffered)
    }
}

fn largest(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok()?;
        (metadata.is_file() && metadata.len() >= 4096).then(|| (metadata.len(), entry.path()))
    });
    files.max().map(|(_, path)| path)
}

fn temporary(folder: &Path) -> io::Result<(File, LocalFile)> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&[1; 64 << 10])?;
    file.sync_all()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = LocalFile::open(Path::new(&path)).map_err(io::Error::other)?;
    Ok((file, opened))
}
