//! From the path a person gives to the files of a checkpoint.
//!
//! A path may be a file, an index, a folder of files with or without an index, a Hugging Face cache snapshot, or the
//! `models--…` folder above it. What a file is, its first bytes tell; in a folder, names tell which are looked at, and where none does, all
//! are. Any shard of a split GGUF model means all of them. Names that an index gives are not trusted: see [`check_symlink`].

mod gguf;

use crate::error::Error;
use floodtide_core::format::file_kind::{FileKind, IndexKind, index_kind};
use floodtide_core::format::serverlessllm::{self, count_partitions, is_partition_name, partition_name};
use floodtide_core::format::shard_index::ShardIndex;
use floodtide_linux::OpenFile;
use floodtide_linux::ProbedFile;
use floodtide_memory::ArenaCache;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files to open, in order, and the index that lists them.
#[derive(Debug)]
pub(crate) struct CheckpointFiles {
    pub(crate) files: Vec<PathBuf>,
    /// The only file, if it had to be opened to know that it is one.
    pub(crate) first: Option<ProbedFile>,
    pub(crate) index: Option<Index>,
}

/// What lists a checkpoint's files or tensors, and where it was read from.
#[derive(Debug)]
pub(crate) enum Index {
    /// The shards of a safetensors checkpoint; they are the files.
    Shards(PathBuf, ShardIndex),
    /// The JSON of a ServerlessLLM checkpoint's index; the files are the partitions, whose lengths it takes to parse it.
    ServerlessLlm(PathBuf, Vec<u8>),
}

impl Index {
    /// Where it was read from.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Shards(path, _) | Self::ServerlessLlm(path, _) => path,
        }
    }
}

/// An index larger than this is none; the largest seen are a few MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;
const INDEX_NAME: &str = "model.safetensors.index.json";
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// Finds the files.
pub(crate) fn discover(path: &Path) -> Result<CheckpointFiles, Error> {
    discover_for(path, None)
}

/// Finds the files. `arena_cache`: where memory comes from, if a small file, should it be the only one, is to be read whole.
pub(crate) fn discover_for(path: &Path, arena_cache: Option<&Arc<ArenaCache>>) -> Result<CheckpointFiles, Error> {
    let opened = OpenFile::open_unless_folder(path).map_err(|error| match error.into() {
        Error::Io { path, source, .. } => io_error(&path, "open the checkpoint", source),
        error => error,
    })?;
    let Some(file) = opened else { return discover_in_folder(&snapshot_of(path)) };
    let is_named_json = path.extension() == Some(OsStr::new("json"));
    let first = ProbedFile::of(file, arena_cache.filter(|_| !is_named_json));
    match first.file.kind()? {
        FileKind::Pickle => return Err(Error::Pickle { path: path.to_owned() }),
        FileKind::Json => return by_index(path),
        FileKind::Gguf => {
            if let Some(files) = gguf::shards_of(path)? {
                return Ok(CheckpointFiles { files, first: None, index: None });
            }
        }
        FileKind::Unknown if is_named_json => return by_index(path),
        FileKind::Unknown if is_partition(path) => return Err(Error::Partition { path: path.to_owned() }),
        // Its header's parser says what is wrong with what is unknown.
        _ => {}
    }
    Ok(CheckpointFiles { files: vec![path.to_owned()], first: Some(first), index: None })
}

/// Whether a file is named as a partition of a ServerlessLLM checkpoint, and an index is beside it.
fn is_partition(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(is_partition_name)
        && path.with_file_name(serverlessllm::INDEX_NAME).is_file()
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), action, source }
}

/// The snapshot that a Hugging Face cache's `models--…` folder means by `main`, or its only one; else the folder itself.
fn snapshot_of(folder: &Path) -> PathBuf {
    let snapshots = folder.join("snapshots");
    if let Ok(revision) = fs::read_to_string(folder.join("refs/main")) {
        let revision = revision.trim();
        if !revision.contains('/') && revision != ".." && snapshots.join(revision).is_dir() {
            return snapshots.join(revision);
        }
    }
    match fs::read_dir(&snapshots).map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>()) {
        Ok(only) if only.len() == 1 && only[0].is_dir() => only[0].clone(),
        _ => folder.to_owned(),
    }
}

fn discover_in_folder(folder: &Path) -> Result<CheckpointFiles, Error> {
    let names = list(folder)?;
    let with_extension = |extension: &str| -> Vec<&OsString> {
        names.iter().filter(|name| Path::new(name).extension() == Some(OsStr::new(extension))).collect()
    };
    let indexes: Vec<&OsString> = names.iter().filter(|name| is_index_name(name)).collect();
    let serverlessllm = names.iter().find(|name| *name == serverlessllm::INDEX_NAME);
    let (safetensors, gguf) = (with_extension("safetensors"), with_extension("gguf"));
    let first = indexes.first().or(safetensors.first()).copied();
    one_format(folder, [first, serverlessllm, gguf.first().copied()])?;
    match indexes[..] {
        [] => {}
        [only] => return by_index(&folder.join(only)),
        _ if names.iter().any(|name| name == INDEX_NAME) => return by_index(&folder.join(INDEX_NAME)),
        _ => {
            let names: Vec<Cow<'_, str>> = indexes.iter().map(|name| name.to_string_lossy()).collect();
            return Err(Error::SeveralIndexes { path: folder.to_owned(), names: names.join(", ") });
        }
    }
    if let Some(serverlessllm) = serverlessllm {
        return by_index(&folder.join(serverlessllm));
    }
    if !gguf.is_empty() {
        return gguf::one_model(folder, &gguf);
    }
    let files: Vec<PathBuf> = safetensors.into_iter().map(|name| folder.join(name)).collect();
    if !files.is_empty() {
        return Ok(CheckpointFiles { files, first: None, index: None });
    }
    by_kind(folder, &names)
}

