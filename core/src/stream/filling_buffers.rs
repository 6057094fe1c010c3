//! The buffers that are being filled.

use crate::plan::Plan;
use crate::seeded_bug::seeded_bug;
use crate::units::{ChunkId, ExtentId};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

#[derive(Debug)]
struct FillingBuffer<M> {
    memory: M,
    /// The number of chunks that have not arrived.
    missing: usize,
}

/// The buffers of a stream that are being filled. `M` is the memory of an extent while its chunks
/// are handed out.
#[derive(Debug)]
pub struct FillingBuffers<M> {
    plan: Arc<Plan>,
    /// The first chunk of each extent, and one more entry for the end.
    first_chunks: Vec<u32>,
    /// The number of opened extents. They are opened in the order of the plan.
    opened: u32,
    open: BTreeMap<ExtentId, FillingBuffer<M>>,
}

impl<M> FillingBuffers<M> {
    /// Creates the state of a stream without open buffers.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        let mut first_chunks = Vec::with_capacity(plan.extents().len() + 1);
        for (index, chunk) in plan.chunks().iter().enumerate() {
            if first_chunks.len() == chunk.extent.index() {
                first_chunks.push(ChunkId::from_index(index).0);
            }
        }
        first_chunks.push(ChunkId::from_index(plan.chunks().len()).0);
        Self { plan, first_chunks, opened: 0, open: BTreeMap::new() }
    }

    /// Returns the next extent to open, or `None` if all were.
    #[must_use]
    pub fn next(&self) -> Option<ExtentId> {
        (self.opened as usize).lt(&self.plan.extents().len()).then_some(ExtentId(self.opened))
    }

    /// Returns the chunks of an extent by [`ChunkId`]. Empty if there is no such extent.
    #[must_use]
    pub fn chunks(&self, extent: ExtentId) -> core::ops::Range<u32> {
        match self.first_chunks.get(extent.index()..=extent.index() + 1) {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        }
    }

    /// Opens the [next](Self::next) extent with this memory.
    pub fn open(&mut self, memory: M) {
        let extent = ExtentId(self.opened);
        let missing = self.chunks(extent).len();
        self.opened += 1;
        self.open.insert(extent, FillingBuffer { memory, missing });
    }

    /// Returns the memory of a chunk's extent, and the chunk's index in the extent.
    #[must_use]
    pub fn find(&self, chunk: ChunkId) -> Option<(&M, usize)> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        let filling = self.open.get(&extent)?;
        Some((&filling.memory, (chunk.0 - self.first_chunks[extent.index()]) as usize))
    }

    /// Returns the memory of a chunk's extent.
    pub fn find_mut(&mut self, chunk: ChunkId) -> Option<&mut M> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        self.open.get_mut(&extent).map(|filling| &mut filling.memory)
    }

    /// Records the arrival of a chunk. Returns the memory if it was the last chunk of its extent.
    pub fn complete(&mut self, chunk: ChunkId) -> Option<(ExtentId, M)> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        let filling = self.open.get_mut(&extent)?;
        filling.missing -= 1;
        if filling.missing > usize::from(seeded_bug!(BufferReusedInFlight)) {
            return None;
        }
        self.open.remove(&extent).map(|filling| (extent, filling.memory))
    }

    /// Removes all memory, because the stream is over.
    pub fn take_open(&mut self) -> impl Sized + use<M> {
        core::mem::take(&mut self.open)
    }
}
