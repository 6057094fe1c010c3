//! A small file, read whole by one call: its tensors are views of it. Planning reads would take longer than they do.

use floodtide_core::storage::StorageFile;
use floodtide_core::strategy::HUGE_PAGES_FROM;
use floodtide_memory::{ArenaCache, ArenaMemory};
use std::sync::Arc;

/// Above this a plan, threads and direct reads are worth their cost.
const MAX_BYTES: u64 = 4 << 20;

/// A file's bytes, owned.
#[derive(Debug)]
pub(crate) struct SmallFile {
    memory: ArenaMemory,
    len: usize,
}

impl SmallFile {
    /// Reads a small file. Returns `None` when it is not small, or cannot be read as a whole, or changed meanwhile: it is then for others
    /// to find out why.
    pub(crate) fn read(file: &dyn StorageFile, arena_cache: &Arc<ArenaCache>) -> Option<Self> {
        if file.len() > MAX_BYTES {
            return None;
        }
        let len = file.len() as usize;
        let mut memory = arena_cache.take(len).ok()?;
        if file.len() >= HUGE_PAGES_FROM {
            // Without them it only takes longer.
            let _ = memory.advise_huge_pages(len);
        }
        file.read_at(0, &mut memory.as_mut_bytes()[..len]).ok()?;
        file.is_unchanged().then_some(Self { memory, len })
    }

    /// All of it; a tensor is at its offset in the file.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.memory.as_bytes()[..self.len]
    }
}
