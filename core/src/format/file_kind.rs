//! Detects formats from file contents, not from extensions.
//!
//! Formats are tried first. Files that are not checkpoints are classified here, so that messages
//! can name what was found.

use super::text::Text;
use super::{Evidence, Format, JsonShape};
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The number of bytes at the start of a file that [`FileKind::sniff`] needs.
pub const SNIFF_BYTES: usize = 16;

/// The kind of a file, detected from its first bytes.
#[derive(Debug, Clone, Copy)]
pub enum FileKind<'f> {
    /// A file of tensors.
    Checkpoint(&'f dyn Format),
    /// A JSON object. If it is an index, [`index_format`] returns its format.
    Json,
    /// A file from `torch.save`: a zip archive, or a bare pickle of protocol 2 or later.
    Pickle,
    /// Another kind of file.
    Unknown,
}

impl<'f> FileKind<'f> {
    /// Detects the kind from the first [`SNIFF_BYTES`] bytes of a file, or all bytes of a shorter
    /// file.
    #[must_use]
    pub fn sniff(formats: &[&'f dyn Format], start: &[u8]) -> Self {
        let start = &start[..start.len().min(SNIFF_BYTES)];
        // Formats come first, because a safetensors header length can look like anything: 898 like
        // a pickle, 0x7b like an object.
        if let Some(format) = formats.iter().find(|format| format.sniff(start)) {
            return Self::Checkpoint(*format);
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

/// Returns true for JSON white space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Common extensions of pickles.
const PICKLE_EXTENSIONS: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];

/// Returns true if the name has a common extension of pickles.
#[must_use]
pub fn is_pickle_name(name: &str) -> bool {
    extension(name).is_some_and(|extension| PICKLE_EXTENSIONS.contains(&extension))
}

/// Returns the part of a name after its last dot.
#[must_use]
pub fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension)
}

/// Returns the format of a JSON index and the evidence for it, or `None` if no member indicates one.
///
/// The format's parser decides whether the index is valid.
#[must_use]
pub fn index_format<'f>(formats: &[&'f dyn Format], json: &[u8]) -> Option<(&'f dyn Format, Evidence)> {
    let mut search = Search { formats, found: None };
    // An error only ends the search, even if the JSON is malformed.
    let _ = (&mut search).deserialize(&mut serde_json::Deserializer::from_slice(json));
    search.found
}

/// Visits the members of an object until one proves the format.
struct Search<'s, 'f> {
    formats: &'s [&'f dyn Format],
    found: Option<(&'f dyn Format, Evidence)>,
}

impl Search<'_, '_> {
    /// Returns true if the format is certain.
    fn weigh(&mut self, key: &str, shape: JsonShape) -> bool {
        for &format in self.formats {
            let evidence = format.index().map_or(Evidence::None, |index| index.evidence(key, shape));
            if evidence > Evidence::None {
                self.found = Some((format, evidence));
            }
            if evidence == Evidence::Proof {
                return true;
            }
        }
        false
    }
}

impl<'de> DeserializeSeed<'de> for &mut Search<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Search<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            map.next_value_seed(Member { search: &mut *self, key: &key })?;
        }
        Ok(())
    }
}

/// Visits a member's value. An error ends the search, because the format is certain.
struct Member<'m, 's, 'f> {
    search: &'m mut Search<'s, 'f>,
    key: &'m str,
}

