//! Memory that safe code can fill but not read.

use core::fmt;
use core::ops::Range;

/// Bytes to fill. They may hold another borrower's data, so they cannot be read.
pub struct WriteOnly<'a>(&'a mut [u8]);

impl<'a> WriteOnly<'a> {
    /// Creates a write-only view of `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if the length is zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a part of the view.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        Self(&mut self.0[range])
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Panics
    /// Panics if they do not fit.
    #[track_caller]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let (new, len) = (bytes.len(), self.len());
        assert!(
            len.checked_sub(at).is_some_and(|left| new <= left),
            "{new} bytes written at {at} pass the end of memory of {len}"
        );
        self.0[at..at + new].copy_from_slice(bytes);
    }

    /// Sets every byte to `byte`.
    pub fn fill(&mut self, byte: u8) {
        self.0.fill(byte);
    }

    /// Flips the bits of `mask` in the byte at `at`, without revealing its value.
    ///
    /// # Panics
    /// Panics if `at` is out of bounds.
    pub fn flip(&mut self, at: usize, mask: u8) {
        self.0[at] ^= mask;
    }

    /// Returns the start address, for a system call that writes there.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

/// Shows the length, but not the contents.
impl fmt::Debug for WriteOnly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteOnly").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_not_printed() {
        let mut secret = [201; 3];
        let memory = WriteOnly::new(&mut secret);
        assert_eq!(alloc::format!("{memory:?}"), "WriteOnly { len: 3, .. }");
    }

    #[test]
    fn writes_go_up_to_the_end() {
        let mut bytes = [0; 4];
        let mut memory = WriteOnly::new(&mut bytes);
        memory.write(1, &[1, 2, 3]);
        memory.write(4, &[]);
        assert_eq!(bytes, [0, 1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "2 bytes written at 3 pass the end of memory of 4")]
    fn a_write_past_the_end_says_so() {
        WriteOnly::new(&mut [0; 4]).write(3, &[1, 2]);
    }

    #[test]
    #[should_panic(expected = "pass the end of memory of 4")]
    fn a_write_past_every_address_says_so() {
        WriteOnly::new(&mut [0; 4]).write(usize::MAX, &[1, 2]);
    }

    #[test]
    fn a_part_is_filled_alone() {
        let mut bytes = [0; 5];
        let mut part = WriteOnly::new(&mut bytes).part(1..4);
        assert_eq!((part.len(), part.is_empty()), (3, false));
        part.fill(7);
        assert!(part.part(2..2).is_empty());
        assert_eq!(bytes, [0, 7, 7, 7, 0]);
    }

    #[test]
    fn a_byte_is_flipped_unseen() {
        let mut bytes = [5; 3];
        WriteOnly::new(&mut bytes).flip(1, 0x81);
        assert_eq!(bytes, [5, 0x84, 5]);
    }

    #[test]
    fn a_system_call_is_given_where_the_bytes_are() {
        let mut bytes = [0; 5];
        let start = bytes.as_mut_ptr();
        assert_eq!(WriteOnly::new(&mut bytes).as_mut_ptr(), start);
        assert_eq!(WriteOnly::new(&mut bytes).part(2..4).as_mut_ptr(), start.wrapping_add(2));
    }
}
