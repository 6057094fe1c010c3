//! Files with known bytes, and the memory that a plan's chunks go to.

use floodtide_core::{Catalog, Chunk, ExtentId, FileId, Location, Plan, ReadOp};
use std::sync::LazyLock;

/// Longer than any file of [`Lengths::Small`](crate::checkpoint::Lengths::Small) tensors may be for [`Device::new`].
pub const MAX_FILE_BYTES: u64 = 2 << 20;

/// What lies in memory that no read has filled, and after the bytes that a read brought.
const JUNK: u8 = 0xa5;

/// The bytes of all files: each file is a stretch of them. Without a period, so that no byte passes for one of elsewhere.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..MAX_FILE_BYTES + 64 * 1024).map(|_| next()).collect()
});

/// Files and memory.
pub struct Device {
    /// By file: how long it really is.
    lengths: Vec<u64>,
    arena: Vec<u8>,
    /// By extent, of a stream.
    buffers: Vec<Vec<u8>>,
}

impl Device {
    /// The files of a catalog, of which the one that is named is cut off by so many bytes, and the memory of a plan.
    pub fn new(catalog: &Catalog, plan: &Plan, cut: Option<(FileId, u64)>) -> Self {
        let lengths = (0..).map(FileId).zip(catalog.files());
        Self {
            lengths: lengths
                .map(|(file, info)| match cut {
                    Some((cut, by)) if cut == file => info.bytes.saturating_sub(by),
                    _ => info.bytes,
                })
                .collect(),
            arena: vec![JUNK; plan.arena_bytes()],
            buffers: plan.extents().iter().map(|extent| vec![JUNK; extent.buffer_bytes]).collect(),
        }
    }

    /// Reads as Linux does, nothing past the file's end and at most `limit` bytes, and checks what Linux would refuse.
    pub fn read(&mut self, plan: &Plan, op: &ReadOp, limit: usize) -> usize {
        let chunk = &plan.chunks()[op.chunk.index()];
        assert_eq!((op.file, op.offset), (chunk.file, chunk.offset + op.at as u64), "what belongs at that place");
        assert!(op.len > 0 && op.at + op.len <= chunk.buffer_range.len(), "a read stays in its chunk");
        if op.direct {
            assert!(chunk.alignment.divides(op.offset), "the file offset");
            assert!(chunk.alignment.divides(op.len as u64), "the length");
            assert!(chunk.alignment.divides((chunk.buffer_range.start + op.at) as u64), "the address");
        }
        let left = self.lengths[op.file.index()].saturating_sub(op.offset);
        let bytes = op.len.min(limit).min(usize::try_from(left).unwrap_or(usize::MAX));
        let from = &file(op.file, op.offset)[..bytes];
        let at = chunk.buffer_range.start + op.at;
        let to = &mut self.memory_mut(chunk)[at..at + op.len];
        to[..bytes].copy_from_slice(from);
        to[bytes..].fill(JUNK);
        bytes
    }

    /// Whether the first `bytes` bytes of a chunk are those of the file.
    pub fn holds(&self, plan: &Plan, chunk: &Chunk, bytes: usize) -> bool {
        let memory = if plan.is_streamed() { &self.buffers[chunk.extent.index()] } else { &self.arena };
        memory[chunk.buffer_range.start..][..bytes] == file(chunk.file, chunk.offset)[..bytes]
    }

    /// Whether every byte of a placement is where the plan says that it is.
    pub fn holds_tensor(&self, catalog: &Catalog, plan: &Plan, placement: usize) -> bool {
        let tensor = catalog.tensor(plan.placements()[placement].tensor);
        let wanted = &file(tensor.file, tensor.range.start())[..tensor.range.len() as usize];
        match plan.placements()[placement].location {
            Location::Mapped => true,
            Location::Arena(_) if wanted.is_empty() => true,
            Location::Arena(place) => self.arena[place..][..wanted.len()] == *wanted,
            Location::Streamed => (0..plan.extents().len()).all(|extent| {
                let parts = plan.parts(ExtentId(extent as u32)).filter(|part| part.placement == placement);
                parts.into_iter().all(|part| {
                    let bytes = &self.buffers[extent][part.bytes];
                    *bytes == wanted[part.offset as usize..][..bytes.len()]
                })
            }),
        }
    }

    fn memory_mut(&mut self, chunk: &Chunk) -> &mut [u8] {
        self.buffers.get_mut(chunk.extent.index()).filter(|buffer| !buffer.is_empty()).unwrap_or(&mut self.arena)
    }
}

/// The bytes of a file from an offset on.
fn file(file: FileId, offset: u64) -> &'static [u8] {
    &BYTES[file.index() * 7919 + offset as usize..]
}
