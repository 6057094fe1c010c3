//! A file whose first bytes were read to detect its format.

use crate::small_file::SmallFile;
use floodtide_core::format::{SNIFF_BYTES, first_read};
use floodtide_core::storage::{StorageError, StorageFile};
use floodtide_core::to_usize;
use floodtide_memory::ArenaCache;
use std::sync::Arc;

/// The bytes read to detect a format, which usually include the whole header.
const PROBE_BYTES: u64 = 16 << 10;

/// An open file and its start.
#[derive(Debug)]
pub(crate) struct ProbedFile {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) start: FileBytes,
}

/// The bytes that were read.
#[derive(Debug)]
pub(crate) enum FileBytes {
    /// The first bytes.
    Start(Vec<u8>),
    /// The whole file.
    Whole(SmallFile),
}

impl ProbedFile {
    /// Reads the start of a file. `arena_cache` provides memory to read a small file whole.
    pub(crate) fn read(
        file: Arc<dyn StorageFile>,
        arena_cache: Option<&Arc<ArenaCache>>,
    ) -> Result<Self, StorageError> {
        let start = match arena_cache.and_then(|arena_cache| SmallFile::read(&*file, arena_cache)) {
            Some(whole) => FileBytes::Whole(whole),
            None => {
                let mut start = vec![0; to_usize(first_read(file.len(), PROBE_BYTES))];
                file.read_at(0, &mut start)?;
                FileBytes::Start(start)
            }
        };
        Ok(Self { file, start })
    }

    /// Returns the bytes that were read.
    pub(crate) fn start(&self) -> &[u8] {
        match &self.start {
            FileBytes::Start(start) => start,
            FileBytes::Whole(whole) => whole.as_bytes(),
        }
    }
}

/// Reads as much of a file as is needed to detect its format.
pub(crate) fn sniff_bytes(file: &dyn StorageFile) -> Result<Vec<u8>, StorageError> {
    let mut start = vec![0; to_usize(file.len().min(SNIFF_BYTES as u64))];
    file.read_at(0, &mut start)?;
    Ok(start)
}
