//! Where the files of a checkpoint are: a local file system, memory, an object store.
//!
//! A [`Storage`] lists folders and opens files. An open [`StorageFile`] pins the [`FileVersion`] that it had when it was opened,
//! reads the few bytes of headers, and reports what the strategy must know. The many bytes are read by the storage's
//! [`ReadSource`]s, one for each worker.
//!
//! Names are texts whose parts are separated by `/`, as in a URI. A storage whose names are not Unicode encodes them.
//!
//! [`MemoryStorage`] holds files in memory. [`Throttled`] wraps any storage and makes it as slow as a device or a network.

mod error;
mod memory;
mod throttled;

pub use error::{FailureKind, StorageError};
pub use memory::{COPY, MemoryStorage, VIEW};
pub use throttled::{Link, Throttle, Throttled, Timer};

use crate::backend::Backend;
use crate::file_version::FileVersion;
use crate::plan::DirectLimits;
use crate::source::{Buffer, ReadSource};
use crate::strategy::Profile;
use crate::units::ByteRange;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

/// Lists and opens files, and reads them into buffers of type `B`.
///
/// The type of the buffers is the storage's safety contract: a storage whose reads outlive a call asks for buffers whose memory
/// stays where it is.
pub trait Storage<B: Buffer>: fmt::Debug + Send + Sync {
    /// Returns what messages call the storage, such as `local files`.
    fn name(&self) -> &str;

    /// Returns the storage's ways of reading, at least one. The first [`Blocking`](crate::ReadStyle::Blocking) one takes over where another is
    /// refused.
    fn backends(&self) -> Vec<Backend>;

    /// Lists a folder, sorted by name.
    ///
    /// # Errors
    /// When there is no such folder or it cannot be listed.
    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError>;

    /// Opens a file, or finds that the name is a folder's.
    ///
    /// # Errors
    /// When nothing has that name, or what has it cannot be read.
    fn open(&self, name: &str) -> Result<Opened, StorageError>;

    /// Checks that a file that an index names may be opened for a checkpoint in `folder`.
    ///
    /// # Errors
    /// When the file is a link to a place that the folder does not own.
    fn check_link(&self, folder: &str, name: &str) -> Result<(), StorageError> {
        let _ = (folder, name);
        Ok(())
    }

    /// Reports what the strategy must know of the device that a file is on. `backends`: those in question; of others nothing needs
    /// to be found out.
    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals;

    /// Returns a source for one worker. Reads name files by their place in `files`; those of other storages are never read by it.
    ///
    /// # Errors
    /// Why the backend cannot be used, in words.
    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String>;
}

/// A [`ReadSource`] as workers use it.
pub type BoxedSource<B> = Box<dyn ReadSource<Buffer = B>>;

/// How a worker's source reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceOptions {
    /// The way of reading.
    pub backend: Backend,
    /// The most reads that the source must hold at a time.
    pub capacity: usize,
    /// Whether buffered reads should leave nothing in the page cache that was not there before.
    pub dont_cache: bool,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without its folder.
    pub name: String,
    /// What has it.
    pub kind: EntryKind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file that can be read.
    File,
    /// A folder.
    Folder,
    /// Something else, or a link to nothing.
    Other,
}

/// What [`Storage::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// A file.
    File(Arc<dyn StorageFile>),
    /// A folder.
    Folder,
}

/// An open file, pinned to the version that it had when it was opened. It is [`Any`] for the storage that opened it, which has it
/// as its own type.
pub trait StorageFile: Any + fmt::Debug + Send + Sync {
    /// Returns its name in the storage.
    fn name(&self) -> &str;

    /// Returns its length in bytes.
    fn len(&self) -> u64 {
        self.version().len()
    }

    /// Returns true when it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the version that it had when it was opened.
    fn version(&self) -> &FileVersion;

    /// Reads exactly as many bytes as `buffer` has from `offset` on. For headers and small files.
    ///
    /// # Errors
    /// When they cannot be read, or the file is shorter than when it was opened.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;

    /// Returns true when the open file is what it was when it was opened, whatever its name stands for now.
    fn is_unchanged(&self) -> bool;

    /// Checks that the file, and what its name stands for, is what it was when it was opened.
    ///
    /// # Errors
    /// [`StorageError::Changed`].
    fn check_unchanged(&self) -> Result<(), StorageError>;

    /// Returns the file that this one reads from, if a storage around another one opened it.
    fn inner(&self) -> Option<&dyn StorageFile> {
        None
    }

    /// Returns a number that files on the same device share.
    fn device(&self) -> u64 {
        0
    }

    /// Returns what direct reads must be aligned to, `None` when the file takes none.
    fn direct_limits(&self) -> Option<DirectLimits> {
        None
    }

    /// Reports what of the file is in memory already.
    fn residency(&self) -> Residency {
        Residency::default()
    }

    /// Returns a view of the whole file, `None` when the storage has none to give.
    ///
    /// # Errors
    /// When the file should be viewable and is not.
    fn view(&self) -> Result<Option<Box<dyn FileView>>, StorageError> {
        Ok(None)
    }
}

/// A file's bytes where they are.
pub trait FileView: fmt::Debug + Send + Sync {
    /// Returns all of them.
    fn as_bytes(&self) -> &[u8];

    /// Brings a range into memory, so that touching it does not wait for a device.
    ///
    /// # Errors
    /// Why it cannot be brought in, in words.
    fn make_resident(&self, range: core::ops::Range<usize>) -> Result<(), String> {
        let _ = range;
        Ok(())
    }

    /// Locks a range in memory.
    ///
    /// # Errors
    /// Why it cannot be locked, in words.
    fn lock(&self, range: core::ops::Range<usize>) -> Result<(), String>;
}

/// What of a file is in memory already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Residency {
    /// The share of the file, 0 to 1; `None` when the system does not report it.
    pub share: Option<f32>,
    /// Where, when it is a part of the file and the system reports which: ascending, and none touching the next.
    pub ranges: Vec<ByteRange>,
}

/// How long a storage takes to answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LatencyClass {
    /// The bytes are in memory.
    Memory,
    /// A local device: microseconds to a few milliseconds.
    #[default]
    Local,
    /// Another machine: requests take long, and many can be made at once.
    Network,
}

/// What a storage reports of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceSignals {
    /// What holds the files, such as `ext4`; empty when unknown.
    pub file_system: String,
    /// How long it takes to answer.
    pub latency: LatencyClass,
    /// The backends that cannot be used for it, each with why.
    pub refused: Vec<(Backend, String)>,
    /// The device as it was measured once, if it was.
    pub profile: Option<Profile>,
    /// What a user should know, such as a profile that cannot be used.
    pub warnings: Vec<String>,
}
