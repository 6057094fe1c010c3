//! Which magazine of a pool is the calling thread's.
//!
//! A pool has a *slot* in a table that each thread has, so that finding the magazine is one indexed load. The table has no
//! destructor, so it can be used to the very end of a thread; a second thread-local, the [`Guard`], owns the magazines and
//! hands their blocks back when the thread ends. Slots are used again when pools are gone; each pool has an id of its own.

use super::block::Block;
use super::inner::Inner;
use super::magazine::Magazine;
use crate::sync::Ordering;
use crate::sync::process::{AtomicU32, AtomicU64, AtomicUsize};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

/// How many pools at a time can have magazines; more work without.
const SLOTS: usize = 32;

/// A pool's place in the tables.
#[derive(Debug)]
pub(super) struct Slot(usize);

static TAKEN: AtomicU32 = AtomicU32::new(0);

impl Slot {
    /// A slot that no other pool has; a useless one when all are taken.
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

/// Pools' ids start at 1.
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

/// Gives the magazines back when the thread ends.
struct Guard(RefCell<Vec<Owned>>);

impl Drop for Guard {
    fn drop(&mut self) {
        for Owned { pool, slot, magazine } in self.0.take() {
            forget(slot, &magazine);
            if let Some(pool) = pool.upgrade() {
                // SAFETY: the magazine is this thread's, and the table does not lead to it any more.
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

/// What finds a pool's magazine. A copy of it, so that the pool itself need not be there any more while one looks.
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

/// The calling thread's magazine of the pool, if it has one.
///
/// # Safety
/// It must not be used any more when the thread [enlists](enlist) with a pool, or ends.
#[inline(always)]
pub(super) unsafe fn find<'m>(key: Key) -> Option<&'m Magazine<Block>> {
    // Only the look-up is done under `with`, which keeps it small enough to be inlined.
    let magazine = TABLE.with(|table| match table.get(key.slot) {
        Some(entry) if entry.pool.get() == key.id => entry.magazine.get(),
        _ => std::ptr::null(),
    });
    // SAFETY: the entry names the pool, so the guard of this thread holds the magazine: it forgets the entry before it lets
    // go of it, which it does only when the thread ends or enlists.
    unsafe { magazine.as_ref() }
}

/// Gives the calling thread a magazine of the pool, unless it has one, no slot, or is about to end.
pub(super) fn enlist(pool: &Arc<Inner>) {
    let Key { slot, id } = pool.key;
    // SAFETY: it is not used.
    if slot >= SLOTS || unsafe { find(pool.key) }.is_some() {
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

/// The calling thread's number, by which it keeps to one shard.
pub(super) fn affinity() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    AFFINITY.with(|affinity| {
        if affinity.get() == usize::MAX {
            affinity.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        affinity.get()
    })
}
