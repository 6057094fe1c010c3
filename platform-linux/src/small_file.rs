//! A small file, read whole by one system call: its tensors are views of it. Planning reads would take longer than they do.

use crate::error::Error;
use crate::files::OpenFile;
use floodtide_core::strategy::HUGE_PAGES_FROM;
use floodtide_memory::{ArenaCache, ArenaMemory};
use std::path::Path;
use std::sync::Arc;

/// Above this a plan, threads and direct reads are worth their cost.
const MAX_BYTES: u64 = 4 << 20;

/// A checkpoint's first file, and its bytes, if they are wanted and few.
#[derive(Debug)]
pub struct ProbedFile {
    pub file: OpenFile,
    pub small_file: Option<SmallFile>,
}

impl ProbedFile {
    /// Opens it. `arena_cache`: where memory comes from, if a small file is to be read whole.
    pub fn open(path: &Path, arena_cache: Option<&Arc<ArenaCache>>) -> Result<Self, Error> {
        Ok(Self::of(OpenFile::open(path)?, arena_cache))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub fn of(file: OpenFile, arena_cache: Option<&Arc<ArenaCache>>) -> Self {
        let small_file = arena_cache.and_then(|arena_cache| SmallFile::read(&file, arena_cache));
        if let Some(small_file) = &small_file {
            file.sniff(small_file.as_bytes());
        }
        Self { file, small_file }
    }
}

/// A file's bytes, owned.
#[derive(Debug)]
pub struct SmallFile {
    memory: ArenaMemory,
    bytes: usize,
}

impl SmallFile {
    /// Reads a small file. `None` when it is not small, or one read does not bring all of it, or it changed meanwhile: it is then for others
    /// to find out why.
    pub fn read(file: &OpenFile, arena_cache: &Arc<ArenaCache>) -> Option<Self> {
        if file.byte_len() > MAX_BYTES {
            return None;
        }
        let bytes = file.byte_len() as usize;
        let mut memory = arena_cache.take(bytes).ok()?;
        if file.byte_len() >= HUGE_PAGES_FROM {
            // Without them it only takes longer.
            let _ = memory.advise_huge_pages(bytes);
        }
        let whole = rustix::io::pread(file.buffered(), &mut memory.as_mut_bytes()[..bytes], 0) == Ok(bytes);
        let whole = whole && file.is_unchanged();
        whole.then_some(Self { memory, bytes })
    }

    /// All of it; a tensor is at its offset in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.memory.as_bytes()[..self.bytes]
    }
}
