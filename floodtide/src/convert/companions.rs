//! Copies the model's other files: its configuration, tokenizer and chat templates.

use crate::error::Error;
use floodtide_core::Quoted;
use floodtide_core::convert::{Layout, is_companion};
use floodtide_core::storage::{Storage, StorageError, StorageFile};
use floodtide_linux::storage::names;
use floodtide_linux::{LocalFile, LocalStorage};
use floodtide_memory::ChunkBuffer;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The files to copy, and warnings about files that are not copied.
#[derive(Debug, Default)]
pub(super) struct Companions {
    files: Vec<(OsString, LocalFile)>,
    pub(super) warnings: Vec<String>,
}

impl Companions {
    /// Finds and opens the files in the folder of a checkpoint.
    ///
    /// A file that cannot be opened is skipped with a warning, because the tensors do not need it.
    /// A link out of the folder is skipped too, because the checkpoint may be untrusted.
    pub(super) fn find(folder: &Path, layout: &Layout) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: folder.to_owned(), action: "list the folder", source };
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.retain(|name| name.to_str().is_some_and(|name| is_companion(name) && !is_written(layout, name)));
        names.sort_unstable();
        let mut found = Self::default();
        for name in names {
            let path = folder.join(&name);
            // A folder of that name is not one of the model's files.
            match open(folder, &path) {
                Ok(Some(file)) => found.files.push((name, file)),
                Ok(None) => {}
                Err(StorageError::LinkOutside { name, target }) => found.warnings.push(format!(
                    "{} is not copied: it is a link out of its folder, to {}; if you trust it, copy it yourself",
                    Quoted(&name),
                    Quoted(&target)
                )),
                Err(StorageError::NotAFile { name, found: what }) => found.warnings.push(format!(
                    "{} is not copied: expected a file, found {what}; restore the file and convert again, or copy it \
                     yourself",
                    Quoted(&name)
                )),
                Err(error) => found.warnings.push(format!("a file of the model is not copied: {error}")),
            }
        }
        Ok(found)
    }

    /// Returns their names and lengths.
    pub(super) fn files(&self) -> impl ExactSizeIterator<Item = (String, u64)> {
        self.files.iter().map(|(name, file)| (name.to_string_lossy().into_owned(), file.len()))
    }

    /// Returns their paths.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|(_, file)| file.path().to_owned())
    }

    /// Copies and syncs them. The copies get the permissions of any new file.
    pub(super) fn copy_to(&self, folder: &Path) -> Result<(), Error> {
        for (name, file) in &self.files {
            let path = folder.join(name);
            let copied = File::create_new(&path).and_then(|mut copy| {
                io::copy(&mut file.buffered(), &mut copy)?;
                copy.sync_all()
            });
            copied.map_err(|source| Error::Io { path, action: "write the copy", source })?;
            file.check_unchanged()?;
        }
        Ok(())
    }
}

fn is_written(layout: &Layout, name: &str) -> bool {
    layout.files().iter().any(|file| file.name == name)
}

fn open(folder: &Path, path: &Path) -> Result<Option<LocalFile>, StorageError> {
    let local: &dyn Storage<ChunkBuffer> = &LocalStorage::new();
    local.check_link(&names::encode(folder), &names::encode(path))?;
    LocalFile::open_unless_folder(path)
}
