//! Parses the header's JSON in one pass with serde_json into flat vectors.
//!
//! The reference collects the map through serde's `flatten`, which copies every value into a tree.
//! This visitor parses entries directly. It must agree with the reference on all cases that serde
//! allows there: an entry may be an array of three elements, unknown keys are allowed if their
//! values are well-formed, and `__metadata__` may be null.

use super::HeaderError;
use crate::dtype::DType;
use crate::escape::{Quoted, without_middle};
use crate::format::numbers::Numbers;
use crate::format::text::Text;
use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// An entry as in the JSON, not yet checked.
#[derive(Debug)]
pub(super) struct RawEntry<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) dtype: DType,
    pub(super) dims: Range<usize>,
    /// Offsets from the start of the data.
    pub(super) data_offsets: (u64, u64),
}

/// A header in the order of the JSON, not yet checked.
#[derive(Debug, Default)]
pub(super) struct RawHeader<'a> {
    pub(super) entries: Vec<RawEntry<'a>>,
    pub(super) dims: Vec<u64>,
    pub(super) metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

pub(super) fn parse(text: &str) -> Result<RawHeader<'_>, HeaderError> {
    let mut header = RawHeader::default();
    let mut entry_name = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    HeaderSeed { header: &mut header, entry_name: &mut entry_name }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| match entry_name {
            Some(name) => HeaderError::Entry { name: name.into_owned(), message: without_middle(error.to_string()) },
            None => HeaderError::Json { message: without_middle(error.to_string()) },
        })?;
    Ok(header)
}

struct HeaderSeed<'h, 'a> {
    header: &'h mut RawHeader<'a>,
    /// The name of the current entry, for error messages.
    entry_name: &'h mut Option<Cow<'a, str>>,
}

impl<'a> DeserializeSeed<'a> for HeaderSeed<'_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for HeaderSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut metadata_seen = false;
        while let Some(Text(name)) = map.next_key()? {
            if name == "__metadata__" {
                if core::mem::replace(&mut metadata_seen, true) {
                    return Err(A::Error::custom("__metadata__ occurs twice"));
                }
                if let Some(Metadata(pairs)) = map.next_value()? {
                    self.header.metadata = pairs;
                }
                continue;
            }
            *self.entry_name = Some(name);
            let start = self.header.dims.len();
            let Fields { dtype, data_offsets } = map.next_value_seed(EntrySeed { dims: &mut self.header.dims })?;
            if let Some(name) = self.entry_name.take() {
                let dims = start..self.header.dims.len();
                self.header.entries.push(RawEntry { name, dtype, dims, data_offsets });
            }
        }
        Ok(())
    }
}

/// The fields of an entry except its shape, which goes to the shared vector.
struct Fields {
    dtype: DType,
    data_offsets: (u64, u64),
}

struct EntrySeed<'h> {
    dims: &'h mut Vec<u64>,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Fields;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_struct("TensorInfo", &["dtype", "shape", "data_offsets"], self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut dtype, mut data_offsets, mut has_shape) = (None, None, false);
        let mut unknown: Vec<Cow<'de, str>> = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            let twice = match key.as_ref() {
                "dtype" => dtype.replace(map.next_value()?).is_some(),
                "shape" => {
                    map.next_value_seed(Numbers { into: self.dims, what: "a shape" })?;
                    core::mem::replace(&mut has_shape, true)
                }
                "data_offsets" => data_offsets.replace(map.next_value()?).is_some(),
                _ => {
                    map.next_value::<WellFormed>()?;
                    unknown.push(key);
                    continue;
                }
            };
            if twice {
                return Err(A::Error::custom(format_args!("the key \"{key}\" occurs twice")));
            }
        }
        unknown.sort_unstable();
        if let Some(pair) = unknown.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(A::Error::custom(format_args!("the key \"{}\" occurs twice", Quoted(&pair[0]))));
        }
        if !has_shape {
            return Err(A::Error::missing_field("shape"));
        }
        Ok(Fields {
            dtype: dtype.ok_or_else(|| A::Error::missing_field("dtype"))?,
            data_offsets: data_offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Fields, A::Error> {
        let dtype = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &"3 elements"))?;
        seq.next_element_seed(Numbers { into: self.dims, what: "a shape" })?
            .ok_or_else(|| A::Error::invalid_length(1, &"3 elements"))?;
        let data_offsets = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(2, &"3 elements"))?;
        Ok(Fields { dtype, data_offsets })
    }
}

struct Metadata<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Deserialize<'a> for Metadata<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;
        impl<'a> Visitor<'a> for MetadataVisitor {
            type Value = Metadata<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("__metadata__ to be an object of strings")
            }
            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Metadata<'a>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Metadata(pairs))
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}

/// Any JSON value that the reference accepts, parsed without storing it.
///
/// `IgnoredAny` would skip numbers out of range and broken escapes.
struct WellFormed;

impl<'de> Deserialize<'de> for WellFormed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WellFormedVisitor;
        impl<'de> Visitor<'de> for WellFormedVisitor {
            type Value = WellFormed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_unit<E: Error>(self) -> Result<WellFormed, E> {
                Ok(WellFormed)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WellFormed, A::Error> {
                while seq.next_element::<WellFormed>()?.is_some() {}
                Ok(WellFormed)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WellFormed, A::Error> {
                while map.next_entry::<Text<'de>, WellFormed>()?.is_some() {}
                Ok(WellFormed)
            }
        }
        deserializer.deserialize_any(WellFormedVisitor)
    }
}
