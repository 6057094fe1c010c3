//! Finds the calling thread's magazine of a pool.
//!
//! Each thread has a table, in which each pool has a *slot*, so finding the magazine is one indexed
//! load. The table has no destructor, so it works until the very end of a thread. A second
//! thread-local, the [`Guard`], owns the magazines and returns their blocks when the thread ends.
//! Slots of dropped pools are reused. Each pool has a unique id.

use super::block::Block;
use super::inner::Inner;
use super::magazine::Magazine;
use crate::sync::Ordering;
use crate::sync::process::{AtomicU32, AtomicU64, AtomicUsize};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

/// The maximum number of pools with magazines at a time. Others work without.
const SLOTS: usize = 32;

/// A pool's slot in the tables.
#[derive(Debug)]
pub(super) struct Slot(usize);

static TAKEN: AtomicU32 = AtomicU32::new(0);

impl Slot {
    /// Takes a free slot, or an invalid one if all are taken.
    pub(super) fn take() -> Self {
        let mut slot = SLOTS;
        let _ = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            slot = taken.trailing_ones() as usize;
            (slot < SLOTS).then(|| taken | 1 << slot)
        });
        Self(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.0 < SLOTS {
            TAKEN.fetch_and(!(1 << self.0), Ordering::Relaxed);
        }
    }
}

struct Entry {
    pool: Cell<u64>,
    magazine: Cell<*const Magazine<Block>>,
}

/// Ids of pools start at 1.
const NO_POOL: u64 = 0;

thread_local! {
    static TABLE: [Entry; SLOTS] =
        const { [const { Entry { pool: Cell::new(NO_POOL), magazine: Cell::new(std::ptr::null()) } }; SLOTS] };
    static AFFINITY: Cell<usize> = const { Cell::new(usize::MAX) };
    static GUARD: Guard = const { Guard(RefCell::new(Vec::new())) };
}

/// A magazine of this thread.
struct Owned {
    pool: Weak<Inner>,
    slot: usize,
    magazine: Arc<Magazine<Block>>,
}

/// Returns the magazines when the thread ends.
struct Guard(RefCell<Vec<Owned>>);

impl Drop for Guard {
    fn drop(&mut self) {
        for Owned { pool, slot, magazine } in self.0.take() {
            forget(slot, &magazine);
            if let Some(pool) = pool.upgrade() {
                // SAFETY: the guard is this thread's, so the magazine is. `forget` removed it from
                // the table, so the thread no longer finds it.
                unsafe { pool.retire(&magazine) };
            }
        }
    }
}

fn forget(slot: usize, magazine: &Arc<Magazine<Block>>) {
    TABLE.with(|table| {
        if table[slot].magazine.get() == Arc::as_ptr(magazine) {
            table[slot].pool.set(NO_POOL);
        }
    });
}

/// The key of a pool's magazines. A copy, so that the pool itself may be gone during a lookup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    slot: usize,
    id: u64,
}

impl Key {
    pub(super) fn new(slot: &Slot) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(NO_POOL + 1);
        Self { slot: slot.0, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

/// Returns the address of the calling thread's magazine of the pool, or null.
#[inline(always)]
fn find(key: Key) -> *const Magazine<Block> {
    TABLE.with(|table| match table.get(key.slot) {
        Some(entry) if entry.pool.get() == key.id => entry.magazine.get(),
        _ => std::ptr::null(),
    })
}

/// Calls `f` with the calling thread's magazine of the pool, or with `None` if it has none.
///
/// # Safety
/// `f` must not [enlist](enlist) the thread with a pool.
#[inline(always)]
pub(super) unsafe fn with_magazine<R>(key: Key, f: impl FnOnce(Option<&Magazine<Block>>) -> R) -> R {
    // Only the lookup is inside `TABLE.with`, which keeps it small enough to be inlined.
    let magazine = find(key);
    // SAFETY: the entry names the pool, so this thread's guard holds the magazine. The guard clears
    // the entry before it drops the magazine. It drops magazines only when the thread ends, which
    // is not during `f`, or enlists, which `f` does not.
    f(unsafe { magazine.as_ref() })
}

/// Gives the calling thread a magazine of the pool, unless it has one, there is no slot, or the
/// thread is ending.
pub(super) fn enlist(pool: &Arc<Inner>) {
    let Key { slot, id } = pool.key;
    if slot >= SLOTS || !find(pool.key).is_null() {
        return;
    }
    let _ = GUARD.try_with(|guard| {
        let Ok(mut owned) = guard.0.try_borrow_mut() else { return };
        owned.retain(|old| {
            let alive = old.pool.strong_count() > 0;
            if !alive {
                forget(old.slot, &old.magazine);
            }
            alive
        });
        let magazine = pool.new_magazine();
        TABLE.with(|table| {
            table[slot].magazine.set(Arc::as_ptr(&magazine));
            table[slot].pool.set(id);
        });
        owned.push(Owned { pool: Arc::downgrade(pool), slot, magazine });
    });
}

/// Returns the number of the calling thread, which selects its shard.
pub(super) fn affinity() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    AFFINITY.with(|affinity| {
        if affinity.get() == usize::MAX {
            affinity.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        affinity.get()
    })
}
