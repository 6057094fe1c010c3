//! Opens the located files and reads their headers into a catalog: one file a format, which is told by what the files hold.

mod gguf;
mod safetensors;
mod serverlessllm;

use crate::discover::{CheckpointFiles, Index};
use crate::error::Error;
use floodtide_core::format::file_kind::FileKind;
use floodtide_core::{Catalog, MetadataValue};
use floodtide_linux::OpenFile;
use floodtide_linux::{ProbedFile, SmallFile};
use floodtide_memory::ArenaCache;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

/// The files of a checkpoint and what is in them.
#[derive(Debug)]
pub(crate) struct OpenCheckpoint {
    pub(crate) files: Vec<OpenFile>,
    /// The only file's bytes, if that was wanted and is small.
    pub(crate) small_file: Option<SmallFile>,
    pub(crate) catalog: Catalog,
    /// What [`merge_metadata`] makes of the index's metadata and the files'.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<String>,
}

/// Opens the files and reads their headers. A single small file is read whole, into memory of `arena_cache`, if that is given.
pub(crate) fn open(
    discovered: CheckpointFiles,
    arena_cache: Option<&Arc<ArenaCache>>,
) -> Result<OpenCheckpoint, Error> {
    let CheckpointFiles { files, first, index } = discovered;
    let arena_cache = arena_cache.filter(|_| files.len() == 1);
    if let Some(Index::ServerlessLlm(path, json)) = index {
        return serverlessllm::open(&files, &path, &json, arena_cache);
    }
    let first = match (first, &files[..]) {
        (None, [first, ..]) => Some(ProbedFile::open(first, arena_cache)?),
        (first, _) => first,
    };
    match index {
        Some(Index::Shards(path, index)) => safetensors::open(&files, first, Some((&path, &index))),
        _ => by_kind(&files, first),
    }
}

/// Opens files without an index; what the first one is, all have to be.
fn by_kind(paths: &[PathBuf], first: Option<ProbedFile>) -> Result<OpenCheckpoint, Error> {
    let kind = first.as_ref().map_or(Ok(FileKind::Unknown), |first| first.file.kind())?;
    // Of what is neither, the parser of the format that it is named as says best what is wrong.
    let is_named_so = || paths.first().is_some_and(|path| path.extension() == Some(OsStr::new("gguf")));
    match kind {
        FileKind::Gguf => gguf::open(paths, first),
        FileKind::Unknown if is_named_so() => gguf::open(paths, first),
        _ => safetensors::open(paths, first, None),
    }
}

/// How much of a file is read first, no more than `max`. A small file has a small header, and what is read along is copied for nothing.
fn first_read(file_bytes: u64, max: u64) -> usize {
    (file_bytes / 64).clamp(4096, max).min(file_bytes) as usize
}

/// What is wrong with each of several safetensors files, looked at for itself. Nothing is said of other formats, in which a file may be of
/// no use without the others.
pub(crate) fn broken_files(discovered: &CheckpointFiles) -> Vec<Error> {
    if discovered.files.len() < 2 || matches!(discovered.index, Some(Index::ServerlessLlm(..))) {
        return Vec::new();
    }
    let broken = |path: &PathBuf| {
        let file = OpenFile::open(path).and_then(|file| Ok((file.kind()?, file)));
        match file {
            Ok((FileKind::Gguf, _)) => None,
            Ok((_, file)) => safetensors::open(slice::from_ref(path), Some(ProbedFile::of(file, None)), None).err(),
            Err(error) => Some(error.into()),
        }
    };
    discovered.files.iter().filter_map(broken).collect()
}

/// Each key once, in the order in which they first occur. The index's value wins, then that of the first file that has the
/// key. Within one file the last of several equal keys counts, as in the reference.
///
/// A header may hold millions of keys, so each is looked up only once.
fn merge_metadata<'a>(
    index: &'a [(String, String)],
    files: impl Iterator<Item = (usize, &'a str, &'a MetadataValue)>,
) -> Vec<(String, MetadataValue)> {
    let mut merged: Vec<(String, MetadataValue)> =
        index.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    // Where each key stands in `merged`, and the file that its value is of.
    let mut known: HashMap<&str, (usize, Option<usize>)> =
        index.iter().enumerate().map(|(at, (key, _))| (key.as_str(), (at, None))).collect();
    for (file, key, value) in files {
        let (at, from) = *known.entry(key).or_insert((merged.len(), Some(file)));
        if at == merged.len() {
            merged.push((key.to_owned(), value.clone()));
        } else if from == Some(file) {
            merged[at].1.clone_from(value);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_last_of_a_file_and_the_first_of_the_files_counts() {
        let index = [("a".to_owned(), "index".to_owned())];
        let files = [(0, "b", "1"), (0, "a", "2"), (0, "b", "3"), (1, "c", "4"), (1, "b", "5"), (1, "c", "6")];
        let files = files.map(|(file, key, value)| (file, key, MetadataValue::from(value)));
        let merged = merge_metadata(&index, files.iter().map(|(file, key, value)| (*file, *key, value)));
        let expected = [("a", "index"), ("b", "3"), ("c", "6")];
        assert_eq!(merged, expected.map(|(key, value)| (key.to_owned(), value.into())));
    }

    #[test]
    fn many_keys_take_little_time() {
        let keys: Vec<String> = (0..200_000).map(|key| format!("key {key}")).collect();
        let value = MetadataValue::from("value");
        let start = Instant::now();
        let merged = merge_metadata(&[], keys.iter().map(|key| (0, key.as_str(), &value)));
        assert_eq!(merged.len(), keys.len());
        // Every key against every other takes most of a minute.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}
