//! Buffers for chunks: the final memory, or a scratch buffer.
//!
//! A chunk in a scratch buffer is gathered into its final memory. Scratch buffers are reused: there
//! are never more of them than reads in flight.

use crate::region::Region;
use crate::split_buffer::BufferSlice;
use crate::stable::{FilledBytes, StableBuffer, StableMemory as _};
use crate::sync::Mutex;
use floodtide_core::{Alignment, Buffer, Chunk, Error as CoreError, ErrorKind, Gather, Plan, WriteOnly};
use std::sync::Arc;

/// The separate buffers of a load's gathered chunks, all of one size.
#[derive(Debug)]
pub struct ScratchPool {
    bytes: usize,
    alignment: Alignment,
    free: Arc<Mutex<Vec<Region>>>,
}

impl ScratchPool {
    /// Creates the buffers of a plan. Nothing is mapped yet.
    pub fn new(plan: &Plan) -> Self {
        let gathered = || plan.chunks().iter().filter(|chunk| chunk.gathered);
        Self {
            bytes: gathered().map(|chunk| chunk.buffer_range.end).max().unwrap_or(0),
            alignment: gathered().map(|chunk| chunk.alignment).max().unwrap_or(Alignment::ONE),
            free: Arc::default(),
        }
    }

    /// Returns the buffer to read a chunk into. `slice` is its final memory.
    ///
    /// # Errors
    /// Returns an error if the system has no memory for a scratch buffer.
    pub fn buffer(&self, plan: &Plan, chunk: &Chunk, slice: BufferSlice) -> Result<ChunkBuffer, CoreError> {
        let scratch = match plan.gather(chunk) {
            None => None,
            Some(gather) => Some((self.take(chunk.buffer_range.len())?, gather)),
        };
        Ok(ChunkBuffer { scratch, slice })
    }

    fn take(&self, len: usize) -> Result<Scratch, CoreError> {
        let free = self.free.lock().pop();
        let region = match free {
            Some(region) => region,
            None => Region::map(self.bytes, self.alignment).map_err(|error| CoreError::Platform {
                kind: ErrorKind::OutOfMemory,
                message: format!(
                    "cannot map {} bytes of memory to gather a slice from: {error}; free memory, raise the limit (ulimit -v), or select \
                     fewer tensors",
                    self.bytes
                ),
            })?,
        };
        assert!(len <= region.byte_len(), "the largest chunk has room, so each has");
        Ok(Scratch { region: Some(region), len, free: Arc::clone(&self.free) })
    }
}

/// A scratch buffer; dropping it keeps its memory for the next one.
#[derive(Debug)]
struct Scratch {
    /// Set until dropped.
    region: Option<Region>,
    /// At most the region's length.
    len: usize,
    free: Arc<Mutex<Vec<Region>>>,
}

impl Scratch {
    fn as_bytes(&self) -> &[u8] {
        let Some(region) = &self.region else { return &[] };
        // SAFETY: a region's bytes are initialised, do not move, and belong to its owner alone.
        // `take` checked the length. A writer borrows `self` mutably or owns it.
        unsafe { std::slice::from_raw_parts(region.start().as_ptr(), self.len) }
    }

    fn as_mut_bytes(&mut self) -> &mut [u8] {
        let Some(region) = &self.region else { return &mut [] };
        // SAFETY: a region's bytes are initialised, do not move, and belong to its owner alone.
        // `take` checked the length. The slice borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(region.start().as_ptr(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.free.lock().extend(self.region.take());
    }
}

/// The buffer that a chunk is read into, owned until the read completes.
#[derive(Debug)]
pub struct ChunkBuffer {
    scratch: Option<(Scratch, Gather)>,
    slice: BufferSlice,
}

impl ChunkBuffer {
    /// Gathers the complete chunk into its final memory, and returns both buffers.
    pub fn settle(self) {
        let Self { scratch, mut slice } = self;
        if let Some((mut scratch, gather)) = scratch {
            gather.copy(scratch.as_mut_bytes(), &mut slice.memory());
        }
    }
}

impl Buffer for ChunkBuffer {
    fn memory(&mut self) -> WriteOnly<'_> {
        match &mut self.scratch {
            Some((scratch, _)) => WriteOnly::new(scratch.as_mut_bytes()),
            None => self.slice.memory(),
        }
    }
}

impl FilledBytes for ChunkBuffer {
    fn filled(&self, len: usize) -> &[u8] {
        match &self.scratch {
            Some((scratch, _)) => &scratch.as_bytes()[..scratch.len.min(len)],
            None => self.slice.filled(len),
        }
    }
}

// SAFETY: `memory` returns the bytes of a region, which stay mapped at their address until the
// buffer is dropped, or those of a `BufferSlice`, which is a `StableBuffer` itself.
unsafe impl StableBuffer for ChunkBuffer {}
