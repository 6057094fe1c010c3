//! The checksums of a whole checkpoint, from its files' bytes in any order.

use super::hashes::Hashes;
use super::overlaps::Overlaps;
use crate::catalog::Catalog;
use crate::checksum::Checksum;
use crate::sync::Mutex;
use crate::units::{ByteRange, FileId};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The hashes of all tensors of a catalog. Any number of threads may bring bytes.
#[derive(Debug)]
pub struct ContentHashes {
    hashes: Hashes,
    overlaps: Overlaps,
    found: Vec<Mutex<Option<Checksum>>>,
}

impl ContentHashes {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(catalog: &Arc<Catalog>) -> Self {
        let file_layout = catalog.tensors().map(|tensor| (tensor.id.index(), tensor.file, tensor.range));
        Self {
            hashes: Hashes::new(catalog.tensors().map(|tensor| tensor.range)),
            overlaps: Overlaps::new(file_layout),
            found: catalog
                .tensors()
                .map(|tensor| Mutex::new(tensor.range.is_empty().then(|| Checksum::of(&[]))))
                .collect(),
        }
    }

    /// Takes in bytes of a file, from its byte `start` on; each byte of the file is to be brought once.
    pub fn add(&self, file: FileId, start: u64, bytes: &[u8]) {
        let range = ByteRange::new(start, start.saturating_add(bytes.len() as u64)).unwrap_or(ByteRange::EMPTY);
        for tensor in self.overlaps.of(file, range) {
            if let Some(checksum) = self.hashes.add(tensor, range, start, bytes) {
                self.found[tensor].with(|found| *found = Some(checksum));
            }
        }
    }

    /// The checksums by tensor; `None` when not all bytes have come.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Checksum>> {
        self.found.into_iter().map(|found| found.with(|found| *found)).collect()
    }
}
