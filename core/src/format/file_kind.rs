//! What a file is, told from its bytes: names are only a hint.

use super::safetensors::MAX_HEADER_BYTES;
use super::text::Text;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// So many of a file's first bytes tell what it is.
pub const SNIFF_BYTES: usize = 16;

/// What a file's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// The length of a header, and the beginning of its JSON.
    Safetensors,
    /// The magic `GGUF`.
    Gguf,
    /// A JSON object; if it is an index, [`index_kind`] says of what.
    Json,
    /// What `torch.save` writes: a zip archive, or a bare pickle of protocol 2 and up.
    Pickle,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// What a file is that starts with these bytes: [`SNIFF_BYTES`] of them, or all where there are fewer.
    #[must_use]
    pub fn sniff(start: &[u8]) -> Self {
        // First, as the length of a header can be any bytes: 898 looks like a pickle, 0x7b like an object.
        if is_header(start) {
            return Self::Safetensors;
        }
        if start.starts_with(b"GGUF") {
            return Self::Gguf;
        }
        if start.starts_with(b"PK\x03\x04") || (start.len() > 1 && start[0] == 0x80 && (2..6).contains(&start[1])) {
            return Self::Pickle;
        }
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
        match text.iter().find(|byte| !is_space(**byte)) {
            Some(b'{') => Self::Json,
            _ => Self::Unknown,
        }
    }
}

/// Whether it is a length that a safetensors header may have, with the beginning of an object after it. JSON has no zero byte, and such a
/// length has four.
fn is_header(start: &[u8]) -> bool {
    let Some((length, text)) = start.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    length <= MAX_HEADER_BYTES && text.first().is_some_and(|&byte| byte == b'{' || is_space(byte))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// What a JSON object is the index of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// Shards of safetensors: it has a `weight_map`.
    Shards,
    /// A ServerlessLLM checkpoint: it has records, which are arrays.
    ServerlessLlm,
}

/// What the JSON is the index of; `None` when it has neither a `weight_map` nor a record, or is no JSON before one comes. Whether it is valid is
/// for the index's parser to say.
#[must_use]
pub fn index_kind(json: &[u8]) -> Option<IndexKind> {
    let mut kind = None;
    // An error only ends the search, also where it is one of the JSON.
    let _ = KindSeed { kind: &mut kind }.deserialize(&mut serde_json::Deserializer::from_slice(json));
    kind
}

struct KindSeed<'k> {
    kind: &'k mut Option<IndexKind>,
}

impl<'de> DeserializeSeed<'de> for KindSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for KindSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let is_map = key == "weight_map";
            map.next_value_seed(ValueSeed { kind: self.kind, is_map })?;
        }
        Ok(())
    }
}

/// Looks at a value of the object; an error ends the search, as enough is known.
struct ValueSeed<'k> {
    kind: &'k mut Option<IndexKind>,
    /// Whether its key is `weight_map`.
    is_map: bool,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.is_map {
            *self.kind = Some(IndexKind::Shards);
            return Err(A::Error::custom("enough is known"));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // An array may be anything in an index of shards, but hardly with an offset and a size at its beginning.
        *self.kind = Some(IndexKind::ServerlessLlm);
        let (offset, size) = (seq.next_element::<Value>()?, seq.next_element::<Value>()?);
        if [offset, size].iter().flatten().filter(|value| value.is_u64()).count() == 2 {
            return Err(A::Error::custom("enough is known"));
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let header = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes()].concat();
        for (start, content) in [
            (header(2, "{}"), FileKind::Safetensors),
            (header(9, "   {}    "), FileKind::Safetensors),
            // Lengths that look like something else.
            (header(0x7b, "{\"a\":{\"d"), FileKind::Safetensors),
            (header(0x0382, "{\"a\":{\"d"), FileKind::Safetensors),
            (header(u64::from(u32::from_le_bytes(*b"PK\x03\x04")), "{"), FileKind::Safetensors),
            (header(MAX_HEADER_BYTES + 1, "{}"), FileKind::Unknown),
            (header(2, "[]"), FileKind::Unknown),
            (b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec(), FileKind::Gguf),
            (b"GGUF".to_vec(), FileKind::Gguf),
            (b"FUGG\0\0\0\x03".to_vec(), FileKind::Unknown),
            (b"{\"a\": [0, 4,".to_vec(), FileKind::Json),
            (b"\xef\xbb\xbf\n\t {".to_vec(), FileKind::Json),
            (b"{".to_vec(), FileKind::Json),
            (b"[1]".to_vec(), FileKind::Unknown),
            (b"PK\x03\x04\x14\0\0\0".to_vec(), FileKind::Pickle),
            // Protocol 4 begins with the length of a frame.
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c".to_vec(), FileKind::Pickle),
            (b"\x80\x02\x8a\nl\xfc\x9cF".to_vec(), FileKind::Pickle),
            (b"\x80\x06".to_vec(), FileKind::Unknown),
            (b"".to_vec(), FileKind::Unknown),
            (b" ".to_vec(), FileKind::Unknown),
        ] {
            assert_eq!(FileKind::sniff(&start[..start.len().min(SNIFF_BYTES)]), content, "{start:?}");
        }
    }

    #[test]
    fn an_index_is_told_by_what_it_holds() {
        let record = "[0,4,[1],[1],\"torch.float32\"]";
        for (json, kind) in [
            (format!(r#"{{"t":{record}}}"#), Some(IndexKind::ServerlessLlm)),
            // A tensor may have any name.
            (format!(r#"{{"weight_map":{record}}}"#), Some(IndexKind::ServerlessLlm)),
            (format!(r#"{{"metadata":{record},"t":{record}}}"#), Some(IndexKind::ServerlessLlm)),
            // Broken, but of that kind.
            (r#"{"t":[0,4,"#.into(), Some(IndexKind::ServerlessLlm)),
            (r#"{"t":[-1,4]}"#.into(), Some(IndexKind::ServerlessLlm)),
            (r#"{"t":[]}"#.into(), Some(IndexKind::ServerlessLlm)),
            (r#"{"weight_map":{"t":"a"}}"#.into(), Some(IndexKind::Shards)),
            (r#"{"metadata":{"total_size":4},"weight_map":{"t":"#.into(), Some(IndexKind::Shards)),
            (
                r#"{"languages":["en","de"],"a":1,"b":-1,"c":1.5,"d":null,"e":true,"f":"g","weight_map":{}}"#.into(),
                Some(IndexKind::Shards),
            ),
            (r#"{"weight_map":"a"}"#.into(), None),
            (r#"{"metadata":{"weight_map":{}}}"#.into(), None),
            ("{}".into(), None),
            ("[]".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(index_kind(json.as_bytes()), kind, "{json}");
        }
    }
}
