//! Files with known bytes, and the memory of a plan's chunks.

use floodtide_core::{Catalog, Chunk, ExtentId, FileId, Location, Plan, ReadOp};
use std::sync::LazyLock;

/// The maximum length of a file for [`Device::new`], which exceeds that of any file of
/// [`Lengths::Small`](crate::checkpoint::Lengths::Small) tensors.
pub const MAX_FILE_BYTES: u64 = 2 << 20;

/// The contents of memory that no read has filled.
const JUNK: u8 = 0xa5;

/// The bytes of all files, each a section of them. They have no period, so misplaced bytes are
/// detected.
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
    /// The real length, by file.
    lengths: Vec<u64>,
    arena: Vec<u8>,
    /// The buffers of a stream, by extent.
    buffers: Vec<Vec<u8>>,
}

impl Device {
    /// Creates the files of a catalog and the memory of a plan. `cut` truncates one file by a
    /// number of bytes.
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

    /// Reads like Linux, nothing past the file's end and at most `limit` bytes, and checks what
    /// Linux would refuse.
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

    /// Returns true if the first `bytes` bytes of a chunk are the file's.
    pub fn holds(&self, plan: &Plan, chunk: &Chunk, bytes: usize) -> bool {
        let memory = if plan.is_streamed() { &self.buffers[chunk.extent.index()] } else { &self.arena };
        memory[chunk.buffer_range.start..][..bytes] == file(chunk.file, chunk.offset)[..bytes]
    }

    /// Returns true if every byte of a placement is in its place.
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
                    let bytes = &self.buffers[extent][part.buffer_range];
                    *bytes == wanted[part.offset as usize..][..bytes.len()]
                })
            }),
        }
    }

    fn memory_mut(&mut self, chunk: &Chunk) -> &mut [u8] {
        self.buffers.get_mut(chunk.extent.index()).filter(|buffer| !buffer.is_empty()).unwrap_or(&mut self.arena)
    }
}

/// Returns the bytes of a file from an offset on.
fn file(file: FileId, offset: u64) -> &'static [u8] {
    &BYTES[file.index() * 7919 + offset as usize..]
}
