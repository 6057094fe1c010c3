//! A small file, read whole by one system call: its tensors are views of it. Planning reads would take longer than they do.

use crate::error::Error;
use crate::files::OpenFile;
use crate::pieces::Backing;
use crate::shelf::{ArenaMemory, Shelf};
use floodtide_core::strategy::HUGE_PAGES_FROM;
use std::path::Path;
use std::sync::Arc;

/// Above this a plan, threads and direct reads are worth their cost.
const MAX_BYTES: u64 = 4 << 20;

/// A checkpoint's first file, and its bytes, if they are wanted and few.
#[derive(Debug)]
pub(crate) struct FirstFile {
    pub(crate) file: OpenFile,
    pub(crate) image: Option<Image>,
}

impl FirstFile {
    /// Opens it. `images`: where memory comes from, if a small file is to be read whole.
    pub(crate) fn open(path: &Path, images: Option<&Arc<Shelf>>) -> Result<Self, Error> {
        Ok(Self::of(OpenFile::open(path)?, images))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub(crate) fn of(file: OpenFile, images: Option<&Arc<Shelf>>) -> Self {
        let image = images.and_then(|arenas| Image::read(&file, arenas));
        if let Some(image) = &image {
            file.has_content(image.bytes());
        }
        Self { file, image }
    }
}

/// A file's bytes, owned.
#[derive(Debug)]
pub(crate) struct Image {
    memory: ArenaMemory,
    bytes: usize,
}

impl Image {
    /// Reads a small file. `None` when it is not small, or one read does not bring all of it, or it changed meanwhile: it is then for others
    /// to find out why.
    pub(crate) fn read(file: &OpenFile, arenas: &Arc<Shelf>) -> Option<Self> {
        if file.bytes() > MAX_BYTES {
            return None;
        }
        let bytes = file.bytes() as usize;
        let memory = arenas.take(bytes).ok()?;
        if file.bytes() >= HUGE_PAGES_FROM {
            // Without them it only takes longer.
            let _ = memory.advise_huge_pages(bytes);
        }
        // SAFETY: the memory is that long, initialised, and nobody else's yet; the kernel only writes to it.
        let buffer = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), bytes) };
        let whole = rustix::io::pread(file.buffered(), buffer, 0) == Ok(bytes) && file.is_unchanged();
        whole.then_some(Self { memory, bytes })
    }

    /// All of it; a tensor is at its offset in the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is that long and initialised, and nothing writes to it any more.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr(), self.bytes) }
    }
}
