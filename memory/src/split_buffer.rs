//! Memory that is handed out as disjoint owned slices, and is whole again when all are returned.
//!
//! [`SlotLedger`] tracks the slices. The memory is an arena's or a pool buffer's.

use crate::pool::PoolBuffer;
use crate::slot_ledger::SlotLedger;
use crate::stable::{FilledBytes, StableBuffer, StableMemory};
use floodtide_core::{Buffer, WriteOnly};
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

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
    /// Cuts `memory` into the given slots.
    ///
    /// # Errors
    /// Returns `InvalidInput` if slots overlap or exceed the memory. The check makes the slices
    /// sound; it does not trust the planner.
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

    /// Returns true if all slices are returned (dropped). No slice is handed out afterwards.
    pub fn freeze(&self) -> bool {
        self.inner.ledger.freeze()
    }

    /// Returns the memory, which may be read once it is [frozen](Self::freeze).
    pub fn memory(&self) -> &M {
        &self.inner.memory
    }

    /// Returns the memory if no slice and no other handle is left.
    pub fn into_memory(self) -> Option<M> {
        Arc::into_inner(self.inner).map(|inner| inner.memory)
    }
}

impl SplitBuffer<PoolBuffer> {
    /// Returns the buffer, filled up to the end of `written`, if no slice and no other handle is
    /// left. Bytes before `written` are zeroed. The slots must be in ascending order.
    ///
    /// The holders of the slices must have filled `written`. Unwritten bytes of it may belong to an
    /// earlier borrower.
    ///
    /// # Panics
    /// Panics if a byte of `written` is in no slot that was handed out.
    #[must_use]
    pub fn into_filled(self, written: Range<usize>) -> Option<PoolBuffer> {
        let Inner { memory: mut buffer, ledger, slots } = Arc::into_inner(self.inner)?;
        let lent = slots.iter().enumerate().filter(|(slot, _)| ledger.was_acquired(*slot)).map(|(_, slot)| slot);
        let end = lent.fold(written.start, |end, slot| if slot.start <= end { end.max(slot.end) } else { end });
        assert!(end >= written.end, "the filled bytes end at {}, the slots that were lent at {end}", written.end);
        buffer.clear();
        buffer.spare().part(0..written.start).fill(0);
        // SAFETY: the bytes before `written` are zeroed, and the rest was lent to holders that
        // filled it by this method's contract. The memory is initialised in any case (contract of
        // `MemoryBlock::from_raw`), so a holder that wrote less exposes old bytes and no more.
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

// SAFETY: `SplitBuffer::new` checked that slots are disjoint and `SlotLedger` lends each once, so
// the bytes are this slice's alone. `StableMemory` lets any thread write to them.
unsafe impl Send for BufferSlice {}
// SAFETY: `filled` is the only shared access, and writing needs `&mut self` or ownership.
unsafe impl Sync for BufferSlice {}

impl Buffer for BufferSlice {
    fn memory(&mut self) -> WriteOnly<'_> {
        // SAFETY: the bytes are initialised and writable by `StableMemory`, and `SplitBuffer::new`
        // checked that they lie in the memory. `SlotLedger` lends a slot once, slots are disjoint,
        // and nothing is frozen or taken out while this slice is here, so this is the only access;
        // it borrows `self` mutably.
        WriteOnly::new(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }
}

impl FilledBytes for BufferSlice {
    fn filled(&self, len: usize) -> &[u8] {
        // SAFETY: the bytes are initialised by `StableMemory`. Only this slice has the slot, and a
        // writer borrows it mutably or owns it, as a source does until its read is done.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len.min(len)) }
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
    fn a_pools_buffer_comes_back_when_its_slices_are_gone() {
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
    fn only_what_was_lent_is_declared_filled_and_what_precedes_it_is_zero() {
        let pool = Pool::builder().limit(100_000).build();
        let split = || {
            let mut buffer = pool.get(10_000).expect("fits");
            buffer.extend_from_slice(&[9; 10_000]);
            SplitBuffer::new(buffer, vec![100..5000, 5000..10_000]).expect("disjoint")
        };
        let buffer = split();
        buffer.take(0).expect("once").memory().fill(1);
        let slice = buffer.take(1).expect("once");
        assert!(buffer.clone().into_filled(100..9000).is_none(), "a slice is out");
        drop(slice);
        let filled = buffer.into_filled(100..9000).expect("all are back");
        assert_eq!((filled.len(), filled[99], filled[100], filled[4999]), (9000, 0, 1, 1));
        drop(filled);
        let buffer = split();
        drop(buffer.take(0));
        let never_lent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| buffer.into_filled(100..5001)));
        assert!(never_lent.is_err());
    }

    #[test]
    fn a_slice_that_is_out_keeps_the_memory() {
        let pool = Pool::builder().limit(100_000).build();
        let buffer =
            SplitBuffer::new(pool.get(10_000).expect("fits"), vec![0..10_000, 10_000..10_000]).expect("disjoint");
        let slice = buffer.take(0).expect("once");
        assert!(!buffer.freeze());
        assert!(buffer.into_memory().is_none());
        assert!(pool.stats().lent > 0);
        drop(slice);
        assert_eq!(pool.stats().lent, 0, "it went back with the last slice");
    }
}
