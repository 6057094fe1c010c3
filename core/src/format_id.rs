//! Formats by name: what a catalog records of the format that it was read from.

use core::fmt;
use core::hash::{Hash, Hasher};

/// A checkpoint format, by name.
///
/// The format's code is found by [`format::find`](crate::format::find).
///
/// ```
/// use floodtide_core::format::{GGUF, SAFETENSORS};
///
/// assert_eq!((GGUF.name(), GGUF.title()), ("gguf", "GGUF"));
/// assert_ne!(GGUF, SAFETENSORS);
/// ```
#[derive(Clone, Copy)]
pub struct FormatId {
    name: &'static str,
    title: &'static str,
}

impl FormatId {
    /// Returns the format of that name, which no other format has.
    #[must_use]
    pub const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title }
    }

    /// Returns the name that options, reports and JSON use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Returns the name as its authors write it, for sentences.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.title
    }
}

impl PartialEq for FormatId {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for FormatId {}

impl Hash for FormatId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for FormatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for FormatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
