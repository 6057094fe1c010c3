//! Reads the header of a GGUF file, which does not say how long it is: more and more of it, until it is all there.

use crate::error::Error;
use crate::files::OpenFile;
use floodtide_core::format::gguf::{MAX_HEADER_BYTES, Parsed, Split, check_split, parse};
use floodtide_core::{CatalogBuilder, Error as CoreError};
use std::borrow::Cow;

/// What the files of one model say of being its shards, and how many tensors each has.
#[derive(Debug, Default)]
pub(super) struct Splits(Vec<(Option<Split>, u64)>);

impl Splits {
    /// Reads the header of the next file, which begins with `start`, into the catalog.
    pub(super) fn add(&mut self, builder: &mut CatalogBuilder, file: &OpenFile, start: &[u8]) -> Result<(), Error> {
        let name = file.path().display().to_string();
        let mut read = Cow::Borrowed(start);
        loop {
            let needed = match parse(&read, file.bytes()) {
                Ok(Parsed::Header(header)) => {
                    let split = Split::of(&header).map_err(|source| CoreError::Split { file: name.clone(), source })?;
                    self.0.push((split, header.entries().len() as u64));
                    builder.add_gguf(&name, file.bytes(), &header)?;
                    return Ok(());
                }
                Ok(Parsed::Needs(needed)) => needed,
                Err(source) => return Err(CoreError::Gguf { file: name, source }.into()),
            };
            // At least twice as much each time, so that it is not the parsing from the beginning that takes the time.
            let end = needed.max(2 * read.len() as u64).min(file.bytes()).min(MAX_HEADER_BYTES);
            file.read_on(read.to_mut(), end as usize)?;
        }
    }

    /// Fails unless the files belong together; they are those of the catalog.
    pub(super) fn check(&self, files: &[OpenFile]) -> Result<(), Error> {
        check_split(&self.0).map_err(|(at, source)| {
            let file = files[at].path().display().to_string();
            CoreError::Split { file, source }.into()
        })
    }
}
