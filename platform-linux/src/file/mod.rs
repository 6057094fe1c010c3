//! An open local file and its version.

mod error;
pub mod names;
mod view;

pub use error::{failed, hint};

use crate::probe;
use floodtide_core::storage::{FileView, Residency, StorageError, StorageFile};
use floodtide_core::{DirectLimits, FileVersion};
use floodtide_memory::sync::{AtomicBool, OnceLock, Ordering};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use view::MappedFile;

/// `RWF_DONTCACHE` (Linux 6.14): drops what a read adds to the page cache, and keeps what was
/// there. File systems and kernels without it return EOPNOTSUPP.
pub(crate) const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Returns a file's version from its metadata.
fn version_of(metadata: &std::fs::Metadata) -> FileVersion {
    FileVersion::Local {
        device: metadata.dev(),
        inode: metadata.ino(),
        len: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// An open regular file.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    name: String,
    buffered: File,
    /// A second descriptor for direct reads. Opened on the first request, if the file system
    /// supports them.
    direct: OnceLock<Option<(File, DirectLimits)>>,
    /// Whether the file system has refused `RWF_DONTCACHE`.
    caches_always: AtomicBool,
    version: FileVersion,
}

impl LocalFile {
    /// Opens a regular file. Never waits for the writer of a FIFO.
    ///
    /// # Errors
    /// Fails if the file does not exist, cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_unless_folder(path)?.ok_or_else(|| StorageError::IsFolder { name: names::encode(path) })
    }

    /// Opens a regular file, or returns `None` if it is a folder.
    ///
    /// # Errors
    /// Fails if the file does not exist, cannot be opened, or is neither.
    pub fn open_unless_folder(path: &Path) -> Result<Option<Self>, StorageError> {
        let buffered = open(path, OFlags::NONBLOCK).map_err(failed(path, "open the file"))?;
        let metadata = buffered.metadata().map_err(failed(path, "examine the file"))?;
        if metadata.is_dir() {
            return Ok(None);
        }
        let name = names::encode(path);
        if !metadata.is_file() {
            return Err(StorageError::NotAFile { name, found: describe(metadata.mode()) });
        }
        Ok(Some(Self {
            path: path.to_owned(),
            name,
            buffered,
            direct: OnceLock::new(),
            caches_always: AtomicBool::new(false),
            version: version_of(&metadata),
        }))
    }

    /// Opens the file again for direct reads.
    fn open_direct(&self) -> Option<(File, DirectLimits)> {
        let limits = probe::direct_limits(&self.buffered)?;
        let direct = open(&self.path, OFlags::DIRECT | OFlags::NONBLOCK).ok()?;
        // The path may refer to another file by now. The end of the load reports that.
        let is_same = direct.metadata().is_ok_and(|m| self.version.difference(&version_of(&m)).is_none());
        is_same.then_some((direct, limits))
    }

    /// Returns the path at the time of opening.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the descriptor for buffered reads.
    #[must_use]
    pub fn buffered(&self) -> &File {
        &self.buffered
    }

    /// Returns the descriptor for direct or buffered reads, or the one for buffered reads if it is
    /// the only one.
    #[must_use]
    pub fn descriptor(&self, direct: bool) -> &File {
        match self.direct.get() {
            Some(Some((file, _))) if direct => file,
            _ => &self.buffered,
        }
    }

    /// Returns the flags of a read. `dont_cache` requests `RWF_DONTCACHE` for buffered reads.
    pub(crate) fn read_flags(&self, direct: bool, dont_cache: bool) -> ReadWriteFlags {
        if dont_cache && !direct && !self.caches_always.load(Ordering::Relaxed) {
            DONT_CACHE
        } else {
            ReadWriteFlags::empty()
        }
    }

    /// Records that the file system refuses these flags.
    pub(crate) fn refuse_dont_cache(&self) {
        self.caches_always.store(true, Ordering::Relaxed);
    }

    fn changed(&self, what: &'static str) -> StorageError {
        StorageError::Changed { name: self.name.clone(), what }
    }
}

impl StorageFile for LocalFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &FileVersion {
        &self.version
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.buffered.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.changed("its length changed"),
            _ => failed(&self.path, "read the file")(source),
        })
    }

    fn is_unchanged(&self) -> bool {
        self.buffered.metadata().is_ok_and(|metadata| self.version.difference(&version_of(&metadata)).is_none())
    }

    fn check_unchanged(&self) -> Result<(), StorageError> {
        let named = std::fs::metadata(&self.path).map_err(|_| self.changed("it was removed"))?;
        if self.version.difference(&version_of(&named)).is_none() {
            // The same inode, so the open file is unchanged too.
            return Ok(());
        }
        let open = self.buffered.metadata();
        for now in [open.as_ref().unwrap_or(&named), &named] {
            if let Some(what) = self.version.difference(&version_of(now)) {
                return Err(self.changed(what));
            }
        }
        Ok(())
    }

    fn device(&self) -> u64 {
        match self.version {
            FileVersion::Local { device, .. } => device,
            _ => 0,
        }
    }

    fn direct_limits(&self) -> Option<DirectLimits> {
        self.direct.get_or_init(|| self.open_direct()).as_ref().map(|(_, limits)| *limits)
    }

    fn residency(&self) -> Residency {
        probe::residency(&self.buffered)
    }

    fn view(&self) -> Result<Option<Box<dyn FileView>>, StorageError> {
        match MappedFile::map(&self.buffered) {
            Ok(view) => Ok(Some(Box::new(view))),
            Err(source) => Err(StorageError::Memory { bytes: self.version.len(), source: source.into() }),
        }
    }
}

fn open(path: &Path, extra: OFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | extra;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Describes a file that is not a regular one.
#[must_use]
pub fn describe(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => "a folder",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "something else",
    }
}
