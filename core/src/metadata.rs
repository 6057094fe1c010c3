//! What a checkpoint says of itself besides its tensors.
//!
//! Safetensors has texts alone; GGUF has numbers and arrays too, among them a tokenizer's of hundreds of thousands of strings. Of an array
//! the catalog keeps where it lies and how it begins.

use crate::units::ByteRange;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// A value of a checkpoint's metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// Text. Untrusted: print it through [`Escaped`](crate::Escaped).
    Text(String),
    /// True or false.
    Bool(bool),
    /// A whole number of an unsigned type.
    Unsigned(u64),
    /// A whole number of a signed type.
    Signed(i64),
    /// A number of single precision.
    F32(f32),
    /// A number of double precision.
    F64(f64),
    /// An array.
    List(Box<MetadataList>),
}

/// An array of a checkpoint's metadata: how it begins, and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataList {
    /// The type of its elements, as the format names it.
    pub element: &'static str,
    /// How many there are.
    pub count: u64,
    /// Where they lie in the file.
    pub range: ByteRange,
    /// The first of them, [`MetadataList::SHOWN`] at most; of each text the first [`MetadataList::SHOWN_CHARS`] characters at most, and an
    /// ellipsis if that is not all.
    pub first: Vec<MetadataValue>,
}

impl MetadataList {
    /// How many elements are kept.
    pub const SHOWN: usize = 8;
    /// How many characters of an element are kept.
    pub const SHOWN_CHARS: usize = 100;
}

impl MetadataValue {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&str> for MetadataValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for MetadataValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_takes_no_more_room_than_a_text() {
        // A safetensors header may hold millions of pairs.
        assert_eq!(size_of::<MetadataValue>(), size_of::<String>());
    }
}
