//! Finds the files of a checkpoint by the name that a caller gives.
//!
//! A name stands for a file, an index, a folder of files with or without an index, a Hugging Face
//! cache snapshot, or the `models--…` folder above it. Any shard of a split model stands for all of
//! them.
//!
//! Formats are detected from file contents, not extensions. In a folder, names decide which files
//! are opened; if no format claims a name, all files are.
//!
//! The names that an index lists are untrusted: they must be plain names, and the storage checks
//! that the files are not links to another folder.
//!
//! This module knows no format: it asks the registry.

pub(crate) mod names;
mod probed;

pub(crate) use probed::{FileBytes, ProbedFile};

use crate::checkpoint_files::LoadStorage;
use crate::error::Error;
use floodtide_core::format::{
    Claim, Evidence, FORMATS, FileKind, Format, HeaderParser, IndexText, MAX_INDEX_BYTES, index_format, is_pickle_name,
};
use floodtide_core::storage::{Entry, EntryKind, Opened, StorageError, StorageFile};
use floodtide_core::to_usize;
use floodtide_memory::ArenaCache;
use names::{folder_of, join, last_part};
use std::sync::Arc;

/// The formats to look for.
pub(crate) type Formats<'f> = &'f [&'f dyn Format];

/// The files of a checkpoint, some of which are not open yet.
#[derive(Debug, Default)]
pub(crate) struct CheckpointFiles {
    /// The names in the storage, in order.
    pub(crate) files: Vec<String>,
    /// The first file, if it was opened to detect its format. It is the only one then.
    pub(crate) first: Option<ProbedFile>,
    /// The index that lists the files.
    pub(crate) index: Option<Index>,
}

impl CheckpointFiles {
    /// Returns files without an index.
    pub(crate) fn without_index(files: Vec<String>) -> Self {
        Self { files, first: None, index: None }
    }
}

/// An index that has been read.
#[derive(Debug)]
pub(crate) struct Index {
    /// The name in the storage.
    pub(crate) name: String,
    /// The parser for the headers of its files.
    pub(crate) parser: Box<dyn HeaderParser>,
}

/// Finds the files of the checkpoint `name`. `small_files` provides memory to read a small file
/// whole, if it is the only one.
///
/// # Errors
/// Returns an error if there is no checkpoint, more than one, or one with a missing file, or if the
/// storage fails.
pub(crate) fn discover(
    storage: &LoadStorage,
    name: &str,
    small_files: Option<&Arc<ArenaCache>>,
) -> Result<CheckpointFiles, Error> {
    discover_among(FORMATS, storage, name, small_files)
}

/// Like [`discover`], for these formats.
pub(crate) fn discover_among(
    formats: Formats<'_>,
    storage: &LoadStorage,
    name: &str,
    small_files: Option<&Arc<ArenaCache>>,
) -> Result<CheckpointFiles, Error> {
    let search = Search { storage, formats };
    match storage.open(name)? {
        Opened::Folder => search.in_folder(name),
        Opened::File(file) => search.by_file(name, file, small_files),
    }
}

struct Search<'s> {
    storage: &'s LoadStorage,
    formats: Formats<'s>,
}

