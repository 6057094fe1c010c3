//! Memory that is handed out as disjoint owned slices, and is whole again when all are returned.
//!
//! [`SlotLedger`] tracks the slices. The memory is an arena's or a pool buffer's.

use crate::slot_ledger::SlotLedger;
use crate::stable::{Landed, StableBuffer, StableMemory};
use floodtide_core::{Buffer, WriteOnly};
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory that can be handed out in slices.
///
/// # Safety
/// The [`byte_len`](Self::byte_len) bytes from [`start`](Self::start) must be initialised, and
/// writable from any thread. They must not move when the value moves. They must belong to its owner
/// alone: nothing else reads or writes them while it lives, and the value itself does so only in
/// methods that its owner calls.
pub unsafe trait StableMemory: fmt::Debug + Send + Sync + 'static {
    /// Returns the address of the first byte.
    fn start(&self) -> NonNull<u8>;
    /// Returns the length in bytes.
    fn byte_len(&self) -> usize;
}

/// Memory that does not move when its owner moves, so that the kernel may write to it.
///
/// # Safety
/// The address of [`Buffer::memory`] must stay valid and unchanged until the buffer is dropped.
pub unsafe trait StableBuffer: Buffer {}

/// The memory of a chunk, which can be read once the chunk is complete.
pub trait Landed: Buffer {
    /// Returns at most the first `bytes` bytes.
    ///
    /// Only bytes that were read into it may be requested. The others may be another borrower's.
    fn landed(&self, bytes: usize) -> &[u8];
}

#[derive(Debug)]
struct Inner<M> {
    memory: M,
    ledger: SlotLedger,
    slots: Vec<Range<usize>>,
}

/// Memory that is split into slots. Cheap to clone.
#[derive(Debug)]
pub struct SplitBuffer<M> {
    inner: Arc<Inner<M>>,
}

impl<M> Clone for SplitBuffer<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M: StableMemory> SplitBuffer<M> {
    /// Splits `memory` into these slots.
    ///
    /// # Errors
    /// Returns `InvalidInput` if slots overlap or exceed the memory. This check makes exclusive
    /// access sound, so it does not trust the planner.
    /// does not trust the planner.
    pub fn new(memory: M, slots: Vec<Range<usize>>) -> io::Result<Self> {
        let mut sorted: Vec<&Range<usize>> = slots.iter().collect();
        sorted.sort_unstable_by_key(|slot| (slot.start, slot.end));
        let ordered = sorted.iter().all(|slot| slot.start <= slot.end && slot.end <= memory.byte_len());
        if !ordered || sorted.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the slots overlap or pass the memory's end"));
        }
        Ok(Self { inner: Arc::new(Inner { memory, ledger: SlotLedger::new(slots.len()), slots }) })
    }

    /// Hands out a slot. Returns `None` if it was handed out before.
    pub fn take(&self, slot: usize) -> Option<BufferSlice> {
        if !self.inner.ledger.acquire(slot) {
            return None;
        }
        let range = &self.inner.slots[slot];
        // SAFETY: `new` checked that the slot is in the memory.
        let start = unsafe { self.inner.memory.start().add(range.start) };
        let inner: Arc<dyn Owner> = Arc::<Inner<M>>::clone(&self.inner);
        Some(BufferSlice { inner, start, len: range.len() })
    }

    /// Freezes the memory if all slices are returned (dropped). Returns true on success. No slice
    /// is handed out from then on.
    pub fn freeze(&self) -> bool {
        self.inner.ledger.freeze()
    }

    /// Returns the memory, which may be read once it is [frozen](Self::freeze).
    pub fn memory(&self) -> &M {
        &self.inner.memory
    }

    /// Returns the memory itself if no slice and no other handle exists.
    pub fn into_memory(self) -> Option<M> {
        Arc::into_inner(self.inner).map(|inner| inner.memory)
    }
}

