//! The files of the output: created with their full length, written by several threads at any
//! offset, then synced.

use super::pace::Pace;
use crate::error::Error;
use floodtide_core::convert::{Layout, OutputFile};
use floodtide_core::storage::StorageError;
use floodtide_linux::storage::names;
use floodtide_memory::sync::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The limit of open files. The files used last stay open.
const OPEN: usize = 64;
/// The bytes per write, so that the disk starts with the first part while the next is copied.
const WRITE_BYTES: usize = 4 << 20;

/// The output's files, in the folder that becomes the output.
#[derive(Debug)]
pub(super) struct Files<'a> {
    folder: &'a Path,
    layout: &'a Layout,
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    pace: Pace,
}

impl<'a> Files<'a> {
    /// Creates all files with their space allocated, and writes the bytes that do not come from the
    /// source.
    pub(super) fn make(folder: &'a Path, layout: &'a Layout) -> Result<Self, Error> {
        let files = Self { folder, layout, open: Mutex::default(), pace: Pace::default() };
        for (number, file) in (0..).zip(layout.files()) {
            let made = files.with_room(|| File::create_new(files.path(file))).and_then(|made| {
                allocate(&made, file.bytes)?;
                Ok(Arc::new(made))
            });
            let made = made.map_err(|source| files.failed(file, "create the file", source))?;
            files.keep_open(number, made);
            files.write(number, 0, &file.start)?;
        }
        Ok(files)
    }

    /// Writes bytes at an offset of a file.
    pub(super) fn write(&self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = self.layout.files().get(number as usize) else {
            return Err(
                floodtide_core::Error::Contract { what: "a tensor belongs to a file that does not exist" }.into()
            );
        };
        let open = self.opened(number, file)?;
        let mut at = offset;
        for block in bytes.chunks(WRITE_BYTES) {
            let end = at + block.len() as u64;
            let written = open.write_all_at(block, at).and_then(|()| self.pace.wrote(number, &open, at..end));
            written.map_err(|source| self.failed(file, "write the file", source))?;
            at = end;
        }
        Ok(())
    }

    /// Syncs all files with their metadata.
    pub(super) fn sync(&self) -> Result<(), Error> {
        for (number, file) in (0..).zip(self.layout.files()) {
            let opened = self.opened(number, file)?;
            opened.sync_all().map_err(|source| self.failed(file, "sync the file", source))?;
            let identity = |metadata: Metadata| (metadata.dev(), metadata.ino(), metadata.len());
            let named = fs::symlink_metadata(self.path(file)).map(identity).ok();
            // A cleanup may have removed it.
            if named.is_none() || named != opened.metadata().map(identity).ok() {
                let name = names::encode(&self.path(file));
                let what = "it was removed or replaced by another program";
                return Err(StorageError::Changed { name, what }.into());
            }
        }
        Ok(())
    }

    fn opened(&self, number: u32, file: &OutputFile) -> Result<Arc<File>, Error> {
        {
            let mut open = self.open.lock();
            if let Some(at) = open.iter().position(|(known, _)| *known == number)
                && let Some((_, file)) = open.remove(at)
            {
                open.push_back((number, Arc::clone(&file)));
                return Ok(file);
            }
        }
        let opened = self.with_room(|| File::options().write(true).open(self.path(file)));
        let opened = Arc::new(opened.map_err(|source| self.failed(file, "open the file again", source))?);
        self.keep_open(number, Arc::clone(&opened));
        Ok(opened)
    }

    /// Opens a file. If the process has too many open files, closes the others first.
    fn with_room(&self, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
        match open() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.open.lock().clear();
                self.pace.settle()?;
                open()
            }
            opened => opened,
        }
    }

    fn keep_open(&self, number: u32, file: Arc<File>) {
        let mut open = self.open.lock();
        if open.len() == OPEN {
            open.pop_front();
        }
        open.push_back((number, file));
    }

    fn path(&self, file: &OutputFile) -> PathBuf {
        self.folder.join(&file.name)
    }

    fn failed(&self, file: &OutputFile, action: &'static str, cause: io::Error) -> Error {
        Error::Io { path: self.path(file), action, cause }
    }
}

/// Sets a file's length, and allocates its space if the file system supports it. Then no later
/// write finds the disk full, and the file is not fragmented.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}
