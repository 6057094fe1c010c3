//! The path in question, and a file of it to try things on.

use crate::error::Error;
use crate::files::{OpenFile, describe};
use crate::locate::locate;
use crate::probe;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is examined.
pub(super) struct Subject {
    /// The path itself, open.
    pub(super) handle: File,
    /// A regular file to try on, or why there is none.
    pub(super) file: Result<OpenFile, String>,
    /// The checkpoint's files, if it is one, and their bytes.
    pub(super) checkpoint: Option<(usize, u64)>,
    /// The file system's name, and whether it is on another machine.
    pub(super) file_system: String,
    pub(super) network: bool,
    /// Has no name; gone when this is dropped.
    _temporary: Option<File>,
}

impl Subject {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |action| move |source: io::Error| Error::Io { path: path.to_owned(), action, source };
        let metadata = fs::metadata(path).map_err(failed("look at the path"))?;
        let located = locate(path).map(|located| located.files).unwrap_or_default();
        let bytes = located.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        let checkpoint = (!located.is_empty()).then_some((located.len(), bytes));
        if metadata.is_file() {
            let opened = OpenFile::open(path)?;
            return Self::new(opened.buffered().try_clone(), Ok(opened), checkpoint, None)
                .map_err(failed("look at the file"));
        }
        if !metadata.is_dir() {
            return Err(Error::NotAFile { path: path.to_owned(), found: describe(metadata.mode()) });
        }
        // A load fails if one of them cannot be opened, so that is what is told.
        let mut shards = located.iter().map(|path| OpenFile::open(path).map_err(|error| error.to_string()));
        let first =
            shards.next().map(|first| first.and_then(|first| shards.find_map(Result::err).map_or(Ok(first), Err)));
        let existing = first.or_else(|| Some(Ok(OpenFile::open(&largest(path)?).ok()?)));
        let (file, temporary) = match existing {
            Some(file) => (file, None),
            None => match temporary(path) {
                Ok((file, opened)) => (Ok(opened), Some(file)),
                Err(error) => (Err(format!("there is no file to try on, and none can be made ({error})")), None),
            },
        };
        Self::new(File::open(path), file, checkpoint, temporary).map_err(failed("open the folder"))
    }

    fn new(
        handle: io::Result<File>,
        file: Result<OpenFile, String>,
        checkpoint: Option<(usize, u64)>,
        temporary: Option<File>,
    ) -> io::Result<Self> {
        let handle = handle?;
        // A checkpoint's files may be links to another file system than their folder's.
        let (file_system, network) = match &file {
            Ok(file) => probe::file_system(file.buffered()),
            Err(_) => probe::file_system(&handle),
        };
        let mut file = file;
        if let Ok(file) = &mut file {
            file.open_direct();
        }
        Ok(Self { handle, file, checkpoint, file_system, network, _temporary: temporary })
    }

    /// What is on the file system in question: the file, or else the path itself.
    pub(super) fn on_it(&self) -> &File {
        self.file.as_ref().map_or(&self.handle, OpenFile::buffered)
    }
}

fn largest(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
        let metadata = fs::metadata(entry.path()).ok()?;
        (metadata.is_file() && metadata.len() >= 4096).then(|| (metadata.len(), entry.path()))
    });
    files.max().map(|(_, path)| path)
}

fn temporary(folder: &Path) -> io::Result<(File, OpenFile)> {
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(&[1; 64 << 10])?;
    file.sync_all()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = OpenFile::open(Path::new(&path)).map_err(io::Error::other)?;
    Ok((file, opened))
}
