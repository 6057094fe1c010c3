//! Opens the located files and reads their headers into a catalog.

use crate::error::Error;
use crate::files::OpenFile;
use crate::locate::Located;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::{Catalog, CatalogBuilder, Error as CoreError, Format};

/// Most headers of a shard are within this; one read then brings prefix and header.
const FIRST_READ: u64 = 64 << 10;

/// The files of a checkpoint and what is in them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) files: Vec<OpenFile>,
    pub(crate) catalog: Catalog,
    /// The index's metadata, then the files', each key once.
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn open(located: &Located) -> Result<Opened, Error> {
    let mut files = Vec::with_capacity(located.files.len());
    let mut builder = CatalogBuilder::new(Format::Safetensors);
    for path in &located.files {
        let file = OpenFile::open(path)?;
        let name = path.display().to_string();
        let invalid = |source| CoreError::Header { file: name.clone(), source };
        let mut bytes = file.read_exact(0, file.bytes().min(FIRST_READ) as usize)?;
        let range = header_range(&bytes, file.bytes()).map_err(invalid)?;
        // The range is within the file and at most 100 MB, so it fits in memory and in usize.
        let (start, end) = (range.start() as usize, range.end() as usize);
        if end > bytes.len() {
            bytes = file.read_exact(0, end)?;
        }
        let header = Header::parse(&bytes[start..end], file.bytes()).map_err(invalid)?;
        builder.add_safetensors(&name, file.bytes(), &header)?;
        files.push(file);
    }
    let catalog = builder.finish()?;
    let mut metadata: Vec<(String, String)> = Vec::new();
    let mut warnings = Vec::new();
    if let Some((path, index)) = &located.index {
        catalog.check_index(index).map_err(|source| CoreError::Index { file: path.display().to_string(), source })?;
        metadata.extend_from_slice(index.metadata());
        let total = catalog.tensor_bytes();
        if let Some(claimed) = index.total_size().filter(|&claimed| claimed != total) {
            warnings.push(format!(
                "{}: the index gives a total_size of {claimed} bytes, but the tensors have {total}; \
                 writers count differently, and every shard is complete",
                path.display()
            ));
        }
    }
    for (_, key, value) in catalog.metadata() {
        if !metadata.iter().any(|(known, _)| known == key) {
            metadata.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(Opened { files, catalog, metadata, warnings })
}
