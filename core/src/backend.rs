//! Backends: the ways in which a storage reads.

use core::fmt;

/// A backend: one way of reading the files of a storage.
///
/// It has a name, and a style that the strategy uses. Storages register their own backends. Core
/// knows none by name.
///
/// ```
/// use floodtide_core::{Backend, ReadStyle};
///
/// const RING: Backend = Backend::new("ring", ReadStyle::Queue, "a ring of requests");
/// assert_eq!((RING.name(), RING.style()), ("ring", ReadStyle::Queue));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend {
    name: &'static str,
    style: ReadStyle,
    about: &'static str,
}

/// How a backend reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadStyle {
    /// One worker keeps many reads in flight and waits for any of them, as with a ring.
    Queue,
    /// One worker makes one read at a time and waits for it.
    Blocking,
    /// One worker hands reads to tasks of an async runtime.
    Tasks,
    /// Tensors are views of the files. Bytes that are misaligned in memory are copied by blocking
    /// reads.
    Mapped,
}

impl Backend {
    /// Creates a backend. `about` describes it in a few words, for a list of choices.
    #[must_use]
    pub const fn new(name: &'static str, style: ReadStyle, about: &'static str) -> Self {
        Self { name, style, about }
    }

    /// Returns the name that options, reports and JSON use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Returns how the backend reads.
    #[must_use]
    pub const fn style(self) -> ReadStyle {
        self.style
    }

    /// Returns a description of a few words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.about
    }

    /// Returns true if tensors are views of the storage's own memory.
    #[must_use]
    pub const fn is_mapped(self) -> bool {
        matches!(self.style, ReadStyle::Mapped)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
