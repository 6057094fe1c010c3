//! Prints metadata as text and as JSON.
//!
//! Arrays are abbreviated in both: those of a tokenizer have hundreds of thousands of elements.

use floodtide::core::{Escaped, MetadataList, MetadataValue, Quoted};
use serde::{Serialize, Serializer};
use std::fmt;
use std::io::{self, Write};

/// How much of a text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    /// The full text.
    Whole,
    /// About one line: some texts are programs of 10 KB.
    Short,
}

/// Writes one line per pair.
pub(crate) fn lines(out: &mut impl Write, pairs: &[(String, MetadataValue)], texts: Texts) -> io::Result<()> {
    pairs.iter().try_for_each(|(key, value)| writeln!(out, "{} = {}", Escaped(key), Shown { value, texts }))
}

struct Shown<'a> {
    value: &'a MetadataValue,
    texts: Texts,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.texts) {
            (MetadataValue::Text(text), Texts::Whole) => write!(f, "{}", Escaped(text)),
            (MetadataValue::Text(text), Texts::Short) => write!(f, "{}", Quoted(text)),
            (MetadataValue::Bool(value), _) => write!(f, "{value}"),
            (MetadataValue::Unsigned(value), _) => write!(f, "{value}"),
            (MetadataValue::Signed(value), _) => write!(f, "{value}"),
            (MetadataValue::F32(value), _) => write!(f, "{value}"),
            (MetadataValue::F64(value), _) => write!(f, "{value}"),
            (MetadataValue::List(list), texts) => list_line(f, list, texts),
        }
    }
}

/// `string[32000] ["<unk>", "<s>", …]`.
fn list_line(f: &mut fmt::Formatter<'_>, list: &MetadataList, texts: Texts) -> fmt::Result {
    write!(f, "{}[{}] [", list.element, list.count)?;
    for (i, value) in list.first.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        match value {
            MetadataValue::Text(text) => write!(f, "{comma}\"{}\"", Escaped(text))?,
            value => write!(f, "{comma}{}", Shown { value, texts })?,
        }
    }
    f.write_str(if list.count > list.first.len() as u64 { ", …]" } else { "]" })
}

/// Serializes keys and values as an object.
pub(crate) struct Pairs<'a>(pub(crate) &'a [(String, MetadataValue)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Value(value))))
    }
}

/// Serializes a value: a string, a boolean, a number (null for NaN and infinities), or the summary
/// of an array.
struct Value<'a>(&'a MetadataValue);

#[derive(Serialize)]
struct List<'a> {
    #[serde(rename = "type")]
    element: &'a str,
    count: u64,
    offset: u64,
    bytes: u64,
    first: Vec<Value<'a>>,
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            MetadataValue::Text(text) => serializer.serialize_str(text),
            MetadataValue::Bool(value) => serializer.serialize_bool(*value),
            MetadataValue::Unsigned(value) => serializer.serialize_u64(*value),
            MetadataValue::Signed(value) => serializer.serialize_i64(*value),
            MetadataValue::F32(value) => serializer.serialize_f32(*value),
            MetadataValue::F64(value) => serializer.serialize_f64(*value),
            MetadataValue::List(list) => List {
                element: list.element,
                count: list.count,
                offset: list.range.start(),
                bytes: list.range.len(),
                first: list.first.iter().map(Value).collect(),
            }
            .serialize(serializer),
        }
    }
}
