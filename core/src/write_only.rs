//! Memory that safe code can fill but not read.

use core::ops::Range;

/// Bytes to be filled. What they held before may be another borrower's, so there is no way to read them.
#[derive(Debug)]
pub struct WriteOnly<'a>(&'a mut [u8]);

impl<'a> WriteOnly<'a> {
    /// Hides what is in `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A part of it.
    ///
    /// # Panics
    /// When the range passes the end.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        Self(&mut self.0[range])
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Panics
    /// When they pass the end.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes the same byte everywhere.
    pub fn fill(&mut self, byte: u8) {
        self.0.fill(byte);
    }

    /// Where it starts, for a system call that writes there.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}
