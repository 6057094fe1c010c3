//! Converts header values to the metadata of a catalog.

use super::{Array, Value};
use crate::metadata::{MetadataList, MetadataValue};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;

impl From<&Value<'_>> for MetadataValue {
    /// Replaces bytes that are not UTF-8.
    fn from(value: &Value<'_>) -> Self {
        match value {
            Value::String(bytes) => Self::Text(String::from_utf8_lossy(bytes).into_owned()),
            Value::Array(array) => Self::List(Box::new(array.into())),
            Value::Bool(value) => Self::Bool(*value),
            Value::U8(value) => Self::Unsigned((*value).into()),
            Value::U16(value) => Self::Unsigned((*value).into()),
            Value::U32(value) => Self::Unsigned((*value).into()),
            Value::U64(value) => Self::Unsigned(*value),
            Value::I8(value) => Self::Signed((*value).into()),
            Value::I16(value) => Self::Signed((*value).into()),
            Value::I32(value) => Self::Signed((*value).into()),
            Value::I64(value) => Self::Signed(*value),
            Value::F32(value) => Self::F32(*value),
            Value::F64(value) => Self::F64(*value),
        }
    }
}

impl From<&Array<'_>> for MetadataList {
    fn from(array: &Array<'_>) -> Self {
        let first = array.iter().take(Self::SHOWN).map(|value| match value {
            Value::String(bytes) => MetadataValue::Text(beginning(bytes)),
            other => (&other).into(),
        });
        Self { element: array.element.name(), count: array.count, range: array.range, first: first.collect() }
    }
}

/// Returns the first characters of a text that may be as long as its file.
fn beginning(bytes: &[u8]) -> String {
    // A character has at most four bytes. A character that is cut here is dropped below.
    let text: Cow<'_, str> = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * (MetadataList::SHOWN_CHARS + 1))]);
    match text.char_indices().nth(MetadataList::SHOWN_CHARS) {
        Some((end, _)) => String::from(&text[..end]) + "…",
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_values() {
        for (value, expected) in [
            (Value::U8(200), MetadataValue::Unsigned(200)),
            (Value::U16(1), MetadataValue::Unsigned(1)),
            (Value::U32(u32::MAX), MetadataValue::Unsigned(4_294_967_295)),
            (Value::U64(u64::MAX), MetadataValue::Unsigned(u64::MAX)),
            (Value::I8(-1), MetadataValue::Signed(-1)),
            (Value::I16(-1), MetadataValue::Signed(-1)),
            (Value::I32(i32::MIN), MetadataValue::Signed(-2_147_483_648)),
            (Value::I64(i64::MIN), MetadataValue::Signed(i64::MIN)),
            (Value::F32(0.1), MetadataValue::F32(0.1)),
            (Value::F64(0.1), MetadataValue::F64(0.1)),
            (Value::Bool(true), MetadataValue::Bool(true)),
            (Value::String("ä".as_bytes()), "ä".into()),
            (Value::String(b"a\xffb"), "a\u{fffd}b".into()),
        ] {
            assert_eq!(MetadataValue::from(&value), expected, "{value:?}");
            assert_eq!(expected.as_text().is_some(), matches!(value, Value::String(_)));
        }
    }

    #[test]
    fn beginnings_end_at_a_character() {
        let long = "模".repeat(MetadataList::SHOWN_CHARS);
        assert_eq!(beginning(long.as_bytes()), long);
        assert_eq!(beginning((long.clone() + "x").as_bytes()), long.clone() + "…");
        let four = "𝄞".repeat(2 * MetadataList::SHOWN_CHARS);
        assert_eq!(beginning(four.as_bytes()).chars().count(), MetadataList::SHOWN_CHARS + 1);
        assert!(beginning(&[0xff; 5000]).chars().all(|c| c == '\u{fffd}' || c == '…'));
    }
}
