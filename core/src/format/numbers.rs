//! A JSON array of unsigned integers, read into a vector that all arrays of a file share.

use alloc::vec::Vec;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// Reads an array behind what is in `into`.
pub(super) struct Numbers<'h> {
    pub(super) into: &'h mut Vec<u64>,
    /// What the array is, for messages: "a shape".
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
