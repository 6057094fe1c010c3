//! Parses JSON arrays of unsigned integers into one vector per file.

use alloc::vec::Vec;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// Parses an array and appends it to `into`.
pub(super) struct Numbers<'h> {
    pub(super) into: &'h mut Vec<u64>,
    /// A description of the array for messages: "a shape".
    pub(super) what: &'static str,
}

impl<'de> DeserializeSeed<'de> for Numbers<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Numbers<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: an array of unsigned integers", self.what)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(number) = seq.next_element()? {
            self.into.push(number);
        }
        Ok(())
    }
}
