//! Files in memory, for tests and for programs that already have the bytes of a checkpoint.

use super::{
    BoxedSource, DeviceSignals, Entry, EntryKind, FailureKind, FileView, LatencyClass, Opened, Residency,
    SourceOptions, Storage, StorageError, StorageFile,
};
use crate::backend::{Backend, ReadStyle};
use crate::file_version::FileVersion;
use crate::source::{Buffer, Completion, Fault, Outcome, ReadOp, ReadSource, Rejected, SourceError};
use crate::sync::Mutex;
use crate::units::Alignment;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::ops::Range;

/// The backend that copies bytes into the tensors' memory.
pub const COPY: Backend = Backend::new("copy", ReadStyle::Blocking, "copies of the bytes in memory");
/// The backend whose tensors are views of the stored bytes.
pub const VIEW: Backend = Backend::new("view", ReadStyle::Mapped, "views of the bytes in memory");

/// The bytes of a file, such as a `Vec<u8>`, an `Arc<[u8]>` or a mapping. They must not change.
type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A storage of files in memory. Clones share the files.
///
/// A view of a file needs its bytes at a page-aligned address, as a mapping has them. Others are
/// copied for each view.
///
/// ```
/// use floodtide_core::storage::MemoryStorage;
///
/// let storage = MemoryStorage::new();
/// storage.insert("model/a.safetensors", vec![1, 2, 3]);
/// storage.insert("model/a.safetensors", vec![4, 5]);
/// assert!(storage.remove("model/a.safetensors"));
/// assert!(!storage.remove("model/a.safetensors"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<Files>>,
}

#[derive(Default)]
struct Files {
    by_name: BTreeMap<String, (u64, Bytes)>,
    generation: u64,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.by_name.iter().map(|(name, (_, bytes))| (name, (**bytes).as_ref().len()));
        f.debug_map().entries(files).finish()
    }
}

impl MemoryStorage {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts or replaces a file. Loads of a replaced file fail.
    pub fn insert(&self, name: impl Into<String>, bytes: impl AsRef<[u8]> + Send + Sync + 'static) {
        let name = trimmed(&name.into()).to_owned();
        self.files.with(|files| {
            files.generation += 1;
            files.by_name.insert(name, (files.generation, Arc::new(bytes)));
        });
    }

    /// Removes a file. Returns false if there is none with this name.
    pub fn remove(&self, name: &str) -> bool {
        self.files.with(|files| files.by_name.remove(trimmed(name)).is_some())
    }
}

/// Returns a name without leading and trailing slashes.
fn trimmed(name: &str) -> &str {
    name.trim_matches('/')
}

fn not_found(name: &str, action: &'static str) -> StorageError {
    StorageError::Failed {
        name: name.to_owned(),
        action,
        kind: FailureKind::NotFound,
        source: "no such file in memory".into(),
        hint: "; check the name",
    }
}

impl<B: Buffer> Storage<B> for MemoryStorage {
    fn name(&self) -> &str {
        "memory"
    }

    fn backends(&self) -> Vec<Backend> {
        vec![COPY, VIEW]
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        let prefix = match trimmed(folder) {
            "" => String::new(),
            folder => [folder, "/"].concat(),
        };
        let mut entries = self.files.with(|files| {
            let below = files.by_name.range(prefix.clone()..).map_while(|(name, _)| name.strip_prefix(&*prefix));
            let entry = |rest: &str| match rest.split_once('/') {
                Some((folder, _)) => Entry { name: folder.to_owned(), kind: EntryKind::Folder },
                None => Entry { name: rest.to_owned(), kind: EntryKind::File },
            };
            below.map(entry).collect::<Vec<_>>()
        });
        entries.sort_unstable();
        entries.dedup();
        if entries.is_empty() { Err(not_found(folder, "list the folder")) } else { Ok(entries) }
    }

    fn open(&self, name: &str) -> Result<Opened, StorageError> {
        let slice = trimmed(name);
        let found = self.files.with(|files| files.by_name.get(slice).cloned());
        if let Some((generation, bytes)) = found {
            let version = FileVersion::Generation { len: (*bytes).as_ref().len() as u64, generation };
            let (name, files) = (slice.to_owned(), Arc::clone(&self.files));
            return Ok(Opened::File(Arc::new(MemoryFile { name, version, bytes, files })));
        }
        match Storage::<B>::list(self, name) {
            Ok(_) => Ok(Opened::Folder),
            Err(_) => Err(not_found(name, "open the file")),
        }
    }

    fn device_signals(&self, _: &dyn StorageFile, _: &[Backend]) -> DeviceSignals {
        DeviceSignals { file_system: "memory".to_owned(), latency: LatencyClass::Memory, ..DeviceSignals::default() }
    }

