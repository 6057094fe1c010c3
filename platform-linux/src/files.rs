//! The open files of a checkpoint, each with what must not change while it is read.

use crate::error::Error;
use crate::probe;
use floodtide_core::format::content::{Content, START_BYTES};
use floodtide_core::{DirectLimits, FileVersion};
use floodtide_memory::sync::OnceLock;
use floodtide_memory::sync::{AtomicBool, Ordering};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `RWF_DONTCACHE` (Linux 6.14): what a read brings into the page cache is dropped again; what was there stays. File systems and kernels
/// that cannot do that say EOPNOTSUPP.
pub(crate) const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A file's stamp as its metadata tell it.
fn stamp_of(metadata: &std::fs::Metadata) -> FileVersion {
    FileVersion::Local {
        device: metadata.dev(),
        inode: metadata.ino(),
        len: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// An open file of a checkpoint.
///
/// ```
/// use floodtide_linux::OpenFile;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// std::fs::write(&path, b"weights")?;
/// let file = OpenFile::open(&path)?;
/// assert_eq!(file.read_exact(0, 4)?, b"weig");
/// std::fs::write(&path, b"other weights")?;
/// assert!(file.check_unchanged().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OpenFile {
    path: PathBuf,
    buffered: File,
    direct: Option<(File, DirectLimits)>,
    /// Whether buffered reads are to leave nothing behind in the page cache, as far as the file system can do that.
    uncached: AtomicBool,
    /// What it is, once that was asked.
    content: OnceLock<Content>,
    stamp: FileVersion,
}

impl OpenFile {
    /// Opens a regular file; never waits for a FIFO's writer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_unless_folder(path)?.ok_or_else(|| Error::FolderForFile { path: path.to_owned() })
    }

    /// Opens a regular file; `None` when it is a folder.
    pub fn open_unless_folder(path: &Path) -> Result<Option<Self>, Error> {
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
        Ok(Some(Self {
            path: path.to_owned(),
            buffered,
            direct: None,
            uncached: AtomicBool::new(false),
            content: OnceLock::new(),
            stamp,
        }))
    }

    /// Opens the file a second time for direct reads, where the file system takes them.
    pub fn open_direct(&mut self) {
        let Some(limits) = probe::direct_limits(&self.buffered) else { return };
        let Ok(direct) = open(&self.path, OFlags::DIRECT | OFlags::NONBLOCK) else { return };
        // The path may mean another file by now; that is reported at the end of the load, not read here.
        if direct.metadata().is_ok_and(|m| self.stamp.difference(&stamp_of(&m)).is_none()) {
            self.direct = Some((direct, limits));
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> u64 {
        self.stamp.len()
    }

    /// The number of the device that it lies on.
    pub fn device(&self) -> u64 {
        match self.stamp {
            FileVersion::Local { device, .. } => device,
            _ => 0,
        }
    }

    pub fn buffered(&self) -> &File {
        &self.buffered
    }

    pub fn direct_limits(&self) -> Option<DirectLimits> {
        self.direct.as_ref().map(|(_, limits)| *limits)
    }

    /// The descriptor for direct or buffered reads; buffered when there is no other.
    pub fn descriptor(&self, direct: bool) -> &File {
        match &self.direct {
            Some((file, _)) if direct => file,
            _ => &self.buffered,
        }
    }

    /// Has buffered reads leave nothing behind in the page cache from now on, or, where that proves impossible, lets them.
    pub fn set_uncached(&self, uncached: bool) {
        self.uncached.store(uncached, Ordering::Relaxed);
    }

    /// The flags of a read of this kind.
    pub fn read_flags(&self, direct: bool) -> ReadWriteFlags {
        if !direct && self.uncached.load(Ordering::Relaxed) { DONTCACHE } else { ReadWriteFlags::empty() }
    }

    /// Reads exactly `bytes` from `offset` on; for headers.
    pub fn read_exact(&self, offset: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::new();
        self.read_exact_into(&mut buffer, offset, bytes)?;
        Ok(buffer)
    }

    /// As [`read_exact`](Self::read_exact), into a buffer whose memory is used again.
    pub fn read_exact_into(&self, buffer: &mut Vec<u8>, offset: u64, bytes: usize) -> Result<(), Error> {
        buffer.resize(bytes, 0);
        self.fill(buffer, offset)
    }

    /// Lets [`content`](Self::content) know the first bytes, or all, without a read.
    pub fn has_content(&self, bytes: &[u8]) {
        self.content.get_or_init(|| Content::of(&bytes[..bytes.len().min(START_BYTES)]));
    }

    /// What it is by its first bytes.
    pub fn content(&self) -> Result<Content, Error> {
        if let Some(content) = self.content.get() {
            return Ok(*content);
        }
        let mut start = [0; START_BYTES];
        let bytes = self.bytes().min(START_BYTES as u64) as usize;
        self.fill(&mut start[..bytes], 0)?;
        Ok(*self.content.get_or_init(|| Content::of(&start[..bytes])))
    }

    /// Makes what was read from the file's start `bytes` long, by reading on.
    pub fn read_on(&self, read: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
        let from = read.len();
        // No more than that: a header may be long.
        read.reserve_exact(bytes.saturating_sub(from));
        read.resize(bytes.max(from), 0);
        self.fill(&mut read[from..], from as u64)
    }

    fn fill(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        self.buffered.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed { path: self.path.clone(), what: "its length changed" },
            _ => Error::Io { path: self.path.clone(), action: "read the header", source },
        })
    }

    /// Whether the open file is still what it was when it was opened, whatever its path means now.
    pub fn is_unchanged(&self) -> bool {
        self.buffered.metadata().is_ok_and(|metadata| self.stamp.difference(&stamp_of(&metadata)).is_none())
    }

    /// Fails if the file, or what its path means, is not what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let changed = |what| Error::Changed { path: self.path.clone(), what };
        let named = std::fs::metadata(&self.path).map_err(|_| changed("it was removed"))?;
        if self.stamp.difference(&stamp_of(&named)).is_none() {
            // The same inode, so this is the open file too.
            return Ok(());
        }
        let open = self.buffered.metadata();
        for now in [open.as_ref().unwrap_or(&named), &named] {
            if let Some(what) = self.stamp.difference(&stamp_of(now)) {
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
pub fn describe(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something else",
    }
}
