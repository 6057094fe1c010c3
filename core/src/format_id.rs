//! Format ids, which a catalog stores.

use core::fmt;
use core::hash::{Hash, Hasher};

/// The id of a checkpoint format.
///
/// [`format::find`](crate::format::find) returns the format's code.
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
    /// Creates the id of a format. `name` must be unique.
    #[must_use]
    pub const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title }
    }

    /// Returns the name that options, reports and JSON use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Returns the name for messages, as its authors write it.
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
