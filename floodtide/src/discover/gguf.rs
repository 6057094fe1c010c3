//! The shards of a split GGUF model, found by any of their names.

use super::CheckpointFiles;
use crate::error::Error;
use floodtide_core::format::gguf::ShardName;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// All shards of the model that `path` is one of; `None` when it is not named as one.
pub(super) fn shards_of(path: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let Some((prefix, name)) = path.file_name().and_then(shard_name) else { return Ok(None) };
    let mut shards = Vec::new();
    for shard in name.all() {
        let file = OsString::from_vec([prefix, shard.suffix().as_bytes()].concat());
        let sibling = path.with_file_name(&file);
        // A link that leads nowhere is there: opening it says what is wrong.
        if let Err(error) = fs::symlink_metadata(&sibling) {
            if error.kind() == io::ErrorKind::NotFound {
                let (shard, count) = (file.to_string_lossy().into_owned(), name.count);
                return Err(Error::MissingSplit { path: path.to_owned(), shard, count });
            }
            return Err(Error::Io { path: sibling, action: "open the shard", source: error });
        }
        shards.push(sibling);
    }
    Ok(Some(shards))
}

/// The one model that a folder's GGUF files are, which may be split.
pub(super) fn one_model(folder: &Path, names: &[&OsString]) -> Result<CheckpointFiles, Error> {
    // The first file of each model.
    let mut models: BTreeMap<(&[u8], u32), &OsStr> = BTreeMap::new();
    for name in names {
        let model = match shard_name(name) {
            Some((prefix, shard)) => (prefix, shard.count),
            None => (name.as_bytes(), 0),
        };
        models.entry(model).or_insert(name);
    }
    let firsts: Vec<&OsStr> = models.into_values().collect();
    match firsts[..] {
        [first] => {
            let path = folder.join(first);
            let files = shards_of(&path)?.unwrap_or_else(|| vec![path]);
            Ok(CheckpointFiles { files, first: None, index: None })
        }
        _ => {
            let names: Vec<_> = firsts.iter().map(|name| name.to_string_lossy()).collect();
            Err(Error::SeveralModels { path: folder.to_owned(), names: names.join(", ") })
        }
    }
}

/// What a shard's name begins with, and how it ends. The end is ASCII, so that it is found in a name that is not UTF-8 too.
fn shard_name(name: &OsStr) -> Option<(&[u8], ShardName)> {
    let shard = ShardName::parse(&name.to_string_lossy())?;
    Some((name.as_bytes().strip_suffix(shard.suffix().as_bytes())?, shard))
}