impl Member<'_, '_, '_> {
    fn weigh<E: Error>(&mut self, shape: JsonShape) -> Result<(), E> {
        if self.search.weigh(self.key, shape) { Err(E::custom("enough is known")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.weigh(JsonShape::Object)?;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        // A truncated array is still an array.
        self.weigh(JsonShape::Array)?;
        let (first, second) = (seq.next_element::<Value>()?, seq.next_element::<Value>()?);
        if [first, second].iter().flatten().filter(|value| value.is_u64()).count() == 2 {
            self.weigh(JsonShape::Record)?;
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
    use crate::format::safetensors::MAX_HEADER_BYTES;
    use crate::format::{FORMATS, GGUF, SAFETENSORS, SERVERLESSLLM};
    use alloc::format;
    use alloc::string::String;

    /// Returns the name of a kind.
    fn kind(start: &[u8]) -> &'static str {
        match FileKind::sniff(FORMATS, start) {
            FileKind::Checkpoint(format) => format.id().name(),
            FileKind::Json => "JSON",
            FileKind::Pickle => "pickle",
            FileKind::Unknown => "unknown",
        }
    }

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let header = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes()].concat();
        for (start, expected) in [
            (header(2, "{}"), SAFETENSORS.name()),
            (header(9, "   {}    "), SAFETENSORS.name()),
            // Lengths that look like another kind of file.
            (header(0x7b, "{\"a\":{\"d"), SAFETENSORS.name()),
            (header(0x0382, "{\"a\":{\"d"), SAFETENSORS.name()),
            (header(u64::from(u32::from_le_bytes(*b"PK\x03\x04")), "{"), SAFETENSORS.name()),
            (header(MAX_HEADER_BYTES + 1, "{}"), "unknown"),
            (header(2, "[]"), "unknown"),
            (b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec(), GGUF.name()),
            (b"GGUF".to_vec(), GGUF.name()),
            (b"FUGG\0\0\0\x03".to_vec(), "unknown"),
            (b"{\"a\": [0, 4,".to_vec(), "JSON"),
            (b"\xef\xbb\xbf\n\t {".to_vec(), "JSON"),
            (b"{".to_vec(), "JSON"),
            (b"[1]".to_vec(), "unknown"),
            (b"PK\x03\x04\x14\0\0\0".to_vec(), "pickle"),
            // Protocol 4 starts with the length of a frame.
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c".to_vec(), "pickle"),
            (b"\x80\x02\x8a\nl\xfc\x9cF".to_vec(), "pickle"),
            (b"\x80\x06".to_vec(), "unknown"),
            (b"".to_vec(), "unknown"),
            (b" ".to_vec(), "unknown"),
        ] {
            assert_eq!(kind(&start), expected, "{start:?}");
            let cut = &start[..start.len().min(SNIFF_BYTES)];
            assert_eq!(kind(cut), expected, "{start:?}");
        }
    }

    #[test]
    fn an_index_is_told_by_what_it_holds() {
        let record = "[0,4,[1],[1],\"torch.float32\"]";
        for (json, expected) in [
            (format!(r#"{{"t":{record}}}"#), Some(SERVERLESSLLM)),
            // A tensor may have any name.
            (format!(r#"{{"weight_map":{record}}}"#), Some(SERVERLESSLLM)),
            (format!(r#"{{"metadata":{record},"t":{record}}}"#), Some(SERVERLESSLLM)),
            // Malformed, but of this format.
            (r#"{"t":[0,4,"#.into(), Some(SERVERLESSLLM)),
            (r#"{"t":[-1,4]}"#.into(), Some(SERVERLESSLLM)),
            (r#"{"t":[]}"#.into(), Some(SERVERLESSLLM)),
            (r#"{"weight_map":{"t":"a"}}"#.into(), Some(SAFETENSORS)),
            (r#"{"metadata":{"total_size":4},"weight_map":{"t":"#.into(), Some(SAFETENSORS)),
            (
                r#"{"languages":["en","de"],"a":1,"b":-1,"c":1.5,"d":null,"e":true,"f":"g","weight_map":{}}"#.into(),
                Some(SAFETENSORS),
            ),
            (r#"{"weight_map":"a"}"#.into(), None),
            (r#"{"metadata":{"weight_map":{}}}"#.into(), None),
            ("{}".into(), None),
            ("[]".into(), None),
            (String::new(), None),
        ] {
            let found = index_format(FORMATS, json.as_bytes()).map(|(format, _)| format.id());
            assert_eq!(found, expected, "{json}");
        }
    }
}
