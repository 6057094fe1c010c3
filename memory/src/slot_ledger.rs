//! Tracks the slots of an arena without its memory. Each slot is acquired at most once, and
//! freezing succeeds only when all acquired slots are released. loom checks all interleavings.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Set in `state` once frozen. The other bits count the acquired slots.
const FROZEN: usize = 1 << (usize::BITS - 1);

/// Tracks which slots are acquired.
#[derive(Debug)]
pub struct SlotLedger {
    lent: Box<[AtomicBool]>,
    state: AtomicUsize,
}

impl SlotLedger {
    /// Creates a ledger of `slots` free slots.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { lent: (0..slots).map(|_| AtomicBool::new(false)).collect(), state: AtomicUsize::new(0) }
    }

    /// Acquires a slot. Returns true once per slot, and never after the freeze.
    ///
    /// The caller must call [`release`](Self::release) once for it.
    pub fn acquire(&self, slot: usize) -> bool {
        let Some(lent) = self.lent.get(slot) else { return false };
        // Count it first, so that a concurrent freeze sees it.
        if self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |s| (s & FROZEN == 0).then(|| s + 1)).is_err()
        {
            return false;
        }
        if lent.swap(true, Ordering::Relaxed) {
            self.state.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Returns true if a slot was acquired, released since or not.
    pub fn was_acquired(&self, slot: usize) -> bool {
        self.lent.get(slot).is_some_and(|lent| lent.load(Ordering::Relaxed))
    }

    /// Releases an acquired slot for good. The freezing thread sees what its holder wrote.
    pub fn release(&self) {
        self.state.fetch_sub(1, Ordering::Release);
    }

    /// Freezes the ledger if no slot is acquired. Returns true on success.
    pub fn freeze(&self) -> bool {
        // Acquire pairs with the releases of `release`: all writes into slots happen before reads
        // of the frozen whole. `fetch_sub` continues a release sequence, so one acquire covers
        // every holder.
        match self.state.compare_exchange(0, FROZEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => true,
            Err(state) => state == FROZEN,
        }
    }
}
