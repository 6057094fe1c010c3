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
    /// The chunks that have not landed yet.
    missing: u32,
}

/// The extents of a stream whose buffers are being filled. `M` is an extent's memory while it is handed out in chunks.
#[derive(Debug)]
pub struct FillingBuffers<M> {
    plan: Arc<Plan>,
    /// By extent: its first chunk; one more for the end.
    first_chunks: Vec<u32>,
    /// How many have been opened: they are in the order of the plan.
    opened: u32,
    open: BTreeMap<ExtentId, FillingBuffer<M>>,
}

impl<M> FillingBuffers<M> {
    /// None is open yet.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        let mut first_chunks = Vec::with_capacity(plan.extents().len() + 1);
        for (index, chunk) in plan.chunks().iter().enumerate() {
            if first_chunks.len() == chunk.extent.index() {
                first_chunks.push(index as u32);
            }
        }
        first_chunks.push(plan.chunks().len() as u32);
        Self { plan, first_chunks, opened: 0, open: BTreeMap::new() }
    }

    /// The extent that gets a buffer next; `None` when all have had one.
    #[must_use]
    pub fn next(&self) -> Option<ExtentId> {
        (self.opened as usize).lt(&self.plan.extents().len()).then_some(ExtentId(self.opened))
    }

    /// The chunks of an extent, none if it is not there, by [`ChunkId`].
    #[must_use]
    pub fn chunks(&self, extent: ExtentId) -> core::ops::Range<u32> {
        match self.first_chunks.get(extent.index()..=extent.index() + 1) {
            Some(&[start, end]) => start..end,
            _ => 0..0,
        }
    }

    /// Gives the [next](Self::next) extent its memory.
    pub fn open(&mut self, memory: M) {
        let extent = ExtentId(self.opened);
        let missing = self.chunks(extent).len() as u32;
        self.opened += 1;
        self.open.insert(extent, FillingBuffer { memory, missing });
    }

    /// The memory of a chunk's extent, and which of its chunks that one is.
    #[must_use]
    pub fn find(&self, chunk: ChunkId) -> Option<(&M, usize)> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        let filling = self.open.get(&extent)?;
        Some((&filling.memory, (chunk.0 - self.first_chunks[extent.index()]) as usize))
    }

    /// The memory of a chunk's extent.
    pub fn find_mut(&mut self, chunk: ChunkId) -> Option<&mut M> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        self.open.get_mut(&extent).map(|filling| &mut filling.memory)
    }

    /// Books a chunk that has landed. When it was its extent's last, the memory comes back.
    pub fn land(&mut self, chunk: ChunkId) -> Option<(ExtentId, M)> {
        let extent = self.plan.chunks().get(chunk.index())?.extent;
        let filling = self.open.get_mut(&extent)?;
        filling.missing -= 1;
        if filling.missing > u32::from(seeded_bug!(BufferReusedInFlight)) {
            return None;
        }
        self.open.remove(&extent).map(|filling| (extent, filling.memory))
    }

    /// Takes all memory out, as the stream is over.
    pub fn take_open(&mut self) -> impl Sized + use<M> {
        core::mem::take(&mut self.open)
    }
}
