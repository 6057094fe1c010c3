//! Hashes tensors whose bytes arrive in ranges of their files.

use crate::checksum::{Checksum, TreeHash, hash_range};
use crate::sync::Mutex;
use crate::units::{ByteRange, to_usize};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// One hash per tensor, numbered by the caller.
#[derive(Debug)]
pub(super) struct Hashes {
    tensors: Vec<(ByteRange, Mutex<Option<Box<TreeHash>>>)>,
}

impl Hashes {
    /// Creates the hashes of tensors with these ranges.
    pub(super) fn new(ranges: impl Iterator<Item = ByteRange>) -> Self {
        Self { tensors: ranges.map(|range| (range, Mutex::default())).collect() }
    }

    /// Adds the part of a tensor in `range` of its file, each byte once. `bytes` start at `offset`
    /// of the file. Returns the hash when it is complete.
    pub(super) fn add(&self, tensor: usize, range: ByteRange, offset: u64, bytes: &[u8]) -> Option<Checksum> {
        let (whole, hash) = &self.tensors[tensor];
        let (start, end) = (whole.start().max(range.start()), whole.end().min(range.end()));
        if start >= end {
            return None;
        }
        let bytes = &bytes[to_usize(start - offset)..to_usize(end - offset)];
        if whole.len() == bytes.len() as u64 {
            return Some(Checksum::of(bytes));
        }
        // Hash without the lock, which is held only to combine the results.
        let part = hash_range(whole.len(), start - whole.start(), bytes);
        hash.with(|hash| {
            let found = hash.get_or_insert_with(|| Box::new(TreeHash::new(whole.len()))).add(&part);
            if found.is_some() {
                *hash = None;
            }
            found
        })
    }
}
