//! Reads the header of a GGUF file, which does not say how long it is: more and more of it, until it is all there.

use super::{OpenCheckpoint, first_read, merge_metadata};
use crate::error::Error;
use floodtide_core::format::gguf::{MAX_HEADER_BYTES, Parsed, Split, check_split, parse};
use floodtide_core::{CatalogBuilder, Error as CoreError, Format};
use floodtide_linux::OpenFile;
use floodtide_linux::ProbedFile;
use std::borrow::Cow;
use std::path::PathBuf;

/// Opens these files, which are one model or all of its shards. `already`: the first one, if it is open.
pub(super) fn open(paths: &[PathBuf], mut already: Option<ProbedFile>) -> Result<OpenCheckpoint, Error> {
    let mut small_file = None;
    let mut files = Vec::with_capacity(paths.len());
    let (mut builder, mut splits) = (CatalogBuilder::new(Format::Gguf), Splits::default());
    for path in paths {
        let ProbedFile { file, small_file: whole } = already.take().map_or_else(|| ProbedFile::open(path, None), Ok)?;
        small_file = small_file.or(whole);
        let start = match &small_file {
            Some(small_file) => Cow::Borrowed(small_file.as_bytes()),
            None => Cow::Owned(file.read_exact(0, first_read(file.byte_len(), FIRST_READ))?),
        };
        splits.add(&mut builder, &file, start)?;
        files.push(file);
    }
    splits.check(&files)?;
    let catalog = builder.finish()?;
    let metadata = merge_metadata(&[], catalog.metadata().map(|(file, key, value)| (file.index(), key, value)));
    Ok(OpenCheckpoint { files, small_file, catalog, metadata, warnings: Vec::new() })
}

/// Headers begin with metadata, which often is longer; what is parsed of them in vain is little.
const FIRST_READ: u64 = 64 << 10;

/// What the files of one model say of being its shards, and how many tensors each has.
#[derive(Debug, Default)]
struct Splits(Vec<(Option<Split>, u64)>);

impl Splits {
    /// Reads the header of the next file, of which `read` is the beginning, into the catalog.
    fn add(&mut self, builder: &mut CatalogBuilder, file: &OpenFile, mut read: Cow<'_, [u8]>) -> Result<(), Error> {
        let name = file.path().display().to_string();
        loop {
            let needed = match parse(&read, file.byte_len()) {
                Ok(Parsed::Header(header)) => {
                    let split = Split::of(&header).map_err(|source| CoreError::Split { file: name.clone(), source })?;
                    self.0.push((split, header.entries().len() as u64));
                    builder.add_gguf(&name, file.byte_len(), &header)?;
                    return Ok(());
                }
                Ok(Parsed::Needs(needed)) => needed,
                Err(source) => return Err(CoreError::Gguf { file: name, source }.into()),
            };
            // At least twice as much each time, so that it is not the parsing from the beginning that takes the time.
            let end = needed.max(2 * read.len() as u64).min(file.byte_len()).min(MAX_HEADER_BYTES);
            file.read_on(read.to_mut(), end as usize)?;
        }
    }

    /// Fails unless the files belong together; they are those of the catalog.
    fn check(&self, files: &[OpenFile]) -> Result<(), Error> {
        check_split(&self.0).map_err(|(at, source)| {
            let file = files[at].path().display().to_string();
            CoreError::Split { file, source }.into()
        })
    }
}
