//! Copies the model's other files: its configuration, tokenizer and chat templates.

use crate::checkpoint_files::LoadStorage;
use crate::discover::names::join;
use crate::error::Error;
use floodtide_core::Quoted;
use floodtide_core::convert::{Layout, is_companion};
use floodtide_core::storage::{Opened, StorageError, StorageFile};
use floodtide_linux::storage::names;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// What is copied at a time, in bytes.
const BLOCK: usize = 1 << 20;

/// The files to copy, and warnings about files that are not copied.
#[derive(Debug, Default)]
pub(super) struct Companions {
    files: Vec<(String, Arc<dyn StorageFile>)>,
    pub(super) warnings: Vec<String>,
}

impl Companions {
    /// Finds and opens those in the folder of a checkpoint. What cannot be opened is left out with a warning, as the tensors do without; so is a
    /// link out of the folder, as the checkpoint may be somebody else's.
    pub(super) fn find(storage: &LoadStorage, folder: &str, layout: &Layout) -> Result<Self, Error> {
        let mut found = Self::default();
        for entry in storage.list(folder)? {
            let name = entry.name;
            let is_unicode = names::decode(&name).to_str() == Some(&*name);
            if !is_unicode || !is_companion(&name) || is_written(layout, &name) {
                continue;
            }
            let file = join(folder, &name);
            match storage.check_link(folder, &file).and_then(|()| storage.open(&file)) {
                Ok(Opened::File(file)) => found.files.push((name, file)),
                // A folder of that name is none of the model's files.
                Ok(Opened::Folder) => {}
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
        self.files.iter().map(|(name, file)| (name.clone(), file.len()))
    }

    /// Returns the files, which stay open.
    pub(super) fn open_files(&self) -> impl Iterator<Item = &Arc<dyn StorageFile>> {
        self.files.iter().map(|(_, file)| file)
    }

    /// Copies and syncs them. The copies get the permissions of any new file.
    pub(super) fn copy_to(&self, folder: &Path) -> Result<(), Error> {
        for (name, file) in &self.files {
            let path = folder.join(name);
            let failed = |source| Error::Io { path: path.clone(), action: "write the copy", source };
            let mut copy = File::create_new(&path).map_err(failed)?;
            let (mut block, mut offset) = (vec![0; BLOCK], 0);
            while offset < file.len() {
                block.truncate(usize::try_from(file.len() - offset).unwrap_or(BLOCK));
                file.read_at(offset, &mut block)?;
                copy.write_all(&block).map_err(failed)?;
                offset += block.len() as u64;
            }
            copy.sync_all().map_err(failed)?;
            file.check_unchanged()?;
        }
        Ok(())
    }
}

fn is_written(layout: &Layout, name: &str) -> bool {
    layout.files().iter().any(|file| file.name == name)
}
