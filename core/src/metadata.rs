//! Metadata values of checkpoints.
//!
//! Safetensors has only texts. GGUF also has numbers and arrays, such as a tokenizer's hundreds of
//! thousands of strings. A catalog stores only the location and the first elements of an array.

use crate::units::ByteRange;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// A metadata value of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A text. Untrusted: print it through [`Escaped`](crate::Escaped).
    Text(String),
    /// A boolean.
    Bool(bool),
    /// An integer of an unsigned type.
    Unsigned(u64),
    /// An integer of a signed type.
    Signed(i64),
    /// A single-precision number.
    F32(f32),
    /// A double-precision number.
    F64(f64),
    /// An array.
    List(Box<MetadataList>),
}

/// An array in a checkpoint's metadata: its location and its first elements.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataList {
    /// The element type, as the format names it.
    pub element: &'static str,
    /// The number of elements.
    pub count: u64,
    /// The range in the file.
    pub range: ByteRange,
    /// The first elements, at most [`MetadataList::SHOWN`].
    ///
    /// Each text is shortened to [`MetadataList::SHOWN_CHARS`] characters and an ellipsis.
    pub first: Vec<MetadataValue>,
}

impl MetadataList {
    /// The maximum number of stored elements.
    pub const SHOWN: usize = 8;
    /// The maximum number of stored characters of an element.
    pub const SHOWN_CHARS: usize = 100;
}

impl MetadataValue {
    /// Returns the text, if it is one.
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
