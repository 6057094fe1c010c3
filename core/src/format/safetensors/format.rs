//! Safetensors as a [`Format`]: single files, several files, and shards listed by an index.

use super::layout::SafetensorsWriter;
use super::{Header, INDEX_NAME, MAX_HEADER_BYTES, SAFETENSORS, header_range};
use crate::catalog::CatalogBuilder;
use crate::convert::Writer;
use crate::error::Error;
use crate::format::file_kind::is_space;
use crate::format::shard_index::ShardIndex;
use crate::format::{
    Claim, Evidence, FileStart, Format, HeaderParser, HeaderState, Headers, IndexFormat, IndexText, JsonShape,
    ParsedIndex, extension, first_read,
};
use crate::format_id::FormatId;
use crate::warning::Warning;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The size of the first read in bytes. Most headers are shorter, so one read fetches all of it.
const FIRST_READ: u64 = 16 << 10;

/// The registered format of [`SAFETENSORS`].
#[derive(Debug)]
pub struct Safetensors;

impl Format for Safetensors {
    fn id(&self) -> FormatId {
        SAFETENSORS
    }

    fn expected(&self) -> &'static str {
        "*.safetensors files, a *.safetensors.index.json"
    }

    fn claim(&self, name: &str) -> Option<Claim> {
        // Diffusers writes variants as `model.safetensors.index.fp16.json`.
        if name.ends_with(".json") && name.contains(".safetensors.index.") {
            return Some(Claim::Index { usual: name == INDEX_NAME });
        }
        (extension(name) == Some("safetensors")).then_some(Claim::File)
    }

    /// Looks for a plausible header length followed by the start of an object. JSON has no zero
    /// byte, and such a length has four.
    fn sniff(&self, start: &[u8]) -> bool {
        let Some((length, text)) = start.split_first_chunk::<8>() else { return false };
        let is_length = u64::from_le_bytes(*length) <= MAX_HEADER_BYTES;
        is_length && text.first().is_some_and(|&byte| byte == b'{' || is_space(byte))
    }

    fn parser(&self) -> Option<Box<dyn HeaderParser>> {
        Some(Box::new(Parser { index: None }))
    }

    fn is_file_independent(&self) -> bool {
        true
    }

    fn index(&self) -> Option<&dyn IndexFormat> {
        Some(self)
    }

    fn writer(&self) -> Option<&'static dyn Writer> {
        Some(&SafetensorsWriter)
    }
}

impl IndexFormat for Safetensors {
    fn evidence(&self, key: &str, value: JsonShape) -> Evidence {
        if key == "weight_map" && value == JsonShape::Object { Evidence::Proof } else { Evidence::None }
    }

    fn parse(&self, index: IndexText<'_>) -> Result<ParsedIndex, Error> {
        let parsed = ShardIndex::parse(&index.json).map_err(|source| Error::format(index.name, source))?;
        let files = parsed.shards().to_vec();
        Ok(ParsedIndex { files, parser: Box::new(Parser { index: Some((index.name.to_owned(), parsed)) }) })
    }
}

/// Parses headers, and checks them against the index if there is one.
#[derive(Debug)]
struct Parser {
    index: Option<(String, ShardIndex)>,
}

impl HeaderParser for Parser {
    fn format(&self) -> FormatId {
        SAFETENSORS
    }

    fn first_read(&self, len: u64) -> u64 {
        first_read(len, FIRST_READ)
    }

    fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, Error> {
        let FileStart { name, len, bytes } = start;
        let invalid = |source| Error::format(name, source);
        let range = header_range(bytes, len).map_err(invalid)?;
        let Some(json) = bytes.get(range.indices()) else {
            return Ok(HeaderState::Needs(range.end()));
        };
        Header::parse(json, len).map_err(invalid)?.add_to(catalog, name, len)?;
        Ok(HeaderState::Complete)
    }

    fn finish(&self, catalog: CatalogBuilder) -> Result<Headers, Error> {
        let catalog = catalog.finish()?;
        let (mut index_metadata, mut warnings) = (Vec::new(), Vec::new());
        if let Some((name, index)) = &self.index {
            index.check(&catalog).map_err(|source| Error::format(name, source))?;
            let total = catalog.tensor_bytes();
            if let Some(claimed) = index.total_size().filter(|&claimed| claimed != total) {
                warnings.push(Warning::TotalSize { index: name.clone(), claimed, found: total });
            }
            index_metadata = index.metadata().to_vec();
        }
        Ok(Headers { catalog, index_metadata, warnings })
    }
}
