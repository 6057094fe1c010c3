//! A file whose first bytes were read to recognise it.

use crate::small_file::SmallFile;
use floodtide_core::format::{SNIFF_BYTES, first_read};
use floodtide_core::storage::{StorageError, StorageFile};
use floodtide_memory::ArenaCache;
use std::sync::Arc;

/// What is read to recognise a file is most often all of its header too, in bytes.
const PROBE_BYTES: u64 = 16 << 10;

/// An open file and its start.
#[derive(Debug)]
pub(crate) struct ProbedFile {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) start: FileBytes,
}

/// What was read of a file.
#[derive(Debug)]
pub(crate) enum FileBytes {
    /// Its first bytes.
    Start(Vec<u8>),
    /// All of it.
    Whole(SmallFile),
}

impl ProbedFile {
    /// Reads the start of a file. `arena_cache`: where memory comes from when a small file is to be read whole.
    pub(crate) fn read(
        file: Arc<dyn StorageFile>,
        arena_cache: Option<&Arc<ArenaCache>>,
    ) -> Result<Self, StorageError> {
        let start = match arena_cache.and_then(|arena_cache| SmallFile::read(&*file, arena_cache)) {
            Some(whole) => FileBytes::Whole(whole),
            None => {
                let mut start = vec![0; first_read(file.len(), PROBE_BYTES) as usize];
                file.read_at(0, &mut start)?;
                FileBytes::Start(start)
            }
        };
        Ok(Self { file, start })
    }

    /// Returns what was read.
    pub(crate) fn start(&self) -> &[u8] {
        match &self.start {
            FileBytes::Start(start) => start,
            FileBytes::Whole(whole) => whole.as_bytes(),
        }
    }
}

/// Reads as much of a file as it takes to recognise it.
pub(crate) fn sniff_bytes(file: &dyn StorageFile) -> Result<Vec<u8>, StorageError> {
    let mut start = vec![0; file.len().min(SNIFF_BYTES as u64) as usize];
    file.read_at(0, &mut start)?;
    Ok(start)
}
