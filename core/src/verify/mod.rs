//! Checks a load against a manifest while it is under way.
//!
//! What a read brings is hashed by the worker that brought it, as soon as it is whole and before it is handed on, so that it is most likely
//! still in the processor's cache; what comes of it is joined by tensor ([`crate::checksum`]). The read that completes a tensor decides
//! whether it is what the manifest says; a platform then fails the load. Whatever cannot be checked is refused when the
//! [`Verification`] is made, before the first read: a slice above all, of which a whole tensor's hash says nothing.

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

/// The checks of one load.
#[derive(Debug)]
pub struct Verification {
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    /// By placement.
    expected: Vec<Checksum>,
    hashes: Hashes,
    /// The placements in mapped files.
    mapped: Overlaps,
    /// How many tensors have been found to be what they should.
    verified: AtomicUsize,
}

impl Verification {
    /// The checks of what `plan` loads, of that catalog.
    ///
    /// # Errors
    /// [`Error::SliceUnverifiable`] when a slice is planned, [`Error::NotInManifest`] when the manifest has no such tensor,
    /// [`Error::ManifestDiffers`] when it has another dtype or shape there, [`Error::Mismatch`] when it gives a tensor without a byte
    /// another checksum than that of no byte.
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

    /// Checks what a chunk has brought, which is whole: the first of its buffer's bytes, as many as it
    /// [wants](crate::Chunk::want) or more. To be called once for each chunk, before what it holds is handed on.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it completes a tensor that is not what the manifest says.
    pub fn chunk_landed(&self, id: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        let chunk = &self.plan.chunks()[id.index()];
        // What alignment brought along before the extent was checked with another chunk.
        let range =
            ByteRange::new(chunk.offset + u64::from(chunk.align_prefix), chunk.offset + chunk.payload_len as u64);
        let range = range.unwrap_or(ByteRange::EMPTY);
        for placement in chunk.tensors.clone() {
            if self.plan.placements()[placement].location != Location::Mapped {
                self.landed(placement, range, chunk.offset, bytes)?;
            }
        }
        Ok(())
    }

    /// Checks bytes of a mapped file, from its byte `start` on. All that is selected of the file is to be given once.
    ///
    /// # Errors
    /// As [`chunk_landed`](Self::chunk_landed).
    pub fn mapped_landed(&self, file: FileId, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = ByteRange::new(start, start.saturating_add(bytes.len() as u64)).unwrap_or(ByteRange::EMPTY);
        self.mapped.of(file, range).try_for_each(|placement| self.landed(placement, range, start, bytes))
    }

    /// Whether every tensor was checked.
    ///
    /// # Errors
    /// [`Error::Contract`] if not: the platform has not given everything.
    pub fn finish(&self) -> Result<(), Error> {
        if self.verified.load(Ordering::Relaxed) == self.expected.len() {
            return Ok(());
        }
        Err(Error::Contract { what: "the load ended before every tensor was verified" })
    }

    /// Takes in what `range` of the file has of a placement; `bytes` begin at `offset` of the file.
    fn landed(&self, placement: usize, range: ByteRange, offset: u64, bytes: &[u8]) -> Result<(), Error> {
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

/// The checksum that a manifest gives a tensor, if it is the same kind of tensor there.
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
