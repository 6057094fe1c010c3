//! Computes the checksums of a whole checkpoint from its files' bytes in any order.

use super::hashes::Hashes;
use super::overlaps::Overlaps;
use crate::catalog::Catalog;
use crate::checksum::Checksum;
use crate::sync::Mutex;
use crate::units::{ByteRange, FileId};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The hashes of all tensors of a catalog. Threads can add bytes in parallel.
#[derive(Debug)]
pub struct ContentHashes {
    hashes: Hashes,
    overlaps: Overlaps,
    found: Vec<Mutex<Option<Checksum>>>,
}

impl ContentHashes {
    /// Creates the hashes of a catalog's tensors.
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

    /// Adds bytes of a file at `start`. Each byte of the file must be added once.
    pub fn add(&self, file: FileId, start: u64, bytes: &[u8]) {
        let range = ByteRange::new(start, start.saturating_add(bytes.len() as u64)).unwrap_or(ByteRange::EMPTY);
        for tensor in self.overlaps.of(file, range) {
            if let Some(checksum) = self.hashes.add(tensor, range, start, bytes) {
                self.found[tensor].with(|found| *found = Some(checksum));
            }
        }
    }

    /// Returns the checksums by tensor, or `None` if bytes are missing.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Checksum>> {
        self.found.into_iter().map(|found| found.with(|found| *found)).collect()
    }
}
