//! The hashes of tensors whose bytes come in ranges of their files.

use crate::checksum::{Checksum, TreeHash, hash_part};
use crate::sync::Mutex;
use crate::units::ByteRange;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// One for each tensor, by a number of the caller's.
#[derive(Debug)]
pub(super) struct Hashes {
    tensors: Vec<(ByteRange, Mutex<Option<Box<TreeHash>>>)>,
}

impl Hashes {
    /// Of tensors with these bytes of their files.
    pub(super) fn new(ranges: impl Iterator<Item = ByteRange>) -> Self {
        Self { tensors: ranges.map(|range| (range, Mutex::default())).collect() }
    }

    /// Takes in what `range` of the tensor's file has of it, each byte once; `bytes` begin at `offset` of the file. The hash, when it is whole.
    pub(super) fn add(&self, tensor: usize, range: ByteRange, offset: u64, bytes: &[u8]) -> Option<Checksum> {
        let (whole, hash) = &self.tensors[tensor];
        let (start, end) = (whole.start().max(range.start()), whole.end().min(range.end()));
        if start >= end {
            return None;
        }
        // Both lie in the bytes that are there.
        let bytes = &bytes[(start - offset) as usize..(end - offset) as usize];
        if whole.len() == bytes.len() as u64 {
            return Some(Checksum::of(bytes));
        }
        // Without the lock, which is held only to join what comes of it.
        let part = hash_part(whole.len(), start - whole.start(), bytes);
        hash.with(|hash| {
            let found = hash.get_or_insert_with(|| Box::new(TreeHash::new(whole.len()))).add(&part);
            if found.is_some() {
                *hash = None;
            }
            found
        })
    }
}
