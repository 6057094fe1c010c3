//! Safetensors files, and the index that may list them.

use super::{Opened, first_read, merge_metadata};
use crate::error::Error;
use crate::image::{FirstFile, Image};
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::format::shard_index::ShardIndex;
use floodtide_core::{CatalogBuilder, Error as CoreError, Escaped, Format};
use std::path::{Path, PathBuf};

/// Opens these files. `already`: the first one, if it is open.
pub(super) fn open(
    paths: &[PathBuf],
    mut already: Option<FirstFile>,
    index: Option<(&Path, &ShardIndex)>,
) -> Result<Opened, Error> {
    let mut image = None;
    // One buffer for all headers: fresh memory for each would be faulted in each time.
    let mut read = Vec::new();
    let mut files = Vec::with_capacity(paths.len());
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    for path in paths {
        let FirstFile { file, image: whole } = already.take().map_or_else(|| FirstFile::open(path, None), Ok)?;
        image = image.or(whole);
        let name = path.display().to_string();
        let invalid = |source| CoreError::Header { file: name.clone(), source };
        if image.is_none() {
            file.read_exact_into(&mut read, 0, first_read(file.bytes()))?;
        }
        let bytes = image.as_ref().map_or(&read[..], Image::bytes);
        let range = header_range(bytes, file.bytes()).map_err(invalid)?;
        // The range is within the file and at most 100 MB, so it fits in memory and in usize.
        let (start, end) = (range.start() as usize, range.end() as usize);
        if end > bytes.len() {
            file.read_exact_into(&mut read, 0, end)?;
        }
        let bytes = image.as_ref().map_or(&read[..], Image::bytes);
        let header = Header::parse(&bytes[start..end], file.bytes()).map_err(invalid)?;
        builder.add_safetensors(&name, file.bytes(), &header)?;
        files.push(file);
    }
    let catalog = builder.finish()?;
    let mut warnings = Vec::new();
    if let Some((path, index)) = index {
        catalog.check_index(index).map_err(|source| CoreError::Index { file: path.display().to_string(), source })?;
        let total = catalog.tensor_bytes();
        if let Some(claimed) = index.total_size().filter(|&claimed| claimed != total) {
            warnings.push(format!(
                "{}: the index gives a total_size of {claimed} bytes, but the tensors have {total}; \
                 writers count differently, and every shard is complete",
                Escaped(&path.to_string_lossy())
            ));
        }
    }
    let index = index.map_or(&[][..], |(_, index)| index.metadata());
    let metadata = merge_metadata(index, catalog.metadata().map(|(file, key, value)| (file.index(), key, value)));
    Ok(Opened { files, image, catalog, metadata, warnings })
}
