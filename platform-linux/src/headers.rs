//! Opens the located files and reads their headers into a catalog. What a file is, its first bytes tell.

mod gguf;

use crate::error::Error;
use crate::files::OpenFile;
use crate::image::Image;
use crate::locate::Located;
use crate::shelf::Shelf;
use floodtide_core::format::gguf::is_gguf;
use floodtide_core::format::safetensors::{Header, header_range};
use floodtide_core::{Catalog, CatalogBuilder, Error as CoreError, Escaped, Format, MetadataValue};
use gguf::Splits;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

/// Most headers of a shard are within this; one read then brings prefix and header.
const FIRST_READ: u64 = 64 << 10;

/// How much of a file is read first. A small file has a small header, and what is read along is copied for nothing.
fn first_read(file_bytes: u64) -> usize {
    (file_bytes / 64).clamp(4096, FIRST_READ).min(file_bytes) as usize
}

/// The files of a checkpoint and what is in them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) files: Vec<OpenFile>,
    /// The only file's bytes, if that was wanted and is small.
    pub(crate) image: Option<Image>,
    pub(crate) catalog: Catalog,
    /// What [`merge_metadata`] makes of the index's metadata and the files'.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<String>,
}

/// What a file is that does not begin as any format does: what it is named as says best what is wrong with it.
fn format_by_name(path: &Path) -> Format {
    if path.extension() == Some(OsStr::new("gguf")) { Format::Gguf } else { Format::Safetensors }
}

/// The headers read so far, all of one format.
struct Collected {
    format: Format,
    builder: CatalogBuilder,
    splits: Splits,
}

impl Collected {
    fn new(format: Format) -> Self {
        Self { format, builder: CatalogBuilder::new(format), splits: Splits::default() }
    }

    /// Adds a file of that format which begins with `start`.
    fn add(&mut self, format: Format, file: &OpenFile, start: &[u8]) -> Result<(), Error> {
        if format != self.format {
            return Err(Error::MixedFormats { path: file.path().to_owned(), found: format, others: self.format });
        }
        match format {
            Format::Gguf => self.splits.add(&mut self.builder, file, start),
            _ => add_safetensors(&mut self.builder, file, start),
        }
    }
}

fn add_safetensors(builder: &mut CatalogBuilder, file: &OpenFile, start: &[u8]) -> Result<(), Error> {
    let name = file.path().display().to_string();
    let invalid = |source| CoreError::Header { file: name.clone(), source };
    let header = header_range(start, file.bytes()).map_err(invalid)?;
    // The range is within the file and at most 100 MB, so it fits in memory and in usize.
    let (from, to) = (header.start() as usize, header.end() as usize);
    let whole = match start.get(from..to) {
        Some(json) => Cow::Borrowed(json),
        None => Cow::Owned(file.read_exact(header.start(), to - from)?),
    };
    let header = Header::parse(&whole, file.bytes()).map_err(invalid)?;
    builder.add_safetensors(&name, file.bytes(), &header)?;
    Ok(())
}

/// Opens the files and reads their headers. A single small file is read whole, into memory of `images`, if that is given.
pub(crate) fn open(located: Located, images: Option<&Arc<Shelf>>) -> Result<Opened, Error> {
    let mut already = located.opened;
    let mut image = None;
    let mut files = Vec::with_capacity(located.files.len());
    // What the first file is decides; of an index it is known.
    let mut collected = located.index.is_some().then(|| Collected::new(Format::Safetensors));
    for path in &located.files {
        let file = already.take().map_or_else(|| OpenFile::open(path), Ok)?;
        if located.files.len() == 1 {
            image = images.and_then(|arenas| Image::read(&file, arenas));
        }
        let read = match image {
            Some(_) => Vec::new(),
            None => file.read_exact(0, first_read(file.bytes()))?,
        };
        let start = image.as_ref().map_or(&read[..], Image::bytes);
        let format = if is_gguf(start) { Format::Gguf } else { format_by_name(path) };
        collected.get_or_insert_with(|| Collected::new(format)).add(format, &file, start)?;
        files.push(file);
    }
    let Collected { builder, splits, format } = collected.unwrap_or_else(|| Collected::new(Format::Safetensors));
    if format == Format::Gguf {
        splits.check(&files)?;
    }
    let catalog = builder.finish()?;
    let mut warnings = Vec::new();
    if let Some((path, index)) = &located.index {
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
    let index = located.index.as_ref().map_or(&[][..], |(_, index)| index.metadata());
    let metadata = merge_metadata(index, catalog.metadata().map(|(file, key, value)| (file.index(), key, value)));
    Ok(Opened { files, image, catalog, metadata, warnings })
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
