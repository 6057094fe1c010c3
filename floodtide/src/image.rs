//! A small file, read whole by one system call: its tensors are views of it. Planning reads would take longer than they do.

use crate::error::Error;
use crate::files::OpenFile;
use floodtide_core::strategy::HUGE_PAGES_FROM;
use floodtide_memory::{ArenaMemory, Shelf};
use std::path::Path;
use std::sync::Arc;

/// Above this a plan, threads and direct reads are worth their cost.
const MAX_BYTES: u64 = 4 << 20;

/// A checkpoint's first file, and its bytes, if they are wanted and few.
#[derive(Debug)]
pub struct FirstFile {
    pub file: OpenFile,
    pub image: Option<Image>,
}

impl FirstFile {
    /// Opens it. `images`: where memory comes from, if a small file is to be read whole.
    pub fn open(path: &Path, images: Option<&Arc<Shelf>>) -> Result<Self, Error> {
        Ok(Self::of(OpenFile::open(path)?, images))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub fn of(file: OpenFile, images: Option<&Arc<Shelf>>) -> Self {
        let image = images.and_then(|arenas| Image::read(&file, arenas));
        if let Some(image) = &image {
            file.has_content(image.bytes());
        }
        Self { file, image }
    }
}

/// A file's bytes, owned.
#[derive(Debug)]
pub struct Image {
    memory: ArenaMemory,
    bytes: usize,
}

impl Image {
    /// Reads a small file. `None` when it is not small, or one read does not bring all of it, or it changed meanwhile: it is then for others
    /// to find out why.
    pub fn read(file: &OpenFile, arenas: &Arc<Shelf>) -> Option<Self> {
        if file.bytes() > MAX_BYTES {
            return None;
        }
        let bytes = file.bytes() as usize;
        let mut memory = arenas.take(bytes).ok()?;
        if file.bytes() >= HUGE_PAGES_FROM {
            // Without them it only takes longer.
            let _ = memory.advise_huge_pages(bytes);
        }
        let whole = rustix::io::pread(file.buffered(), &mut memory.as_mut_bytes()[..bytes], 0) == Ok(bytes);
        let whole = whole && file.is_unchanged();
        whole.then_some(Self { memory, bytes })
    }

    /// All of it; a tensor is at its offset in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.as_bytes()[..self.bytes]
    }
}
