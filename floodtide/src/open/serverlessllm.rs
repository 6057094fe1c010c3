//! A ServerlessLLM checkpoint: its index, and the partitions beside it.

use super::OpenCheckpoint;
use crate::error::Error;
use floodtide_core::format::serverlessllm::TensorIndex;
use floodtide_core::{CatalogBuilder, Error as CoreError, Format};
use floodtide_linux::OpenFile;
use floodtide_linux::SmallFile;
use floodtide_memory::ArenaCache;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens these partitions, of which `json`, read from `index`, tells what lies in them.
pub(super) fn open(
    paths: &[PathBuf],
    index: &Path,
    json: &[u8],
    arena_cache: Option<&Arc<ArenaCache>>,
) -> Result<OpenCheckpoint, Error> {
    let files = paths.iter().map(|path| OpenFile::open(path)).collect::<Result<Vec<_>, _>>()?;
    let lengths: Vec<u64> = files.iter().map(OpenFile::byte_len).collect();
    let invalid = |source| CoreError::ServerlessLlm { file: index.display().to_string(), source };
    let parsed = TensorIndex::parse(json, &lengths).map_err(invalid)?;
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let mut builder = CatalogBuilder::new(Format::ServerlessLlm);
    builder.add_serverlessllm(names.iter().map(String::as_str).zip(lengths), &parsed)?;
    let small_file = match &files[..] {
        [only] => arena_cache.and_then(|arena_cache| SmallFile::read(only, arena_cache)),
        _ => None,
    };
    Ok(OpenCheckpoint { files, small_file, catalog: builder.finish()?, metadata: Vec::new(), warnings: Vec::new() })
}
