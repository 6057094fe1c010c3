//! ServerlessLLM checkpoints as a [`Format`]: an index and the partitions beside it.

use super::layout::ServerlessLlmWriter;
use super::{INDEX_NAME, SERVERLESSLLM, TensorIndex, count_partitions, is_partition_name, partition_name};
use crate::catalog::CatalogBuilder;
use crate::convert::Writer;
use crate::error::Error;
use crate::format::{
    Claim, Evidence, FileStart, Format, HeaderParser, HeaderState, Headers, IndexFormat, IndexText, JsonShape,
    ParsedIndex,
};
use crate::format_id::FormatId;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The registered format of [`SERVERLESSLLM`].
#[derive(Debug)]
pub struct ServerlessLlm;

impl Format for ServerlessLlm {
    fn id(&self) -> FormatId {
        SERVERLESSLLM
    }

    fn expected(&self) -> &'static str {
        "a tensor_index.json"
    }

    fn claim(&self, name: &str) -> Option<Claim> {
        if name == INDEX_NAME {
            return Some(Claim::Index { usual: true });
        }
        is_partition_name(name).then_some(Claim::Part { index: INDEX_NAME })
    }

    /// A partition may start with any bytes.
    fn sniff(&self, _: &[u8]) -> bool {
        false
    }

    fn parser(&self) -> Option<Box<dyn HeaderParser>> {
        None
    }

    fn index(&self) -> Option<&dyn IndexFormat> {
        Some(self)
    }

    fn writer(&self) -> Option<&'static dyn Writer> {
        Some(&ServerlessLlmWriter)
    }
}

impl IndexFormat for ServerlessLlm {
    fn evidence(&self, _: &str, value: JsonShape) -> Evidence {
        match value {
            // An index of another format may contain arrays, but hardly any that start with an
            // offset and a size.
            JsonShape::Record => Evidence::Proof,
            JsonShape::Array => Evidence::Hint,
            JsonShape::Object => Evidence::None,
        }
    }

    fn needs_listing(&self) -> bool {
        true
    }

    fn parse(&self, index: IndexText<'_>) -> Result<ParsedIndex, Error> {
        let count = count_partitions(index.listing.iter().map(String::as_str));
        let count = count.map_err(|source| Error::format(index.name, source))?;
        let parser = Box::new(Parser { name: index.name.to_owned(), json: index.json });
        Ok(ParsedIndex { files: (0..count).map(partition_name).collect(), parser })
    }
}

/// Parses the index once the lengths of all partitions are known. Partitions have no headers.
#[derive(Debug)]
struct Parser {
    name: String,
    json: Vec<u8>,
}

impl HeaderParser for Parser {
    fn format(&self) -> FormatId {
        SERVERLESSLLM
    }

    fn first_read(&self, _: u64) -> u64 {
        0
    }

    fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, Error> {
        catalog.add_file(start.name, start.len)?;
        Ok(HeaderState::Complete)
    }

    fn finish(&self, mut catalog: CatalogBuilder) -> Result<Headers, Error> {
        let lengths: Vec<u64> = catalog.files().iter().map(|file| file.bytes).collect();
        let index = TensorIndex::parse(&self.json, &lengths).map_err(|source| Error::format(&*self.name, source))?;
        index.add_tensors_to(&mut catalog)?;
        Ok(Headers { catalog: catalog.finish()?, index_metadata: Vec::new(), warnings: Vec::new() })
    }
}