impl Search<'_> {
    fn by_file(
        &self,
        name: &str,
        file: Arc<dyn StorageFile>,
        small_files: Option<&Arc<ArenaCache>>,
    ) -> Result<CheckpointFiles, Error> {
        let (folder, last) = (folder_of(name), last_part(name));
        let is_named_json = last.ends_with(".json");
        let first = ProbedFile::read(file, small_files.filter(|_| !is_named_json))?;
        match FileKind::sniff(self.formats, first.start()) {
            FileKind::Pickle => return Err(Error::Pickle { name: name.to_owned() }),
            FileKind::Json => return self.by_index(name, &*first.file),
            FileKind::Unknown if is_named_json => return self.by_index(name, &*first.file),
            FileKind::Unknown => self.check_partition(name)?,
            FileKind::Checkpoint(format) => {
                let shards = format.group(&[last]).pop().unwrap_or_default();
                if shards.len() > 1 {
                    // A folder that cannot be listed may still hold files that can be opened.
                    if let Ok(entries) = self.storage.list(folder) {
                        check_shards(name, &shards, &entries)?;
                    }
                    let files = shards.iter().map(|shard| join(folder, shard)).collect();
                    return Ok(CheckpointFiles::without_index(files));
                }
            }
        }
        // If no format claims the file, a parser reports what is wrong with it.
        Ok(CheckpointFiles { files: vec![name.to_owned()], first: Some(first), index: None })
    }

    /// Fails if the file is one part of a checkpoint whose index is beside it.
    fn check_partition(&self, name: &str) -> Result<(), Error> {
        for format in self.formats {
            if let Some(Claim::Part { index }) = format.claim(last_part(name))
                && let Ok(Opened::File(_)) = self.storage.open(&join(folder_of(name), index))
            {
                return Err(Error::Partition { name: name.to_owned(), format: format.id(), index });
            }
        }
        Ok(())
    }

    fn in_folder(&self, given: &str) -> Result<CheckpointFiles, Error> {
        let (mut folder, mut entries) = (given.to_owned(), self.storage.list(given)?);
        if let Some(snapshot) = self.snapshot_of(given, &entries) {
            (folder, entries) = (snapshot.clone(), self.storage.list(&snapshot)?);
        }
        let found: Vec<Found<'_>> =
            self.formats.iter().filter_map(|format| Found::by_names(*format, &entries)).collect();
        match &found[..] {
            [] => self.by_content(&folder, &entries),
            [only] => match only.index(&folder)? {
                Some(index) => {
                    let name = join(&folder, index);
                    let file = open_file(self.storage, &name)?;
                    self.by_index(&name, &*file)
                }
                None => only.checkpoint(&folder, &entries),
            },
            _ => Err(several_formats(&folder, &found)),
        }
    }

    /// Searches a folder whose file names match no format, such as files named by their hashes.
    fn by_content(&self, folder: &str, entries: &[Entry]) -> Result<CheckpointFiles, Error> {
        let mut found: Vec<Found<'_>> = Vec::new();
        let mut pickle = None;
        // Opening a device may have side effects.
        for Entry { name, .. } in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
            let full = join(folder, name);
            let Ok(Opened::File(file)) = self.storage.open(&full) else { continue };
            let Ok(start) = probed::sniff_bytes(&*file) else { continue };
            match FileKind::sniff(self.formats, &start) {
                FileKind::Checkpoint(format) => match found.iter_mut().find(|found| found.format.id() == format.id()) {
                    Some(found) => found.files.push(name),
                    None => found.push(Found { format, indexes: Vec::new(), usual: None, files: vec![name] }),
                },
                // Not every archive is a pickle.
                _ if is_pickle_name(name) => _ = pickle.get_or_insert(full),
                _ => {}
            }
        }
        match (&found[..], pickle) {
            ([only], _) => only.checkpoint(folder, entries),
            ([], Some(name)) => Err(Error::Pickle { name }),
            ([], None) => Err(Error::NoCheckpoint { name: folder.to_owned() }),
            _ => Err(several_formats(folder, &found)),
        }
    }

    fn by_index(&self, name: &str, file: &dyn StorageFile) -> Result<CheckpointFiles, Error> {
        let len = file.len();
        if len > MAX_INDEX_BYTES {
            return Err(Error::IndexTooLarge { name: name.to_owned(), len });
        }
        let mut json = vec![0; to_usize(len)];
        file.read_at(0, &mut json)?;
        let folder = folder_of(name);
        let by_name =
            || self.formats.iter().find(|format| matches!(format.claim(last_part(name)), Some(Claim::Index { .. })));
        let format = match index_format(self.formats, &json) {
            Some((format, Evidence::Proof)) => Some(format),
            // The name decides about a hint.
            hint => by_name().copied().or(hint.map(|(format, _)| format)),
        };
        let mut with_index = format.into_iter().chain(self.formats.iter().copied()).filter_map(|format| format.index());
        let Some(format) = with_index.next() else { return Err(Error::NoCheckpoint { name: name.to_owned() }) };
        let mut listing = Vec::new();
        if format.needs_listing() {
            listing.extend(self.storage.list(folder)?.into_iter().map(|entry| entry.name));
        }
        let index = format.parse(IndexText { name, json, listing: &listing })?;
        // `pytorch_model.bin.index.json` has the same form as the index of another format.
        if let Some(pickle) = index.files.iter().find(|name| is_pickle_name(name)) {
            return Err(Error::Pickle { name: join(folder, pickle) });
        }
        let files: Vec<String> = index.files.iter().map(|file| join(folder, file)).collect();
        // A link in the folder's own listing is the user's. A link that an index names is
        // untrusted.
        if !format.needs_listing() {
            files.iter().try_for_each(|file| self.storage.check_link(folder, file))?;
        }
        Ok(CheckpointFiles { files, first: None, index: Some(Index { name: name.to_owned(), parser: index.parser }) })
    }

    /// Returns the snapshot that `main` names in a `models--…` folder of a Hugging Face cache, or
    /// its only snapshot.
    fn snapshot_of(&self, folder: &str, entries: &[Entry]) -> Option<String> {
        entries.iter().find(|entry| entry.name == "snapshots" && entry.kind == EntryKind::Folder)?;
        let snapshots = join(folder, "snapshots");
        if let Some(revision) = self.read_revision(&join(folder, "refs/main")) {
            let snapshot = join(&snapshots, &revision);
            if matches!(self.storage.open(&snapshot), Ok(Opened::Folder)) {
                return Some(snapshot);
            }
        }
        match &self.storage.list(&snapshots).ok()?[..] {
            [only] if only.kind == EntryKind::Folder => Some(join(&snapshots, &only.name)),
            _ => None,
        }
    }

    /// Reads a file that contains the name of a snapshot.
    fn read_revision(&self, name: &str) -> Option<String> {
        const MAX_BYTES: u64 = 1024;
        let Ok(Opened::File(file)) = self.storage.open(name) else { return None };
        let mut text = vec![0; usize::try_from(file.len()).ok().filter(|_| file.len() <= MAX_BYTES)?];
        file.read_at(0, &mut text).ok()?;
        let revision = String::from_utf8(text).ok()?.trim().to_owned();
        let is_plain = !revision.is_empty() && !revision.contains('/') && revision != "." && revision != "..";
        is_plain.then_some(revision)
    }
}

