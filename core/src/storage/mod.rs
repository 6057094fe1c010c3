//! Where the files of a checkpoint are: a local file system, memory, an object store.
//!
//! A [`Storage`] lists folders and opens files. An open [`StorageFile`] pins the [`FileVersion`] at
//! the time of opening. It reads headers and reports signals to the strategy. Tensor bytes are read
//! by the storage's [`ReadSource`]s, one per worker.
//!
//! Names are strings with parts separated by `/`, as in a URI. A storage whose names are not
//! Unicode encodes them.
//!
//! [`MemoryStorage`] holds files in memory. [`Throttled`] wraps any storage and limits it to the
//! speed of a device or a network. [`Layered`] wraps the sources of any storage.

mod error;
mod layered;
mod memory;
mod throttled;

pub use error::{FailureKind, StorageError};
pub use layered::Layered;
pub use memory::{COPY, MemoryStorage, VIEW};
pub use throttled::{Link, Throttle, Throttled, Timer};

use crate::backend::Backend;
use crate::file_version::FileVersion;
use crate::profile::Profile;
use crate::source::{Buffer, ReadSource};
use crate::units::{ByteRange, DirectLimits};
use crate::warning::Warning;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

/// Lists and opens files, and reads them into buffers of type `B`.
///
/// The buffer type is the storage's safety contract. A storage whose reads outlive a call requires
/// buffers whose memory does not move.
pub trait Storage<B: Buffer>: fmt::Debug + Send + Sync {
    /// Returns the name of the storage in messages, such as `local files`.
    fn name(&self) -> &str;

    /// Returns the backends of the storage, at least one.
    ///
    /// The first [`Blocking`](crate::ReadStyle::Blocking) one is the fallback when another is
    /// refused.
    fn backends(&self) -> Vec<Backend>;

    /// Lists a folder, sorted by name.
    ///
    /// # Errors
    /// Fails if the folder does not exist or cannot be listed.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError>;

    /// Opens a file, or reports that the name is a folder.
    ///
    /// # Errors
    /// Fails if nothing has this name or it cannot be read.
    fn open(&self, name: &str) -> Result<Opened, StorageError>;

    /// Checks that a file named by an index may be opened for a checkpoint in `folder`.
    ///
    /// # Errors
    /// Fails if the file is a link to a target outside the folder.
    fn check_link(&self, folder: &str, name: &str) -> Result<(), StorageError> {
        let _ = (folder, name);
        Ok(())
    }

    /// Returns the signals of the device that holds a file.
    ///
    /// `backends` are the candidates. The storage need not examine any other.
    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals;

    /// Creates a source for one worker.
    ///
    /// Reads refer to files by their index in `files`. The source never reads files of other
    /// storages.
    ///
    /// # Errors
    /// Returns the reason if the backend is unavailable.
    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String>;
}

/// A boxed [`ReadSource`], as workers use it.
pub type BoxedSource<B> = Box<dyn ReadSource<Buffer = B>>;

/// The settings of a worker's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceOptions {
    /// The backend.
    pub backend: Backend,
    /// The number of reads that the source must be able to hold.
    pub capacity: usize,
    /// Whether buffered reads leave the page cache as it was (`RWF_DONTCACHE`).
    pub dont_cache: bool,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without its folder.
    pub name: String,
    /// The kind of the entry.
    pub kind: EntryKind,
}

/// The kind of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file that can be read.
    File,
    /// A folder.
    Folder,
    /// Another kind of file, or a broken link.
    Other,
}

/// The result of [`Storage::open`].
#[derive(Debug)]
pub enum Opened {
    /// A file.
    File(Arc<dyn StorageFile>),
    /// A folder.
    Folder,
}

/// An open file, pinned to its version at the time of opening.
///
/// It is [`Any`] so that its storage can recover the concrete type.
pub trait StorageFile: Any + fmt::Debug + Send + Sync {
    /// Returns the name in the storage.
    fn name(&self) -> &str;

    /// Returns the length in bytes.
    fn len(&self) -> u64 {
        self.version().len()
    }

    /// Returns true if the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the version at the time of opening.
    fn version(&self) -> &FileVersion;

    /// Reads exactly `buffer.len()` bytes at `offset`. Meant for headers and small files.
    ///
    /// # Errors
    /// Fails if the bytes cannot be read or the file has become shorter.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;

    /// Returns true if the open file is unchanged, whatever its name refers to now.
    fn is_unchanged(&self) -> bool;

    /// Checks that the file is unchanged and that its name still refers to it.
    ///
    /// # Errors
    /// Returns [`StorageError::Changed`] if not.
    fn check_unchanged(&self) -> Result<(), StorageError>;

    /// Returns the file that this one reads from, if a storage around another one opened it.
    fn inner(&self) -> Option<&dyn StorageFile> {
        None
    }

    /// Returns a number that files on one device share.
    fn device(&self) -> u64 {
        0
    }

    /// Returns the alignment that direct reads need, or `None` if the file does not support them.
    fn direct_limits(&self) -> Option<DirectLimits> {
        None
    }

    /// Reports the part of the file that is in memory.
    fn residency(&self) -> Residency {
        Residency::default()
    }

    /// Returns a view of the whole file, or `None` if the storage has no views.
    ///
    /// The caller must ensure that no program changes or truncates the file while the view is
    /// alive. Otherwise the bytes of the view may change, and access to a page beyond the new end
    /// kills the process (SIGBUS).
    ///
    /// # Errors
    /// Fails if the storage has views but cannot create this one.
    fn view(&self) -> Result<Option<Box<dyn FileView>>, StorageError> {
        Ok(None)
    }
}

/// A view of a file's bytes.
pub trait FileView: fmt::Debug + Send + Sync {
    /// Returns all bytes of the file, which start at a page-aligned address.
    ///
    /// The contract of [`StorageFile::view`] applies: the file must not change while they are used.
    fn as_bytes(&self) -> &[u8];

    /// Brings a range into memory, so that access does not wait for a device.
    ///
    /// # Errors
    /// Returns the reason if the range cannot be brought in.
    fn make_resident(&self, range: core::ops::Range<usize>) -> Result<(), String> {
        let _ = range;
        Ok(())
    }

    /// Locks a range in memory.
    ///
    /// # Errors
    /// Returns the reason if the range cannot be locked.
    fn lock(&self, range: core::ops::Range<usize>) -> Result<(), String>;
}

/// The part of a file that is in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Residency {
    /// The fraction in memory, 0 to 1, or `None` if unknown.
    pub share: Option<f32>,
    /// The ranges in memory, ascending and not adjacent. Empty if unknown, or if none or all of the
    /// file is in memory.
    pub ranges: Vec<ByteRange>,
}

/// The latency of a storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LatencyClass {
    /// The bytes are in memory.
    Memory,
    /// A local device: microseconds to a few milliseconds.
    #[default]
    Local,
    /// Another machine. Latency is high, and many requests can run at once.
    Network,
}

/// The signals that a storage reports of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceSignals {
    /// The file system, such as `ext4`. Empty if unknown.
    pub file_system: String,
    /// The latency class.
    pub latency: LatencyClass,
    /// The unavailable backends, each with the reason.
    pub refused: Vec<(Backend, String)>,
    /// The measured profile of the device, if there is one.
    pub profile: Option<Profile>,
    /// Warnings for the user, for example of a profile that cannot be used.
    pub warnings: Vec<Warning>,
}
