//! Verifies a load against a manifest during the load.
//!
//! The worker that reads a chunk hashes it when it is complete and before it is delivered, while it
//! is probably still in the processor's cache. The results are combined by tensor
//! ([`crate::checksum`]). The chunk that completes a tensor decides whether it matches the
//! manifest. If not, the platform fails the load. Whatever cannot be verified is rejected when the
//! [`Verification`] is created, before the first read. This applies above all to slices, because a
//! manifest has hashes of whole tensors.

mod content;
mod hashes;
mod overlaps;

pub use content::ContentHashes;

use crate::catalog::{Catalog, TensorInfo};
use crate::checksum::Checksum;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::plan::{Location, Plan};
use crate::seeded_bug::seeded_bug;
use crate::sync::{AtomicUsize, Ordering};
use crate::units::{ByteRange, ChunkId, FileId};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashes::Hashes;
use overlaps::Overlaps;

/// The verification of a load.
#[derive(Debug)]
pub struct Verification {
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    /// The expected checksums, by placement.
    expected: Vec<Checksum>,
    hashes: Hashes,
    /// The placements in mapped files.
    mapped: Overlaps,
    /// The number of verified tensors.
    verified: AtomicUsize,
}

impl Verification {
    /// Creates the verification of a plan of this catalog.
    ///
    /// # Errors
    /// - [`Error::SliceUnverifiable`] if the plan has a slice.
    /// - [`Error::NotInManifest`] if the manifest lacks a tensor.
    /// - [`Error::ManifestDiffers`] if the manifest has another dtype or shape.
    /// - [`Error::Mismatch`] if the manifest has the wrong checksum for an empty tensor.
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, manifest: &Manifest) -> Result<Self, Error> {
        let mut expected = Vec::with_capacity(plan.placements().len());
        let mut verified = 0;
        for (number, placement) in plan.placements().iter().enumerate() {
            let tensor = catalog.tensor(placement.tensor);
            if plan.slice(number).is_some() {
                return Err(Error::SliceUnverifiable { tensor: tensor.name.to_owned() });
            }
            let checksum = promised(&tensor, manifest)?;
            if tensor.range.is_empty() {
                check(&catalog, &tensor, checksum, Checksum::of(&[]))?;
                verified += 1;
            }
            expected.push(checksum);
        }
        let placed = plan.placements().iter().enumerate();
        let mapped = placed.filter(|(_, placement)| placement.location == Location::Mapped);
        let mapped = mapped.map(|(number, placement)| (number, catalog.tensor(placement.tensor).file, placement.range));
        let mapped = Overlaps::new(mapped);
        let hashes = Hashes::new(plan.placements().iter().map(|placement| placement.range));
        Ok(Self { catalog, plan, expected, hashes, mapped, verified: AtomicUsize::new(verified) })
    }

    /// Verifies a complete chunk. `bytes` are its buffer's first
    /// [`payload_len`](crate::Chunk::payload_len) bytes or more.
    ///
    /// To be called once for each chunk, before it is delivered.
    ///
    /// # Errors
    /// Returns [`Error::Mismatch`] if the chunk completes a tensor that does not match the
    /// manifest.
    pub fn add_chunk(&self, id: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        let chunk = &self.plan.chunks()[id.index()];
        // Bytes that alignment added before the extent were verified with another chunk.
        let range =
            ByteRange::new(chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
        let range = range.unwrap_or(ByteRange::EMPTY);
        for placement in chunk.tensors.clone() {
            if self.plan.placements()[placement].location != Location::Mapped {
                self.add(placement, range, chunk.offset, bytes)?;
            }
        }
        Ok(())
    }

    /// Checks bytes of a mapped file, which begin at `start`. Every selected byte must be added once.
    ///
    /// # Errors
    /// Fails like [`add_chunk`](Self::add_chunk).
    pub fn add_mapped(&self, file: FileId, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = ByteRange::new(start, start.saturating_add(bytes.len() as u64)).unwrap_or(ByteRange::EMPTY);
        self.mapped.of(file, range).try_for_each(|placement| self.add(placement, range, start, bytes))
    }

    /// Checks that every tensor was verified.
    ///
    /// # Errors
    /// Returns [`Error::Contract`] if the platform has not passed all bytes.
    pub fn finish(&self) -> Result<(), Error> {
        if self.verified.load(Ordering::Relaxed) == self.expected.len() {
            return Ok(());
        }
        Err(Error::Contract { what: "the load ended before every tensor was verified" })
    }

    /// Adds the part of a placement in `range` of its file. `bytes` start at `offset` of the file.
    fn add(&self, placement: usize, range: ByteRange, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if let Some(found) = self.hashes.add(placement, range, offset, bytes) {
            let tensor = self.catalog.tensor(self.plan.placements()[placement].tensor);
            if !seeded_bug!(MismatchIgnored) {
                check(&self.catalog, &tensor, self.expected[placement], found)?;
            }
            self.verified.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Returns the checksum of a tensor in the manifest, if dtype and shape match.
fn promised(tensor: &TensorInfo<'_>, manifest: &Manifest) -> Result<Checksum, Error> {
    let name = || tensor.name.to_owned();
    let there = manifest.tensor(tensor.name).ok_or_else(|| Error::NotInManifest { tensor: name() })?;
    if !tensor.dtype.means_same(there.dtype) || tensor.shape != there.shape {
        return Err(Error::ManifestDiffers {
            tensor: name(),
            dtype: tensor.dtype,
            shape: tensor.shape.to_owned(),
            manifest_dtype: there.dtype,
            manifest_shape: there.shape.clone(),
        });
    }
    Ok(there.blake3)
}

fn check(catalog: &Catalog, tensor: &TensorInfo<'_>, expected: Checksum, found: Checksum) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    let (file, tensor, range) = (catalog.file(tensor.file).path.clone(), tensor.name.to_owned(), tensor.range);
    let (expected, found) = (Box::new(expected), Box::new(found));
    Err(Error::Mismatch { file, tensor, start: range.start(), end: range.end(), expected, found })
}

#[cfg(test)]
mod tests;