/// The names in a folder, sorted.
fn list(folder: &Path) -> Result<Vec<OsString>, Error> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| io_error(folder, "list the folder", source))? {
        names.push(entry.map_err(|source| io_error(folder, "list the folder", source))?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// Refuses a folder that holds checkpoints of several formats, of each of which one file is given.
fn one_format(folder: &Path, found: [Option<&OsString>; 3]) -> Result<(), Error> {
    let names: Vec<Cow<'_, str>> = found.into_iter().flatten().map(|name| name.to_string_lossy()).collect();
    match names.len() {
        0 | 1 => Ok(()),
        _ => Err(Error::SeveralFormats { path: folder.to_owned(), names: names.join(", ") }),
    }
}

/// The files of a folder in which no name says anything, as in a store of files that are named by their hashes.
fn by_kind(folder: &Path, names: &[OsString]) -> Result<CheckpointFiles, Error> {
    let (mut safetensors, mut gguf, mut pickle) = (Vec::new(), Vec::new(), None);
    for name in names {
        let path = folder.join(name);
        // A device may act when it is opened.
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let kind = OpenFile::open(&path).and_then(|file| file.kind()).unwrap_or(FileKind::Unknown);
        match kind {
            FileKind::Safetensors => safetensors.push(name),
            FileKind::Gguf => gguf.push(name),
            // Not every archive is one.
            _ if has_pickle_extension(&path) => _ = pickle.get_or_insert(path),
            _ => {}
        }
    }
    one_format(folder, [safetensors.first().copied(), gguf.first().copied(), None])?;
    if !gguf.is_empty() {
        return gguf::one_model(folder, &gguf);
    }
    let files: Vec<PathBuf> = safetensors.into_iter().map(|name| folder.join(name)).collect();
    match pickle {
        _ if !files.is_empty() => Ok(CheckpointFiles { files, first: None, index: None }),
        Some(path) => Err(Error::Pickle { path }),
        None => Err(Error::NoCheckpoint { path: folder.to_owned() }),
    }
}

/// `model.safetensors.index.json`, and `model.safetensors.index.fp16.json` as diffusers writes variants.
fn is_index_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".json") && name.contains(".safetensors.index.")
}

fn by_index(path: &Path) -> Result<CheckpointFiles, Error> {
    let file = OpenFile::open(path)?;
    if file.byte_len() > MAX_INDEX_BYTES {
        let source = io::Error::other(format!("it has {} bytes, and no index is that large", file.byte_len()));
        return Err(io_error(path, "read the index", source));
    }
    let json = file.read_exact(0, file.byte_len() as usize)?;
    let is_serverlessllm = match index_kind(&json) {
        Some(kind) => kind == IndexKind::ServerlessLlm,
        None => path.file_name() == Some(OsStr::new(serverlessllm::INDEX_NAME)),
    };
    let folder = folder_of(path);
    if is_serverlessllm {
        let files = partitions(path, folder)?;
        return Ok(CheckpointFiles { files, first: None, index: Some(Index::ServerlessLlm(path.to_owned(), json)) });
    }
    let index = ShardIndex::parse(&json)
        .map_err(|source| floodtide_core::Error::Index { file: path.display().to_string(), source })?;
    // `pytorch_model.bin.index.json` is of the same form.
    if let Some(pickle) = index.shards().iter().find(|name| has_pickle_extension(Path::new(name))) {
        return Err(Error::Pickle { path: folder.join(pickle) });
    }
    let mut files = Vec::with_capacity(index.shards().len());
    for name in index.shards() {
        let shard = folder.join(name);
        match fs::symlink_metadata(&shard) {
            Ok(metadata) if metadata.is_symlink() => check_symlink(folder, &shard)?,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                return Err(Error::MissingShard { index: path.to_owned(), shard: name.clone() });
            }
            Err(source) => return Err(io_error(&shard, "open the shard", source)),
        }
        files.push(shard);
    }
    Ok(CheckpointFiles { files, first: None, index: Some(Index::Shards(path.to_owned(), index)) })
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The partitions beside a ServerlessLLM checkpoint's index.
fn partitions(index: &Path, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let names = list(folder)?;
    let count = count_partitions(names.iter().filter_map(|name| name.to_str()))
        .map_err(|source| floodtide_core::Error::ServerlessLlm { file: index.display().to_string(), source })?;
    Ok((0..count).map(|number| folder.join(partition_name(number))).collect())
}

/// Lets a shard be a link only to a file of its own folder, or, in a Hugging Face cache snapshot
/// (`models--…/snapshots/REVISION`) or a folder below one (`transformer/`, as pipelines have them), to one of that
/// model's `blobs`.
pub(crate) fn check_symlink(folder: &Path, shard: &Path) -> Result<(), Error> {
    let resolve = |path: &Path| fs::canonicalize(path).map_err(|source| io_error(path, "follow the link", source));
    let (home, target) = (resolve(folder)?, resolve(shard)?);
    let parent = target.parent().unwrap_or(Path::new("/"));
    let in_blobs = home
        .ancestors()
        .skip(1)
        .filter(|folder| folder.file_name() == Some(OsStr::new("snapshots")))
        .any(|snapshots| snapshots.parent().is_some_and(|model| parent == model.join("blobs")));
    if parent == home || in_blobs {
        return Ok(());
    }
    Err(Error::ShardOutside { shard: shard.to_owned(), target })
}

fn has_pickle_extension(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|extension| PICKLES.contains(&extension))
}