    fn source(&self, files: &[Arc<dyn StorageFile>], options: SourceOptions) -> Result<BoxedSource<B>, String> {
        let _ = options;
        let bytes = |file: &Arc<dyn StorageFile>| {
            (&**file as &dyn Any).downcast_ref::<MemoryFile>().map(|file| Arc::clone(&file.bytes))
        };
        Ok(Box::new(CopySource { files: files.iter().map(bytes).collect(), done: None }))
    }
}

/// An open file in memory.
struct MemoryFile {
    name: String,
    version: FileVersion,
    bytes: Bytes,
    files: Arc<Mutex<Files>>,
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl StorageFile for MemoryFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &FileVersion {
        &self.version
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        match slice(&self.bytes, offset, buffer.len()) {
            Some(bytes) if bytes.len() == buffer.len() => buffer.copy_from_slice(bytes),
            _ => return Err(StorageError::Changed { name: self.name.clone(), what: "its length changed" }),
        }
        Ok(())
    }

    fn is_unchanged(&self) -> bool {
        // The storage holds the bytes, so they cannot change.
        true
    }

    fn check_unchanged(&self) -> Result<(), StorageError> {
        let now = self.files.with(|files| {
            let (generation, bytes) = files.by_name.get(&self.name)?;
            Some(FileVersion::Generation { len: (**bytes).as_ref().len() as u64, generation: *generation })
        });
        let what = match now {
            None => Some("it was removed"),
            Some(now) => self.version.difference(&now),
        };
        what.map_or(Ok(()), |what| Err(StorageError::Changed { name: self.name.clone(), what }))
    }

    fn residency(&self) -> Residency {
        Residency { share: Some(1.0), ranges: Vec::new() }
    }

    fn view(&self) -> Result<Option<Box<dyn FileView>>, StorageError> {
        Ok(Some(Box::new(MemoryView(aligned(&self.bytes)))))
    }
}

/// Returns at most `len` bytes at `offset`, or `None` if `offset` is past the end.
fn slice(bytes: &Bytes, offset: u64, len: usize) -> Option<&[u8]> {
    let bytes = (**bytes).as_ref();
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    Some(&rest[..len.min(rest.len())])
}

/// Returns the bytes at a page-aligned address, copied unless they are at one.
fn aligned(bytes: &Bytes) -> Bytes {
    let content = (**bytes).as_ref();
    let page = Alignment::PAGE.as_usize();
    if content.as_ptr().align_offset(page) == 0 {
        return Arc::clone(bytes);
    }
    let mut memory = vec![0; content.len() + page];
    let start = memory.as_ptr().align_offset(page).min(page);
    let range = start..start + content.len();
    memory[range.clone()].copy_from_slice(content);
    Arc::new(Aligned { memory, range })
}

struct Aligned {
    memory: Vec<u8>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }
}

struct MemoryView(Bytes);

impl fmt::Debug for MemoryView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryView").field(&(*self.0).as_ref().len()).finish()
    }
}

impl FileView for MemoryView {
    fn as_bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }

    fn lock(&self, _: Range<usize>) -> Result<(), String> {
        Err("memory that belongs to the caller is not locked".to_string())
    }
}

/// A source that copies during submission.
struct CopySource<B> {
    files: Vec<Option<Bytes>>,
    done: Option<Completion<B>>,
}

impl<B: Buffer> ReadSource for CopySource<B> {
    type Buffer = B;

    fn capacity(&self) -> usize {
        1
    }

    fn in_flight(&self) -> usize {
        usize::from(self.done.is_some())
    }

    fn submit(&mut self, op: ReadOp, mut buffer: B) -> Result<(), Rejected<B>> {
        let outcome = match self.files.get(op.file.index()) {
            Some(Some(file)) => {
                let bytes = slice(file, op.offset, op.len).unwrap_or_default();
                buffer.memory().write(op.at, bytes);
                Outcome::Read(bytes.len())
            }
            _ => Outcome::Failed(Fault::Other("the file is not in this storage")),
        };
        self.done = Some(Completion { id: op.id, buffer, outcome });
        Ok(())
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), SourceError> {
        self.done.take().into_iter().for_each(completed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_page_aligned_wherever_the_bytes_are() {
        for start in [0, 1, 64, 4095] {
            let bytes: Bytes =
                Arc::new(Aligned { memory: (0..=255).cycle().take(20_000).collect(), range: start..10_000 });
            let view = MemoryView(aligned(&bytes));
            assert_eq!(view.as_bytes().as_ptr().align_offset(4096), 0, "{start}");
            assert_eq!(view.as_bytes(), (*bytes).as_ref(), "{start}");
        }
    }
}
