//! The open files of a checkpoint, each with what must not change while it is read.

use crate::error::Error;
use crate::probe;
use floodtide_core::format::content::{Content, START_BYTES};
use floodtide_core::{DirectLimits, Stamp};
use rustix::fs::{FileType, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file's stamp as its metadata tell it.
fn stamp_of(metadata: &std::fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// An open file of a checkpoint.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    buffered: File,
    direct: Option<(File, DirectLimits)>,
    stamp: Stamp,
}

impl OpenFile {
    /// Opens a regular file; never waits for a FIFO's writer.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let found = describe(FileType::Directory.as_raw_mode());
        Self::open_unless_folder(path)?.ok_or_else(|| Error::NotAFile { path: path.to_owned(), found })
    }

    /// Opens a regular file; `None` when it is a folder.
    pub(crate) fn open_unless_folder(path: &Path) -> Result<Option<Self>, Error> {
        let io = |action| move |source: io::Error| Error::Io { path: path.to_owned(), action, source };
        let buffered = open(path, OFlags::NONBLOCK).map_err(io("open the file"))?;
        let metadata = buffered.metadata().map_err(io("examine the file"))?;
        if metadata.is_dir() {
            return Ok(None);
        }
        if !metadata.is_file() {
            return Err(Error::NotAFile { path: path.to_owned(), found: describe(metadata.mode()) });
        }
        let stamp = stamp_of(&metadata);
        Ok(Some(Self { path: path.to_owned(), buffered, direct: None, stamp }))
    }

    /// Opens the file a second time for direct reads, where the file system takes them.
    pub(crate) fn open_direct(&mut self) {
        let Some(limits) = probe::direct_limits(&self.buffered) else { return };
        let Ok(direct) = open(&self.path, OFlags::DIRECT | OFlags::NONBLOCK) else { return };
        // The path may mean another file by now; that is reported at the end of the load, not read here.
        if direct.metadata().is_ok_and(|m| self.stamp.difference(stamp_of(&m)).is_none()) {
            self.direct = Some((direct, limits));
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// The number of the device that it lies on.
    pub(crate) fn device(&self) -> u64 {
        self.stamp.device
    }

    pub(crate) fn buffered(&self) -> &File {
        &self.buffered
    }

    pub(crate) fn direct_limits(&self) -> Option<DirectLimits> {
        self.direct.as_ref().map(|(_, limits)| *limits)
    }

    /// The descriptor for direct or buffered reads; buffered when there is no other.
    pub(crate) fn descriptor(&self, direct: bool) -> &File {
        match &self.direct {
            Some((file, _)) if direct => file,
            _ => &self.buffered,
        }
    }

    /// Reads exactly `bytes` from `offset` on; for headers.
    pub(crate) fn read_exact(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; bytes];
        self.fill(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// What it is by its first bytes.
    pub(crate) fn content(&self) -> Result<Content, Error> {
        Ok(Content::of(&self.read_exact(0, self.bytes().min(START_BYTES as u64) as usize)?))
    }

    /// Makes what was read from the file's start `bytes` long, by reading on.
    pub(crate) fn read_on(&self, read: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
        let from = read.len();
        // No more than that: a header may be long.
        read.reserve_exact(bytes.saturating_sub(from));
        read.resize(bytes.max(from), 0);
        self.fill(&mut read[from..], from as u64)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.buffered.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed { path: self.path.clone(), what: "its length is another" },
            _ => Error::Io { path: self.path.clone(), action: "read the header", source },
        })
    }

    /// Fails if the file, or what its path means, is not what it was when it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let changed = |what| Error::Changed { path: self.path.clone(), what };
        let named = std::fs::metadata(&self.path).map_err(|_| changed("it was removed"))?;
        if self.stamp.difference(stamp_of(&named)).is_none() {
            // The same inode, so this is the open file too.
            return Ok(());
        }
        let open = self.buffered.metadata();
        for now in [open.as_ref().unwrap_or(&named), &named] {
            if let Some(what) = self.stamp.difference(stamp_of(now)) {
                return Err(changed(what));
            }
        }
        Ok(())
    }
}

fn open(path: &Path, extra: OFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | extra;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The kind of a file that is not a regular one.
pub(crate) fn describe(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something else",
    }
}
