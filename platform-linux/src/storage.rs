//! Local files as a [`Storage`].

pub use crate::file::{LocalFile, describe, failed, hint, names};

use crate::backend::{self, LocalFiles};
use crate::probe::device::Device;
use crate::probe::{self, FUSE};
use floodtide_core::Backend;
use floodtide_core::storage::{
    BoxedSource, DeviceSignals, Entry, EntryKind, LatencyClass, Opened, SourceOptions, Storage, StorageError,
    StorageFile,
};
use floodtide_memory::StableBuffer;
use std::any::Any;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The files of this machine. Names are paths, in which bytes that are not Unicode are
/// [encoded](names).
///
/// ```
/// use floodtide_core::storage::{Opened, Storage};
/// use floodtide_linux::LocalStorage;
/// use floodtide_memory::pool::PoolBuffer;
///
/// let storage: &dyn Storage<PoolBuffer> = &LocalStorage::new();
/// let Opened::File(file) = storage.open("Cargo.toml")? else { panic!("a folder") };
/// assert!(file.len() > 0);
/// # Ok::<(), floodtide_core::storage::StorageError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct LocalStorage;

impl LocalStorage {
    /// Creates the storage of local files.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<B: StableBuffer> Storage<B> for LocalStorage {
    fn name(&self) -> &str {
        "local files"
    }

    fn backends(&self) -> Vec<Backend> {
        backend::all()
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        let path = names::decode(folder);
        let path = if folder.is_empty() { Path::new(".") } else { &path };
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(path, "list the folder"))? {
            let entry = entry.map_err(failed(path, "list the folder"))?;
            // The listing has the type, which saves a call for each file. A link counts as what it
            // leads to.
            let kind = match entry.file_type() {
                Ok(kind) if kind.is_symlink() => fs::metadata(entry.path()).map(|metadata| metadata.file_type()),
                kind => kind,
            };
            let kind = match kind {
                Ok(kind) if kind.is_file() => EntryKind::File,
                Ok(kind) if kind.is_dir() => EntryKind::Folder,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: names::encode_part(&entry.file_name()), kind });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn open(&self, name: &str) -> Result<Opened, StorageError> {
        let opened = LocalFile::open_unless_folder(&names::decode(name))?;
        Ok(opened.map_or(Opened::Folder, |file| Opened::File(Arc::new(file))))
    }

    /// Allows links only to files of the same folder.
    ///
    /// In a Hugging Face cache snapshot (`models--…/snapshots/REVISION`) or a folder below one
    /// (`transformer/`, as in pipelines), links to that model's `blobs` are allowed too.
    fn check_link(&self, folder: &str, name: &str) -> Result<(), StorageError> {
        let (folder, file) = (names::decode(folder), names::decode(name));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        if !fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(());
        }
        let resolve = |path: &Path| fs::canonicalize(path).map_err(failed(path, "follow the link"));
        let (home, target) = (resolve(folder)?, resolve(&file)?);
        let parent = target.parent().unwrap_or(Path::new("/"));
        let in_blobs = home
            .ancestors()
            .skip(1)
            .filter(|folder| folder.file_name() == Some(OsStr::new("snapshots")))
            .any(|snapshots| snapshots.parent().is_some_and(|model| parent == model.join("blobs")));
        if parent == home || in_blobs {
            return Ok(());
        }
        Err(StorageError::LinkOutside { name: name.to_owned(), target: names::encode(&target) })
    }

    fn device_signals(&self, file: &dyn StorageFile, backends: &[Backend]) -> DeviceSignals {
        let Some(file) = (file as &dyn Any).downcast_ref::<LocalFile>() else { return DeviceSignals::default() };
        let (file_system, network) = probe::file_system(file.buffered());
        let latency = if network { LatencyClass::Network } else { LatencyClass::Local };
        let refused = backend::refused(backends, file_system == FUSE);
        let mut signals = DeviceSignals { file_system, latency, refused, ..DeviceSignals::default() };
        if !backends.is_empty()
            && let Ok(device) = Device::of(file.buffered())
        {
            match probe::profile::find(&device) {
                Ok(profile) => signals.profile = profile.map(|profile| profile.signals()),
                Err(warning) => signals.warnings.push(warning),
            }
        }
        signals
    }

    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String> {
        backend::source(local(files), options)
    }
}

/// Returns the files that are local.
fn local(files: &[Arc<dyn StorageFile>]) -> LocalFiles {
    let local = |file: &Arc<dyn StorageFile>| {
        let file: Arc<dyn Any + Send + Sync> = Arc::<dyn StorageFile>::clone(file);
        file.downcast::<LocalFile>().ok()
    };
    files.iter().map(local).collect()
}