/// The files of one format in a folder.
struct Found<'a> {
    format: &'a dyn Format,
    indexes: Vec<&'a str>,
    /// The preferred index.
    usual: Option<&'a str>,
    /// The sorted names.
    files: Vec<&'a str>,
}

impl<'a> Found<'a> {
    /// Asks a format which names it claims. Returns `None` when there are none.
    fn by_names(format: &'a dyn Format, entries: &'a [Entry]) -> Option<Self> {
        let mut found = Self { format, indexes: Vec::new(), usual: None, files: Vec::new() };
        for Entry { name, .. } in entries {
            match format.claim(name) {
                Some(Claim::File) => found.files.push(name),
                Some(Claim::Index { usual }) => {
                    found.indexes.push(name);
                    found.usual = found.usual.or_else(|| usual.then_some(name));
                }
                Some(Claim::Part { .. }) | None => {}
            }
        }
        found.any().is_some().then_some(found)
    }

    /// Returns one of the names, an index if there is one.
    fn any(&self) -> Option<&'a str> {
        self.indexes.first().or(self.files.first()).copied()
    }

    /// Returns the index to load.
    fn index(&self, folder: &str) -> Result<Option<&'a str>, Error> {
        match self.indexes[..] {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ if self.usual.is_some() => Ok(self.usual),
            _ => Err(Error::SeveralIndexes { name: folder.to_owned(), names: self.indexes.join(", ") }),
        }
    }

    /// Returns the one checkpoint that the files form.
    fn checkpoint(&self, folder: &str, entries: &[Entry]) -> Result<CheckpointFiles, Error> {
        let groups = self.format.group(&self.files);
        // Files of a group may be missing, so take one that exists.
        let present = |group: &Vec<String>| {
            let is_present = |name: &&String| self.files.binary_search(&name.as_str()).is_ok();
            group.iter().find(is_present).cloned().unwrap_or_default()
        };
        match &groups[..] {
            [group] => {
                check_shards(&join(folder, &present(group)), group, entries)?;
                Ok(CheckpointFiles::without_index(group.iter().map(|name| join(folder, name)).collect()))
            }
            _ => {
                let names: Vec<String> = groups.iter().map(present).collect();
                Err(Error::SeveralModels { name: folder.to_owned(), format: self.format.id(), names: names.join(", ") })
            }
        }
    }
}

/// Returns the error for a folder with files of several formats. It names one file of each.
fn several_formats(folder: &str, found: &[Found<'_>]) -> Error {
    let names: Vec<&str> = found.iter().filter_map(Found::any).collect();
    Error::SeveralFormats { name: folder.to_owned(), names: names.join(", ") }
}

/// Fails if a shard of the model that the file `name` belongs to is missing in its folder.
fn check_shards(name: &str, shards: &[String], entries: &[Entry]) -> Result<(), Error> {
    let is_missing = |shard: &&String| entries.binary_search_by(|entry| entry.name.cmp(shard)).is_err();
    match shards.iter().find(is_missing) {
        Some(shard) => {
            let (shard, count) = (shard.clone(), shards.len());
            Err(Error::MissingSplit { name: name.to_owned(), shard, count })
        }
        None => Ok(()),
    }
}

/// Opens a file of a checkpoint.
pub(crate) fn open_file(storage: &LoadStorage, name: &str) -> Result<Arc<dyn StorageFile>, Error> {
    match storage.open(name)? {
        Opened::File(file) => Ok(file),
        Opened::Folder => Err(StorageError::IsFolder { name: name.to_owned() }.into()),
    }
}

#[cfg(test)]
mod tests;
