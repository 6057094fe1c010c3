//! The memory of one load, handed out as disjoint chunks and frozen when all are returned.
//!
//! An arena starts on a 2 MiB boundary and requests huge pages, because faulting 4 KiB pages costs
//! more than the reads of a fast device. The kernel zeroes anonymous pages, so the memory is
//! initialised and a `&[u8]` over it is sound before anything is read into it. Bytes of an earlier
//! load are never visible, because only complete tensors are.

use crate::arena_cache::ArenaMemory;
use crate::split_buffer::{BufferSlice, SplitBuffer};
use crate::stable::StableMemory;
use std::io;
use std::ops::Range;

/// An arena whose chunks are being filled. Cheap to clone.
///
/// ```
/// use floodtide_core::Buffer;
/// use floodtide_memory::{Arena, ArenaCache};
/// use std::sync::Arc;
///
/// let cache = Arc::new(ArenaCache::default());
/// let arena = Arena::new(cache.take(8192)?, 8192, vec![0..4096, 4096..8192])?;
/// let mut chunk = arena.take(0).expect("each slot is handed out once");
/// chunk.memory().fill(7);
/// assert!(arena.freeze().is_none(), "a chunk is out");
/// drop(chunk);
/// let frozen = arena.freeze().expect("every chunk is back");
/// assert_eq!((frozen.as_bytes()[0], frozen.as_bytes()[4096]), (7, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Arena {
    memory: SplitBuffer<ArenaMemory>,
    bytes: usize,
}

impl Arena {
    /// Creates an arena of `bytes` bytes in `memory`, with these slots.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the memory is too short, or slots overlap or exceed it.
    pub fn new(memory: ArenaMemory, bytes: usize, slots: Vec<Range<usize>>) -> io::Result<Self> {
        if bytes > memory.byte_len() || slots.iter().any(|slot| slot.end > bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the slots pass the arena's end"));
        }
        Ok(Self { memory: SplitBuffer::new(memory, slots)?, bytes })
    }

    /// Returns the memory, for operations on all of it.
    pub fn memory(&self) -> &ArenaMemory {
        self.memory.memory()
    }

    /// Hands out a slot. Returns `None` if it was handed out before.
    pub fn take(&self, slot: usize) -> Option<BufferSlice> {
        self.memory.take(slot)
    }

    /// Freezes the arena if all chunks are returned (dropped).
    pub fn freeze(&self) -> Option<FrozenArena> {
        self.memory.freeze().then(|| FrozenArena { arena: self.clone() })
    }
}

/// An arena that can no longer be written to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FrozenArena {
    arena: Arena,
}

impl FrozenArena {
    /// Returns all bytes.
    pub fn as_bytes(&self) -> &[u8] {
        let memory = self.arena.memory.memory();
        // SAFETY: the memory is mapped and initialised for at least this length. A frozen arena has
        // no chunks, and hands out none, so nothing writes while it lives.
        unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), self.arena.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena_cache::ArenaCache;
    use floodtide_core::Buffer;

    fn arena(bytes: usize, slots: Vec<Range<usize>>) -> io::Result<Arena> {
        Arena::new(ArenaCache::allocate_uncached(bytes).expect("maps"), bytes, slots)
    }

    #[test]
    fn chunks_are_exclusive_and_the_whole_freezes_when_all_are_back() {
        let arena = arena(10_000, vec![4096..10_000, 0..4096]).expect("maps");
        let mut second = arena.take(0).expect("the first time");
        assert!(arena.take(0).is_none(), "a slot is lent once");
        assert!(arena.take(2).is_none(), "there are two slots");
        assert!(arena.freeze().is_none(), "a chunk is out");
        second.memory().fill(7);
        drop(second);
        let frozen = arena.freeze().expect("all are back");
        assert!(arena.take(1).is_none(), "nothing is lent after the freeze");
        assert_eq!(frozen.as_bytes().as_ptr().align_offset(2 << 20), 0);
        assert_eq!((frozen.as_bytes()[4095], frozen.as_bytes()[4096]), (0, 7));
        drop(arena);
        assert_eq!(frozen.as_bytes()[9999], 7, "the frozen arena keeps the memory");
    }

    #[test]
    fn slots_past_the_end_are_refused() {
        assert_eq!(arena(10, vec![0..5, 5..11]).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
        assert!(arena(0, vec![]).is_ok());
        let short = ArenaCache::allocate_uncached(10).expect("maps");
        assert!(Arena::new(short, (2 << 20) + 1, vec![]).is_err());
    }
}
