//! Copies the model's other files: its configuration, tokenizer and chat templates.

use crate::checkpoint_files::LoadStorage;
use crate::discover::names::join;
use crate::error::Error;
use crate::warning::Warning;
use floodtide_core::convert::{Layout, is_companion};
use floodtide_core::storage::{Opened, StorageFile};
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
    pub(super) warnings: Vec<Warning>,
}

impl Companions {
    /// Finds and opens the companions in the folder of a checkpoint.
    ///
    /// A file that cannot be opened is left out with a warning, because the tensors do not need it.
    /// So is a link to a target outside the folder, because the checkpoint may be untrusted.
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
                // The model's files are not folders.
                Ok(Opened::Folder) => {}
                Err(error) => found.warnings.push(Warning::NotCopied { source: Arc::new(error) }),
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
            let failed = |cause| Error::Io { path: path.clone(), action: "write the copy", cause };
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
