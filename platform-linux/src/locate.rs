//! From the path a person gives to the files of a checkpoint.
//!
//! A path may be a file, an index, a folder of shards with or without an index, a Hugging Face cache snapshot, or the
//! `models--…` folder above it. Names that an index gives are not trusted: see [`confine`].

use crate::error::Error;
use crate::files::OpenFile;
use floodtide_core::format::shard_index::ShardIndex;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files to open, in order, and the index that lists them.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) files: Vec<PathBuf>,
    /// The only file, if it had to be opened to know that it is one.
    pub(crate) opened: Option<OpenFile>,
    pub(crate) index: Option<(PathBuf, ShardIndex)>,
}

/// An index larger than this is none; the largest seen are a few MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;
const INDEX_NAME: &str = "model.safetensors.index.json";
const PICKLES: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

pub(crate) fn locate(path: &Path) -> Result<Located, Error> {
    let opened = OpenFile::open_unless_folder(path).map_err(|error| match error {
        Error::Io { path, source, .. } => io_error(&path, "open the checkpoint", source),
        error => error,
    })?;
    let Some(file) = opened else { return locate_in_folder(&snapshot_of(path)) };
    if path.extension() == Some(OsStr::new("json")) {
        return by_index(path);
    }
    if is_pickle(&file)? {
        return Err(Error::Pickle { path: path.to_owned() });
    }
    Ok(Located { files: vec![path.to_owned()], opened: Some(file), index: None })
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

fn locate_in_folder(folder: &Path) -> Result<Located, Error> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| io_error(folder, "list the folder", source))? {
        names.push(entry.map_err(|source| io_error(folder, "list the folder", source))?.file_name());
    }
    names.sort_unstable();
    let indexes: Vec<&OsString> = names.iter().filter(|name| is_index_name(name)).collect();
    match indexes[..] {
        [] => {}
        [only] => return by_index(&folder.join(only)),
        _ if names.iter().any(|name| name == INDEX_NAME) => return by_index(&folder.join(INDEX_NAME)),
        _ => {
            let names: Vec<Cow<'_, str>> = indexes.iter().map(|name| name.to_string_lossy()).collect();
            return Err(Error::SeveralIndexes { path: folder.to_owned(), names: names.join(", ") });
        }
    }
    let is_safetensors = |name: &&OsString| Path::new(name).extension() == Some(OsStr::new("safetensors"));
    let files: Vec<PathBuf> = names.iter().filter(is_safetensors).map(|name| folder.join(name)).collect();
    if !files.is_empty() {
        return Ok(Located { files, opened: None, index: None });
    }
    match names.iter().find(|name| has_pickle_extension(Path::new(name))) {
        Some(pickle) => Err(Error::Pickle { path: folder.join(pickle) }),
        None => Err(Error::NoCheckpoint { path: folder.to_owned() }),
    }
}

/// `model.safetensors.index.json`, and `model.safetensors.index.fp16.json` as diffusers writes variants.
fn is_index_name(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(".json") && name.contains(".safetensors.index.")
}

fn by_index(path: &Path) -> Result<Located, Error> {
    let file = OpenFile::open(path)?;
    if file.bytes() > MAX_INDEX_BYTES {
        let source = io::Error::other(format!("it has {} bytes, and no index is that large", file.bytes()));
        return Err(io_error(path, "read the index", source));
    }
    let json = file.read_exact(0, file.bytes() as usize)?;
    let index = ShardIndex::parse(&json)
        .map_err(|source| floodtide_core::Error::Index { file: path.display().to_string(), source })?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // `pytorch_model.bin.index.json` is of the same form.
    if let Some(pickle) = index.shards().iter().find(|name| has_pickle_extension(Path::new(name))) {
        return Err(Error::Pickle { path: folder.join(pickle) });
    }
    let mut files = Vec::with_capacity(index.shards().len());
    for name in index.shards() {
        let shard = folder.join(name);
        match fs::symlink_metadata(&shard) {
            Ok(metadata) if metadata.is_symlink() => confine(folder, &shard)?,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                return Err(Error::MissingShard { index: path.to_owned(), shard: name.clone() });
            }
            Err(source) => return Err(io_error(&shard, "open the shard", source)),
        }
        files.push(shard);
    }
    Ok(Located { files, opened: None, index: Some((path.to_owned(), index)) })
}

/// Lets a shard be a link only to a file of its own folder, or, in a Hugging Face cache snapshot
/// (`models--…/snapshots/REVISION`) or a folder below one (`transformer/`, as pipelines have them), to one of that
/// model's `blobs`.
pub(crate) fn confine(folder: &Path, shard: &Path) -> Result<(), Error> {
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

/// Whether a file looks like what `torch.save` writes: a zip archive, or a bare pickle of protocol 2 and up.
fn is_pickle(file: &OpenFile) -> Result<bool, Error> {
    // A header of 898 bytes (0x0382) would look like a bare pickle; its name tells.
    if file.path().extension() == Some(OsStr::new("safetensors")) {
        return Ok(false);
    }
    let start = file.read_exact(0, file.bytes().min(4) as usize)?;
    Ok(start.starts_with(b"PK\x03\x04") || (start.len() > 1 && start[0] == 0x80 && (2..6).contains(&start[1])))
}
