//! Ways of reading, as storages register them.

use core::fmt;

/// A way of reading files of a storage: its name, and what the strategy must know of it.
///
/// A storage registers its own; core knows none by name.
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
    /// One worker keeps many reads in flight and waits for any of them: a ring, a set of connections.
    Queue,
    /// One worker makes one read and waits for it.
    Blocking,
    /// One worker hands reads to tasks of an async runtime, which wait for them.
    Tasks,
    /// Files are viewed where they are. What does not suit memory there is copied by blocking reads.
    Mapped,
}

impl Backend {
    /// Returns the backend of that name and style. `about` says in a few words how it reads, for a list of choices.
    #[must_use]
    pub const fn new(name: &'static str, style: ReadStyle, about: &'static str) -> Self {
        Self { name, style, about }
    }

    /// Returns the name that options, reports and JSON use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Returns how it reads.
    #[must_use]
    pub const fn style(self) -> ReadStyle {
        self.style
    }

    /// Returns how it reads in a few words.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.about
    }

    /// Returns true when tensors of a load are views of the storage's own memory.
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
