//! GGUF as a [`Format`]: single files, and models that are split over several.

use super::split::{COUNT_KEY, NUMBER_KEY, TENSORS_KEY};
use super::{ALIGNMENT_KEY, MAGIC, MAX_HEADER_BYTES, Parsed, ShardName, Split, check_split, parse};
use crate::catalog::CatalogBuilder;
use crate::error::Error;
use crate::format::{Claim, FileStart, Format, HeaderParser, HeaderState, Headers, extension, first_read};
use crate::format_id::FormatId;
use crate::metadata::MetadataValue;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// One or more GGUF files.
pub const GGUF: FormatId = FormatId::new("gguf", "GGUF");

/// The size of the first read in bytes. Metadata is often longer, but parsing this much again costs
/// little.
const FIRST_READ: u64 = 64 << 10;

/// The registered format of [`GGUF`].
#[derive(Debug)]
pub struct Gguf;

impl Format for Gguf {
    fn id(&self) -> FormatId {
        GGUF
    }

    fn expected(&self) -> &'static str {
        "*.gguf files"
    }

    fn claim(&self, name: &str) -> Option<Claim> {
        (extension(name) == Some("gguf")).then_some(Claim::File)
    }

    fn sniff(&self, start: &[u8]) -> bool {
        start.starts_with(&MAGIC)
    }

    fn parser(&self) -> Option<Box<dyn HeaderParser>> {
        Some(Box::new(Parser))
    }

    /// Each shard of a model stands for all of them.
    fn group(&self, names: &[&str]) -> Vec<Vec<String>> {
        let mut models: BTreeMap<(&str, u32), Vec<String>> = BTreeMap::new();
        for &name in names {
            let shard = ShardName::parse(name);
            let prefix = shard.and_then(|shard| Some((name.strip_suffix(shard.suffix().as_str())?, shard)));
            match prefix {
                Some((prefix, shard)) => {
                    let all = || shard.all().map(|shard| prefix.to_owned() + &shard.suffix()).collect();
                    models.entry((prefix, shard.count)).or_insert_with(all);
                }
                None => _ = models.insert((name, 0), vec![name.to_owned()]),
            }
        }
        models.into_values().collect()
    }

    fn is_layout_key(&self, key: &str) -> bool {
        key == ALIGNMENT_KEY || key.starts_with("split.")
    }
}

#[derive(Debug)]
struct Parser;

impl HeaderParser for Parser {
    fn format(&self) -> FormatId {
        GGUF
    }

    fn first_read(&self, len: u64) -> u64 {
        first_read(len, FIRST_READ)
    }

    fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, Error> {
        let FileStart { name, len, bytes } = start;
        match parse(bytes, len).map_err(|source| Error::format(name, source))? {
            Parsed::Header(header) => {
                Split::of(&header).map_err(|source| Error::format(name, source))?;
                header.add_to(catalog, name, len)?;
                Ok(HeaderState::Complete)
            }
            // Each read at least doubles, so that parsing from the start again stays cheap.
            Parsed::Needs(needed) => {
                let doubled = needed.max(2 * bytes.len() as u64);
                Ok(HeaderState::Needs(doubled.min(len).min(MAX_HEADER_BYTES)))
            }
        }
    }

    fn finish(&self, catalog: CatalogBuilder) -> Result<Headers, Error> {
        let shards: Vec<(Option<Split>, u64)> = splits(&catalog).into_iter().zip(catalog.tensor_counts()).collect();
        check_split(&shards).map_err(|(at, source)| Error::format(catalog.files()[at].path.as_str(), source))?;
        Ok(Headers { catalog: catalog.finish()?, index_metadata: Vec::new(), warnings: Vec::new() })
    }
}

/// Returns the split metadata of each file. Parsing has already checked that it is well-formed.
fn splits(catalog: &CatalogBuilder) -> Vec<Option<Split>> {
    let mut splits = vec![Split { number: 0, count: 0, tensors: 0 }; catalog.files().len()];
    for (file, key, value) in catalog.metadata() {
        let split = &mut splits[file.index()];
        let field = match key {
            NUMBER_KEY => &mut split.number,
            COUNT_KEY => &mut split.count,
            TENSORS_KEY => &mut split.tensors,
            _ => continue,
        };
        match value {
            MetadataValue::Unsigned(number) => *field = *number,
            MetadataValue::Signed(number) => *field = number.unsigned_abs(),
            _ => {}
        }
    }
    splits.into_iter().map(|split| Some(split).filter(|split| split.count > 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_stands_for_all_of_its_model() {
        let shards: Vec<String> = (1..=3).map(|n| alloc::format!("a-0000{n}-of-00003.gguf")).collect();
        for shard in &shards {
            assert_eq!(Gguf.group(&[shard]), [shards.as_slice()]);
        }
        let found = Gguf.group(&["a-00001-of-00003.gguf", "a-00003-of-00003.gguf", "b-1-of-2.gguf", "c.gguf"]);
        assert_eq!(found, [&shards[..], &["b-1-of-2.gguf".to_owned()], &["c.gguf".to_owned()]]);
    }

    #[test]
    fn keys_of_the_layout_are_not_of_a_copy() {
        let keys = ["general.architecture", "general.alignment", "split.no", "split.count", "splits"];
        assert_eq!(keys.map(|key| Gguf.is_layout_key(key)), [false, true, true, true, false]);
    }

    #[test]
    fn a_header_is_asked_for_in_steps_that_double() {
        // A key of 300,000 bytes.
        let mut file = [&b"GGUF\x03\0\0\0"[..], &[0; 8], &1_u64.to_le_bytes(), &1_u64.to_le_bytes(), b"k"].concat();
        file.extend([&8_u32.to_le_bytes()[..], &300_000_u64.to_le_bytes(), &[b'x'; 300_000]].concat());
        file.resize(10_000_000, 0);
        let len = file.len() as u64;
        let (mut reads, mut read) = (Vec::new(), Parser.first_read(len));
        let mut catalog = CatalogBuilder::new(GGUF);
        loop {
            reads.push(read);
            let start = FileStart { name: "f", len, bytes: &file[..read as usize] };
            match Parser.parse(start, &mut catalog).expect("valid") {
                HeaderState::Complete => break,
                HeaderState::Needs(more) => read = more,
            }
        }
        assert_eq!(reads[0], 64 << 10);
        assert!(reads.len() < 5 && reads.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{reads:?}");
    }
}
