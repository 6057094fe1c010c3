//! One anonymous mapping per load, handed out as disjoint owned chunks, frozen when the last one is back.
//!
//! The mapping starts on a 2 MiB boundary and asks for huge pages: faulting 4 KiB pages costs more than a fast device's
//! reads. The kernel zeroes anonymous pages, so the memory is initialised from the start and `&[u8]` over it is sound
//! before anything is read into it.

use crate::handout::Handout;
use crate::region::Region;
use floodtide_core::{Alignment, Buffer, WriteOnly};
use std::io;
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
struct Inner {
    region: Region,
    handout: Handout,
    slots: Vec<Range<usize>>,
    bytes: usize,
}

/// An arena whose chunks are being filled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Arena {
    inner: Arc<Inner>,
}

impl Arena {
    /// Maps an arena of `bytes`, to be handed out as the given slots.
    ///
    /// # Errors
    /// When the system refuses the mapping, or (`InvalidInput`) slots overlap or pass the end: that check is what makes
    /// the chunks' exclusive access sound, so it does not trust the planner.
    pub fn new(bytes: usize, slots: Vec<Range<usize>>) -> io::Result<Self> {
        let mut sorted: Vec<&Range<usize>> = slots.iter().collect();
        sorted.sort_unstable_by_key(|slot| (slot.start, slot.end));
        let ordered = sorted.iter().all(|slot| slot.start <= slot.end && slot.end <= bytes);
        if !ordered || sorted.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the arena's slots overlap or pass its end"));
        }
        // The last huge page is a whole one too.
        let mapped = bytes.checked_next_multiple_of(Alignment::HUGE_PAGE.bytes() as usize).unwrap_or(usize::MAX);
        let region = Region::map(mapped, Alignment::HUGE_PAGE)?;
        Ok(Self { inner: Arc::new(Inner { region, handout: Handout::new(slots.len()), slots, bytes }) })
    }

    /// Asks for huge pages.
    ///
    /// # Errors
    /// When the kernel has none to give; the arena works all the same.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        self.inner.region.advise_huge_pages()
    }

    /// Hands out a slot, once.
    #[must_use]
    pub fn take(&self, slot: usize) -> Option<ArenaChunk> {
        if !self.inner.handout.lend(slot) {
            return None;
        }
        Some(ArenaChunk { inner: Arc::clone(&self.inner), slot })
    }

    /// Freezes the arena when every chunk that was handed out is back (dropped).
    #[must_use]
    pub fn freeze(&self) -> Option<FrozenArena> {
        self.inner.handout.freeze().then(|| FrozenArena { inner: Arc::clone(&self.inner) })
    }
}

/// One slot's bytes, owned until dropped.
#[derive(Debug)]
pub struct ArenaChunk {
    inner: Arc<Inner>,
    slot: usize,
}

impl Buffer for ArenaChunk {
    fn memory(&mut self) -> WriteOnly<'_> {
        let slot = &self.inner.slots[self.slot];
        // SAFETY: `Arena::new` checked that the slot lies in the region.
        let start = unsafe { self.inner.region.base().as_ptr().add(slot.start) };
        // SAFETY: the bytes are mapped, initialised (zero) and writable. `Handout` lends a slot once, slots are disjoint,
        // and nothing is frozen while this chunk is out, so this is the only access; it borrows `self` mutably.
        WriteOnly::new(unsafe { std::slice::from_raw_parts_mut(start, slot.len()) })
    }
}

impl Drop for ArenaChunk {
    fn drop(&mut self) {
        self.inner.handout.give_back();
    }
}

/// Memory that stays where it is while its owner moves, so that the kernel may write to it.
///
/// # Safety
/// The address of [`Buffer::memory`] must stay valid and the same until the buffer is dropped.
pub unsafe trait StableBuffer: Buffer {}

// SAFETY: the chunk points into a mapping that its `Arc` keeps alive and that never moves.
unsafe impl StableBuffer for ArenaChunk {}

/// An arena that nothing writes to any more. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FrozenArena {
    inner: Arc<Inner>,
}

impl FrozenArena {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the region is mapped and initialised for at least `bytes`; frozen means that no chunk is out and none
        // will be, so nothing writes while the arena lives.
        unsafe { std::slice::from_raw_parts(self.inner.region.base().as_ptr(), self.inner.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_exclusive_and_the_whole_freezes_when_all_are_back() {
        let arena = Arena::new(10_000, vec![4096..10_000, 0..4096]).expect("maps");
        let mut second = arena.take(0).expect("the first time");
        assert!(arena.take(0).is_none(), "a slot is lent once");
        assert!(arena.take(2).is_none(), "there are two slots");
        assert!(arena.freeze().is_none(), "a chunk is out");
        second.memory().fill(7);
        drop(second);
        let frozen = arena.freeze().expect("all are back");
        assert!(arena.take(1).is_none(), "nothing is lent after the freeze");
        assert_eq!(frozen.bytes().as_ptr().align_offset(2 << 20), 0);
        assert_eq!((frozen.bytes()[4095], frozen.bytes()[4096]), (0, 7));
        drop(arena);
        assert_eq!(frozen.bytes()[9999], 7, "the frozen arena keeps the memory");
    }

    #[test]
    fn overlapping_slots_are_refused() {
        for slots in [vec![0..5, 4..6], vec![0..5, 5..11], vec![0..3, 0..3]] {
            assert_eq!(Arena::new(10, slots).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
        }
        assert!(Arena::new(0, vec![]).is_ok());
    }

    // Miri ends the program when it has no memory left itself.
    #[cfg(not(miri))]
    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(Arena::new(isize::MAX as usize, vec![]).is_err());
        assert!(Arena::new(usize::MAX, vec![]).is_err());
    }
}
