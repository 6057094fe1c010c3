//! Parses the index's JSON in one pass with serde_json into flat vectors.

use super::ServerlessLlmError;
use crate::escape::without_middle;
use crate::format::numbers::Numbers;
use crate::format::text::Text;
use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A record as in the JSON, not yet checked.
#[derive(Debug)]
pub(super) struct RawRecord<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) dims: Range<usize>,
    pub(super) strides: Range<usize>,
    pub(super) dtype: Cow<'a, str>,
    /// The sixth element, if there is one.
    pub(super) partition: Option<u64>,
}

/// An index in the order of the JSON, not yet checked.
#[derive(Debug, Default)]
pub(super) struct RawIndex<'a> {
    pub(super) records: Vec<RawRecord<'a>>,
    pub(super) dims: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

pub(super) fn parse(json: &[u8]) -> Result<RawIndex<'_>, ServerlessLlmError> {
    let mut index = RawIndex::default();
    let mut name = None;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    IndexSeed { index: &mut index, name: &mut name }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| match name {
        Some(name) => {
            ServerlessLlmError::Record { name: name.into_owned(), message: without_middle(error.to_string()) }
        }
        None => ServerlessLlmError::Json { message: without_middle(error.to_string()) },
    })?;
    Ok(index)
}

struct IndexSeed<'i, 'a> {
    index: &'i mut RawIndex<'a>,
    /// The name of the current record, for error messages.
    name: &'i mut Option<Cow<'a, str>>,
}

impl<'a> DeserializeSeed<'a> for IndexSeed<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for IndexSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of records")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            *self.name = Some(name);
            let (dims, strides) = (self.index.dims.len(), self.index.strides.len());
            let fields = map.next_value_seed(RecordSeed { index: self.index })?;
            let Fields { offset, size, dtype, partition } = fields;
            if let Some(name) = self.name.take() {
                let (dims, strides) = (dims..self.index.dims.len(), strides..self.index.strides.len());
                self.index.records.push(RawRecord { name, offset, size, dims, strides, dtype, partition });
            }
        }
        Ok(())
    }
}

/// The fields of a record except shape and strides, which go to the shared vectors.
struct Fields<'a> {
    offset: u64,
    size: u64,
    dtype: Cow<'a, str>,
    partition: Option<u64>,
}

struct RecordSeed<'i, 'a> {
    index: &'i mut RawIndex<'a>,
}

impl<'a> DeserializeSeed<'a> for RecordSeed<'_, 'a> {
    type Value = Fields<'a>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Fields<'a>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

const WHOLE: &str = "5 elements (offset, size, shape, stride, dtype), or 6 with the partition's number";

impl<'a> Visitor<'a> for RecordSeed<'_, 'a> {
    type Value = Fields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record of {WHOLE}")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Fields<'a>, A::Error> {
        let short = |found| A::Error::invalid_length(found, &WHOLE);
        let offset = seq.next_element()?.ok_or_else(|| short(0))?;
        let size = seq.next_element()?.ok_or_else(|| short(1))?;
        let dims = Numbers { into: &mut self.index.dims, what: "a shape" };
        seq.next_element_seed(dims)?.ok_or_else(|| short(2))?;
        let strides = Numbers { into: &mut self.index.strides, what: "strides" };
        seq.next_element_seed(strides)?.ok_or_else(|| short(3))?;
        let Text(dtype) = seq.next_element()?.ok_or_else(|| short(4))?;
        let partition = seq.next_element()?;
        if seq.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom(format_args!("there are more than {WHOLE}")));
        }
        Ok(Fields { offset, size, dtype, partition })
    }
}
