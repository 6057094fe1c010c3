//! The ledger of an arena's slots, without its memory: each slot is acquired at most once, and the whole is frozen
//! only when every slot that was acquired is back. loom runs all interleavings of it.

use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Set in `state` once the whole is frozen; the other bits count the slots that are out.
const FROZEN: usize = 1 << (usize::BITS - 1);

/// Who may touch which slot.
#[derive(Debug)]
pub struct SlotLedger {
    lent: Box<[AtomicBool]>,
    state: AtomicUsize,
}

impl SlotLedger {
    /// For that many slots, none of them lent.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { lent: (0..slots).map(|_| AtomicBool::new(false)).collect(), state: AtomicUsize::new(0) }
    }

    /// Acquires a slot: true once for each, and never after the freeze. The caller releases it with
    /// [`release`](Self::release), once.
    pub fn acquire(&self, slot: usize) -> bool {
        let Some(lent) = self.lent.get(slot) else { return false };
        // Counted before it is lent, so that a freeze that runs meanwhile sees it.
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

    /// Takes an acquired slot back for good. What its holder wrote is visible to whoever freezes.
    pub fn release(&self) {
        self.state.fetch_sub(1, Ordering::Release);
    }

    /// Freezes the whole, so that nothing is lent any more: true when no slot is out.
    pub fn freeze(&self) -> bool {
        // Acquire pairs with the releases of `release`: all writes into the slots happen before reads of the frozen
        // whole. `fetch_sub` continues a release sequence, so one acquire covers every holder.
        match self.state.compare_exchange(0, FROZEN, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => true,
            Err(state) => state == FROZEN,
        }
    }
}
