//! The world's files: contents that are generated when read, and states that change.

use crate::draw::scramble;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use floodtide_core::{FileVersion, to_usize};

/// A change of a file during a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is truncated to this length.
    Truncated(u64),
    /// Another file replaces it. An open file still reads the old one.
    Replaced,
    /// Its contents are overwritten.
    Written,
}

/// A file. Its first bytes are given, the rest is generated from a seed.
#[derive(Debug)]
pub struct SimFile {
    /// The name.
    pub path: String,
    /// The given first bytes.
    pub head: Vec<u8>,
    seed: u64,
    bytes: Cell<u64>,
    generation: Cell<u64>,
    number: Cell<u64>,
    len: Cell<u64>,
    modified: Cell<(i64, i64)>,
}

impl SimFile {
    /// Creates a file of `bytes` bytes that starts with `head`.
    #[must_use]
    pub fn new(path: String, head: Vec<u8>, bytes: u64, number: u64, seed: u64) -> Self {
        let (len, bytes) = (Cell::new(bytes), Cell::new(bytes));
        Self {
            path,
            head,
            seed,
            bytes,
            generation: Cell::new(0),
            number: Cell::new(number),
            len,
            modified: Cell::default(),
        }
    }

    /// Returns the current length in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns the current version.
    #[must_use]
    pub fn version(&self) -> FileVersion {
        let (inode, len, modified) = (self.number.get(), self.len.get(), self.modified.get());
        FileVersion::Local { device: 1, inode, len, modified }
    }

    /// Changes the file at this time.
    pub fn change(&self, change: Change, time: u64) {
        self.modified.set(((time / 1_000_000_000) as i64, (time % 1_000_000_000) as i64 + 1));
        match change {
            Change::Truncated(bytes) => {
                self.len.set(bytes.min(self.len.get()));
                self.bytes.set(self.bytes.get().min(bytes));
            }
            Change::Replaced => self.number.set(self.number.get() + (1 << 32)),
            Change::Written => self.generation.set(self.generation.get() + 1),
        }
    }

    /// Reads into `out` at `offset`. Returns the number of bytes read.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let there = to_usize(self.bytes.get().saturating_sub(offset).min(out.len() as u64));
        self.fill(self.generation.get(), offset, &mut out[..there]);
        there
    }

    /// Reads the initial contents, the reference for comparisons.
    pub fn original(&self, offset: u64, out: &mut [u8]) {
        self.fill(0, offset, out);
    }

    fn fill(&self, generation: u64, offset: u64, out: &mut [u8]) {
        let given = to_usize((self.head.len() as u64).saturating_sub(offset).min(out.len() as u64));
        if given > 0 {
            let start = to_usize(offset);
            out[..given].copy_from_slice(&self.head[start..start + given]);
        }
        let key = scramble(self.seed ^ generation.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let word = |at: u64| scramble(key ^ (at / 8)).to_le_bytes();
        let (mut at, mut out) = (offset + given as u64, &mut out[given..]);
        // The rest of a word that starts earlier, then words, then the start of the last one.
        let first_len = to_usize((at.wrapping_neg() % 8).min(out.len() as u64));
        let (first, rest) = out.split_at_mut(first_len);
        let from = to_usize(at % 8);
        first.copy_from_slice(&word(at)[from..from + first_len]);
        (at, out) = (at + first_len as u64, rest);
        let mut words = out.chunks_exact_mut(8);
        for bytes in &mut words {
            bytes.copy_from_slice(&word(at));
            at += 8;
        }
        let last = words.into_remainder();
        last.copy_from_slice(&word(at)[..last.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_part_reads_as_the_whole_does() {
        let file = SimFile::new("f".into(), vec![1, 2, 3], 100, 1, 7);
        let mut whole = [0; 200];
        assert_eq!(file.read(0, &mut whole), 100);
        assert_eq!(whole[..3], [1, 2, 3]);
        for (from, to) in [(0, 1), (2, 9), (3, 100), (17, 18), (90, 100)] {
            let mut part = vec![0; to - from];
            assert_eq!(file.read(from as u64, &mut part), to - from);
            assert_eq!(part, whole[from..to]);
        }
        file.change(Change::Truncated(50), 5);
        assert_eq!(file.read(40, &mut [0; 20]), 10);
        assert!(file.version().len() == 50 && file.modified.get() != (0, 0));
        file.change(Change::Written, 6);
        let mut changed = [0; 50];
        file.read(0, &mut changed);
        assert!(changed[..] != whole[..50]);
        file.original(0, &mut changed);
        assert!(changed[..] == whole[..50]);
    }
}