impl SplitBuffer<PoolBuffer> {
    /// Returns the buffer, filled up to the end of `written`, if no slice and no other handle
    /// exists.
    ///
    /// The bytes before `written` are zeroed. The holders of slices must have written all of
    /// `written`: other bytes may be an earlier borrower's.
    ///
    /// # Panics
    /// Panics if `written` exceeds the buffer's capacity.
    /// When `written` passes the buffer's capacity.
    #[must_use]
    pub fn into_filled(self, written: Range<usize>) -> Option<PoolBuffer> {
        let mut buffer = self.into_memory()?;
        buffer.spare().part(0..written.start).fill(0);
        // SAFETY: the memory is initialised. The caller guarantees that its bytes are this
        // borrower's own.
        unsafe { buffer.assume_filled(written.end) };
        Some(buffer)
    }
}

/// Takes slots back, whatever the type of the memory.
trait Owner: fmt::Debug + Send + Sync {
    fn release(&self);
}

impl<M: fmt::Debug + Send + Sync> Owner for Inner<M> {
    fn release(&self) {
        self.ledger.release();
    }
}

/// The bytes of one slot, owned until dropped. Its type does not depend on the memory's.
#[derive(Debug)]
pub struct BufferSlice {
    /// Keeps the memory alive.
    inner: Arc<dyn Owner>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are this slice's alone, and `StableMemory` allows writes from any thread.
unsafe impl Send for BufferSlice {}
// SAFETY: shared access only reads bytes that nothing writes to meanwhile: see `Landed`.
unsafe impl Sync for BufferSlice {}

impl Buffer for BufferSlice {
    fn memory(&mut self) -> WriteOnly<'_> {
        // SAFETY: by `StableMemory` the bytes are initialised and writable, and `SplitBuffer::new`
        // checked that they are in the memory. `SlotLedger` hands out a slot once, slots are
        // disjoint, and nothing is frozen or taken out while this slice lives. So this is the only
        // access, and it borrows `self` mutably.
        WriteOnly::new(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }
}

impl Landed for BufferSlice {
    fn landed(&self, bytes: usize) -> &[u8] {
        // SAFETY: by `StableMemory` the bytes are initialised. Only this slice has the slot. A
        // writer borrows it mutably or owns it, as a source does until its read completes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len.min(bytes)) }
    }
}

// SAFETY: the slice points into memory that its `Arc` keeps alive and that, by `StableMemory`,
// never moves.
unsafe impl StableBuffer for BufferSlice {}

impl Drop for BufferSlice {
    fn drop(&mut self) {
        self.inner.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use crate::region::Region;
    use floodtide_core::Alignment;

    #[test]
    fn overlapping_slots_are_refused() {
        let region = || Region::map(10, Alignment::ONE).expect("maps");
        let page = region().byte_len();
        for slots in [vec![0..5, 4..6], vec![0..5, 5..page + 1], vec![0..3, 0..3]] {
            assert_eq!(SplitBuffer::new(region(), slots).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
        }
        assert!(SplitBuffer::new(region(), vec![]).is_ok());
    }

    #[test]
    fn a_pools_buffer_comes_back_when_its_pieces_are_gone() {
        let pool = Pool::builder().limit(100_000).build();
        let buffer = SplitBuffer::new(pool.get(10_000).expect("fits"), vec![0..5000, 5000..10_000]).expect("disjoint");
        let workers: Vec<_> = (0..2_u8)
            .map(|slot| {
                let buffer = buffer.clone();
                std::thread::spawn(move || buffer.take(slot.into()).expect("once").memory().fill(slot + 1))
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        assert!(buffer.take(0).is_none(), "a slot is lent once");
        let mut buffer = buffer.into_memory().expect("all are back");
        // SAFETY: both halves were written above.
        unsafe { buffer.assume_filled(10_000) };
        assert_eq!((buffer[0], buffer[4999], buffer[5000], buffer[9999]), (1, 1, 2, 2));
        drop(buffer);
        assert_eq!(pool.stats().lent, 0);
    }

    #[test]
    fn a_piece_that_is_out_keeps_the_memory() {
        let pool = Pool::builder().limit(100_000).build();
        let buffer =
            SplitBuffer::new(pool.get(10_000).expect("fits"), vec![0..10_000, 10_000..10_000]).expect("disjoint");
        let slice = buffer.take(0).expect("once");
        assert!(!buffer.freeze());
        assert!(buffer.into_memory().is_none());
        assert!(pool.stats().lent > 0);
        drop(slice);
        assert_eq!(pool.stats().lent, 0, "it went back with the last piece");
    }
}
