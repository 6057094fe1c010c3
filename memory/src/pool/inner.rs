//! Combines the two tiers of a pool: the thread's magazine first, then the depot.

use super::block::{Block, Blocks};
use super::local::{self, Key, Slot};
use super::magazine::{Magazine, Magazines};
use super::memory::MemoryProvider;
use crate::sync::{AtomicBool, AtomicUsize, Ordering, fence};
use floodtide_core::pool::{CLASS_COUNT, Depot, SizeClass, Stats, TakeError, Turn};
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// The share of the limit that one magazine may keep per class, if that is at least one block.
const MAGAZINE_SHARE: usize = 8;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) key: Key,
    _slot: Slot,
    depot: Depot<Blocks, Magazines<Block>>,
    closed: AtomicBool,
    /// The number of streams that use the pool.
    streams: AtomicUsize,
}

impl Inner {
    pub(super) fn new(limit: usize, memory: Arc<dyn MemoryProvider>) -> Arc<Self> {
        let slot = Slot::take();
        let mut depths = [0; CLASS_COUNT];
        for class in SizeClass::all() {
            let depth = (limit / MAGAZINE_SHARE / class.size()).max(1);
            depths[class.index()] = u8::try_from(depth).unwrap_or(u8::MAX);
        }
        Arc::new_cyclic(|pool| Self {
            key: Key::new(&slot),
            _slot: slot,
            depot: Depot::new(Blocks { memory, pool: pool.clone() }, Magazines::new(depths), limit),
            closed: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
        })
    }

    pub(super) fn memory(&self) -> &Arc<dyn MemoryProvider> {
        &self.depot.provider().memory
    }

    pub(super) fn streams(&self) -> &AtomicUsize {
        &self.streams
    }

    pub(super) fn limit(&self) -> usize {
        self.depot.limit()
    }

    /// Takes a block from the thread's magazine.
    #[inline(always)]
    pub(super) fn take_local(&self, bytes: usize) -> Option<Block> {
        let class = SizeClass::holding(bytes)?;
        // SAFETY: `with_magazine` passes the calling thread's magazine.
        let pop = |magazine: Option<&Magazine<Block>>| unsafe { magazine?.pop(class) };
        // SAFETY: `pop` does not enlist.
        unsafe { local::with_magazine(self.key, pop) }
    }

    /// Takes a block from the depot without waiting. Retained blocks also fill half of the thread's
    /// magazine.
    pub(super) fn try_take(self: &Arc<Self>, bytes: usize) -> Result<Block, TakeError<io::Error>> {
        local::enlist(self);
        let affinity = local::affinity();
        let max = 1 + SizeClass::holding(bytes).map_or(0, |class| self.depot.tier().depth(class) / 2);
        let (mut first, mut refused) = (None, Vec::new());
        self.depot.take_retained(bytes, affinity, max, |block| match first {
            None => first = Some(block),
            Some(_) => refused.extend(give_local(block).err()),
        });
        self.depot.give_all(refused, affinity);
        match first {
            Some(block) => Ok(block),
            None => self.depot.try_take(bytes, affinity),
        }
    }

    pub(super) fn poll_take(
        self: &Arc<Self>,
        bytes: usize,
        turn: &mut Turn,
        waker: &Waker,
    ) -> Poll<Result<Block, TakeError<io::Error>>> {
        self.depot.poll_take(bytes, local::affinity(), turn, waker)
    }

    pub(super) fn cancel(&self, turn: &mut Turn) {
        self.depot.cancel(turn);
    }

    /// Takes a block back.
    #[inline]
    pub(super) fn give(block: Block) {
        if let Err(block) = give_local(block) {
            Self::give_to_depot(block);
        }
    }

    #[cold]
    fn give_to_depot(block: Block) {
        let pool = Arc::clone(block.pool());
        let affinity = local::affinity();
        local::enlist(&pool);
        let class = block.class();
        let mut drained = Vec::new();
        let shed = |magazine: Option<&Magazine<Block>>| {
            let magazine = magazine?;
            // A sandbox may keep other threads from emptying the suspended magazine.
            // SAFETY: `with_magazine` passes the calling thread's magazine.
            unsafe { pool.depot.tier().surrender(magazine, &mut |block| drained.push(block)) };
            // SAFETY: `with_magazine` passes the calling thread's magazine.
            Some(unsafe { magazine.shed(class) })
        };
        // SAFETY: `shed` only moves blocks. What wakes others, and may enlist, follows later.
        let older = unsafe { local::with_magazine(pool.key, shed) };
        pool.depot.give_all(drained, affinity);
        pool.depot.give_all(older.into_iter().flatten().flatten(), affinity);
        if let Err(block) = give_local(block) {
            pool.depot.give(block, affinity);
        }
        fence(Ordering::SeqCst);
        if pool.closed.load(Ordering::Relaxed) {
            // The closing thread may have checked the free lists earlier.
            pool.depot.trim();
        }
    }

    pub(super) fn new_magazine(&self) -> Arc<Magazine<Block>> {
        self.depot.tier().add()
    }

    /// Removes all blocks from the magazine of a thread that ends.
    ///
    /// # Safety
    /// The magazine must be the calling thread's, which must not use it any more.
    pub(super) unsafe fn retire(&self, magazine: &Arc<Magazine<Block>>) {
        let mut drained = Vec::new();
        // SAFETY: the magazine is the calling thread's, which no longer uses it (contract of
        // `retire`).
        unsafe { self.depot.tier().retire(magazine, &mut |block| drained.push(block)) };
        self.depot.give_all(drained, local::affinity());
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.depot.trim();
        }
    }

    pub(super) fn trim(&self) -> usize {
        self.depot.trim()
    }

    pub(super) fn stats(&self) -> Stats {
        let (bytes, hits) = self.depot.tier().counters();
        self.depot.stats(bytes, hits)
    }

    /// Stops counting a lent block of `bytes` bytes.
    pub(super) fn detach(&self, bytes: usize) {
        self.depot.detach(bytes);
    }

    /// Counts a block of `bytes` bytes as lent, if it fits under the limit.
    pub(super) fn adopt(&self, bytes: usize) -> bool {
        self.depot.adopt(bytes, local::affinity())
    }

    /// Closes the pool after its last handle is dropped: nothing is kept, and lent blocks are freed
    /// when they return.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut drained = Vec::new();
        self.depot.tier().close(&mut |block| drained.push(block));
        drop(drained);
        self.depot.trim();
    }
}

/// Puts a block into the calling thread's magazine, or returns it if there is no place.
///
/// The block keeps the pool alive, so nothing of the pool is touched once the block is in the
/// magazine.
#[inline]
fn give_local(block: Block) -> Result<(), Block> {
    if !block.is_regular() {
        return Err(block);
    }
    let (key, class) = (block.key(), block.class());
    let push = |magazine: Option<&Magazine<Block>>| match magazine {
        // SAFETY: `with_magazine` passes the calling thread's magazine.
        Some(magazine) => unsafe { magazine.push(class, block) },
        None => Err(block),
    };
    // SAFETY: `push` does not enlist.
    unsafe { local::with_magazine(key, push) }
}
