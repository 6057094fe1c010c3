//! A small file that is read whole by one call. Its tensors are views of it. Planning would take
//! longer than the read.

use floodtide_core::storage::StorageFile;
use floodtide_core::strategy::HUGE_PAGES_FROM;
use floodtide_core::to_usize;
use floodtide_memory::{ArenaCache, ArenaMemory};
use std::sync::Arc;

/// The size above which a plan, threads and direct reads pay off.
const MAX_BYTES: u64 = 4 << 20;

/// The owned bytes of a file.
#[derive(Debug)]
pub(crate) struct SmallFile {
    memory: ArenaMemory,
    len: usize,
}

impl SmallFile {
    /// Reads a small file. Returns `None` if it is not small, cannot be read as a whole, or changed
    /// meanwhile: the usual path then reports the error.
    pub(crate) fn read(file: &dyn StorageFile, arena_cache: &Arc<ArenaCache>) -> Option<Self> {
        if file.len() > MAX_BYTES {
            return None;
        }
        let len = to_usize(file.len());
        let mut memory = arena_cache.take(len).ok()?;
        if file.len() >= HUGE_PAGES_FROM {
            // Without huge pages the read only takes longer.
            let _ = memory.advise_huge_pages(len);
        }
        file.read_at(0, &mut memory.as_mut_bytes()[..len]).ok()?;
        file.is_unchanged().then_some(Self { memory, len })
    }

    /// Returns all bytes; a tensor is at its offset in the file.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.memory.as_bytes()[..self.len]
    }
}
