//! The lower tier: sharded free lists under one limit, and the queue of those who wait.
//!
//! Locks are taken in the order waiters, tier, shard, and none is held while memory is allocated or a waker is called.
//!
//! Why no wake-up is lost: a waiter raises `waiting` and then looks for memory; whoever gives memory back first makes it findable
//! and then looks at `waiting`. Between the two steps each side has a sequentially consistent fence, so at least one of
//! them sees the other.

mod room;

use super::class::{MIN_BYTES, SizeClass};
use super::containers::{Containers, FreeList, Growing};
use super::provider::{Provider, Stats, TakeError, Tier};
use super::waiters::{Turn, Waiters};
use crate::seeded_bug::seeded_bug;
use crate::sync::{AtomicUsize, Mutex, Ordering, fence};
use core::array;
use core::fmt;
use core::task::{Poll, Waker};
use room::Reserved;

#[derive(Debug)]
#[repr(align(128))]
struct Shard<T> {
    state: Mutex<T>,
}

#[derive(Debug)]
struct ShardState<S: Containers, B> {
    free_list: S::FreeList<B>,
    retained: usize,
    hits: u64,
    misses: u64,
}

/// What is asked for, in terms of blocks.
#[derive(Debug, Clone, Copy)]
struct BlockRequest {
    /// At least this many bytes.
    bytes: usize,
    /// Where fitting blocks are kept.
    class: SizeClass,
    /// The size of a new block.
    fresh: usize,
}

/// Lends blocks of memory under one limit. `SHARDS` is a power of two.
pub struct Depot<P: Provider, T: Tier<P::Block> = (), S: Containers = Growing, const SHARDS: usize = 8> {
    provider: P,
    tier: T,
    limit: usize,
    /// Lent, retained and cached above, in bytes.
    total: AtomicUsize,
    /// 1 while somebody is in the queue, to be looked at without its lock.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<S>>,
    shards: [Shard<ShardState<S, P::Block>>; SHARDS],
}

impl<P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> Depot<P, T, S, SHARDS> {
    const MASK: usize = {
        assert!(SHARDS.is_power_of_two());
        SHARDS - 1
    };

    /// A depot that lends and retains up to `limit` bytes together; at least the smallest class.
    pub fn new(provider: P, tier: T, limit: usize) -> Self {
        Self {
            provider,
            tier,
            limit: limit.max(MIN_BYTES),
            total: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
            shards: array::from_fn(|_| Shard {
                state: Mutex::new(ShardState { free_list: Default::default(), retained: 0, hits: 0, misses: 0 }),
            }),
        }
    }

    /// Where its memory comes from.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// The cache above it.
    pub fn tier(&self) -> &T {
        &self.tier
    }

    /// The bytes that may be lent and retained together.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether somebody waits.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A block of at least `bytes`, without waiting and without overtaking those who wait.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn try_take(&self, bytes: usize, affinity: usize) -> Result<P::Block, TakeError<P::Error>> {
        let request = self.request(bytes)?;
        if self.has_waiters() {
            return Err(TakeError::Exhausted);
        }
        match self.take_now(request, affinity) {
            Err(TakeError::Exhausted) if self.recall(affinity) => self.take_now(request, affinity),
            result => result,
        }
    }

    /// Up to `max` retained blocks of at least `bytes`, at the price of one, for the tier above to refill itself. Never
    /// allocates. `taken` must not call the depot.
    pub fn take_retained(&self, bytes: usize, affinity: usize, max: usize, mut taken: impl FnMut(P::Block)) {
        let Ok(request) = self.request(bytes) else { return };
        if !self.has_waiters() {
            self.take_free(request, affinity, max, &mut taken);
        }
    }

    /// A block of at least `bytes`, or a place in the queue: `waker` is woken when it is worth to ask again with the same
    /// `turn` and the same `bytes`.
    ///
    /// # Errors
    /// [`TakeError`], but never `Exhausted`; the turn is then over.
    pub fn poll_take(
        &self,
        bytes: usize,
        affinity: usize,
        turn: &mut Turn,
        waker: &Waker,
    ) -> Poll<Result<P::Block, TakeError<P::Error>>> {
        let request = match self.request(bytes) {
            Ok(request) => request,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if !turn.is_waiting() && !self.has_waiters() {
            match self.take_now(request, affinity) {
                Err(TakeError::Exhausted) => {}
                result => return Poll::Ready(result),
            }
        }
        // Wakers are cloned and dropped without the lock, as that may run anybody's code.
        let waker = waker.clone();
        let joined = self.waiters.with(|waiters| {
            let first_of_all = waiters.is_empty();
            let replaced = waiters.join(turn, waker)?;
            if first_of_all {
                self.waiting.store(1, Ordering::Relaxed);
                self.tier.suspend(&mut |block| self.put_back(block, affinity));
            }
            Ok::<_, super::waiters::Full>((waiters.is_first(turn), replaced))
        });
        match joined {
            Err(_) => return Poll::Ready(Err(TakeError::QueueFull)),
            Ok((false, _)) => return Poll::Pending,
            Ok((true, _)) => {}
        }
        fence(Ordering::SeqCst);
        match self.take_now(request, affinity) {
            Err(TakeError::Exhausted) => Poll::Pending,
            result => {
                self.cancel(turn);
                Poll::Ready(result)
            }
        }
    }

    /// Ends a turn; the next in the queue is woken.
    pub fn cancel(&self, turn: &mut Turn) {
        if !turn.is_waiting() {
            return;
        }
        let (next, _gone) = self.waiters.with(|waiters| {
            let gone = waiters.leave(turn);
            if waiters.is_empty() {
                self.waiting.store(0, Ordering::Relaxed);
                self.tier.resume();
            }
            (waiters.first(), gone)
        });
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Takes a block back and keeps it for the next borrower.
    pub fn give(&self, block: P::Block, affinity: usize) {
        self.put_back(block, affinity);
        self.wake_first();
    }

    /// Takes blocks back at the price of one. The iterator must not call the depot.
    pub fn give_all(&self, blocks: impl IntoIterator<Item = P::Block>, affinity: usize) {
        let mut blocks = blocks.into_iter().peekable();
        if blocks.peek().is_none() {
            return;
        }
        let shard = &self.shards[affinity & Self::MASK].state;
        while let Some(refused) = shard.with(|shard| blocks.find_map(|block| self.put(shard, block).err())) {
            self.free(refused);
        }
        self.wake_first();
    }

    /// Takes a block back and releases its memory.
    pub fn release(&self, block: P::Block) {
        self.free(block);
        self.wake_first();
    }

    /// Stops counting a lent block of so many bytes: its borrower keeps it for good.
    pub fn detach(&self, bytes: usize) {
        self.total.fetch_sub(bytes, Ordering::AcqRel);
        self.wake_first();
    }

    /// Counts a block of so many bytes, which was not the pool's before, as lent; false when it does not fit under the limit.
    pub fn adopt(&self, bytes: usize, affinity: usize) -> bool {
        let make_room =
            || self.make_room(bytes, affinity) || (self.recall(affinity) && self.make_room(bytes, affinity));
        bytes <= self.limit && !self.has_waiters() && (self.reserve(bytes) || make_room())
    }

    /// Releases everything that is retained, also above; says how many bytes that were.
    pub fn trim(&self) -> usize {
        self.recall(0);
        self.free_retained(usize::MAX, 0)
    }

    /// The counters, of which `cached` bytes and `cached_hits` are the upper tier's. Taken while others borrow, they need
    /// not belong to one moment.
    pub fn stats(&self, cached: usize, cached_hits: u64) -> Stats {
        let waits = self.waiters.with(|waiters| waiters.joined());
        let mut stats = Stats { limit: self.limit, retained: cached, hits: cached_hits, waits, ..Stats::default() };
        for shard in &self.shards {
            shard.state.with(|shard| {
                stats.retained += shard.retained;
                stats.hits += shard.hits;
                stats.misses += shard.misses;
            });
        }
        stats.lent = self.total.load(Ordering::Relaxed).saturating_sub(stats.retained);
        stats
    }

    fn request(&self, bytes: usize) -> Result<BlockRequest, TakeError<P::Error>> {
        match SizeClass::holding(bytes) {
            Some(class) if class.size() <= self.limit => Ok(BlockRequest { bytes, class, fresh: class.size() }),
            // Only the rounding up does not fit: such a block has exactly the size, and is kept one class below.
            _ if bytes <= self.limit => {
                let class = SizeClass::within(bytes).ok_or(TakeError::TooLarge)?;
                Ok(BlockRequest { bytes, class, fresh: bytes })
            }
            _ => Err(TakeError::TooLarge),
        }
    }

    /// From a free list, or fresh; never waits.
    fn take_now(&self, request: BlockRequest, affinity: usize) -> Result<P::Block, TakeError<P::Error>> {
        let mut block = None;
        self.take_free(request, affinity, 1, &mut |taken| block = Some(taken));
        if let Some(block) = block {
            return Ok(block);
        }
        if !self.reserve(request.fresh) && !self.make_room(request.fresh, affinity) {
            return Err(TakeError::Exhausted);
        }
        // Counted off again unless memory comes, also when the provider panics.
        let reserved = Reserved { depot: self, bytes: request.fresh };
        let allocated = self.provider.allocate(request.fresh).or_else(|error| {
            // What lies on the free lists may be what the system lacks.
            if self.free_retained(usize::MAX, affinity) > 0 {
                self.provider.allocate(request.fresh)
            } else {
                Err(error)
            }
        });
        let block = allocated.map_err(TakeError::Provider)?;
        core::mem::forget(reserved);
        self.shards[affinity & Self::MASK].state.with(|shard| shard.misses += 1);
        Ok(block)
    }

    /// Takes up to `max` blocks from the first shard that has one, beginning with the own.
    fn take_free(&self, request: BlockRequest, affinity: usize, max: usize, taken: &mut impl FnMut(P::Block)) {
        for i in 0..SHARDS {
            let found = self.shards[affinity.wrapping_add(i) & Self::MASK].state.with(|shard| {
                for found in 0..max {
                    let fits = |block: &P::Block| self.provider.byte_len(block) >= request.bytes;
                    let Some(block) = shard.free_list.take(request.class, fits) else { return found > 0 };
                    shard.retained -= self.provider.byte_len(&block);
                    // The first one serves now; the others are counted by the tier above when they do.
                    shard.hits += u64::from(found == 0);
                    taken(block);
                }
                true
            });
            if found {
                return;
            }
        }
    }

    fn put_back(&self, block: P::Block, affinity: usize) {
        if let Err(refused) = self.shards[affinity & Self::MASK].state.with(|shard| self.put(shard, block)) {
            self.free(refused);
        }
    }

    /// Puts a block into a free list; one that finds no place comes back.
    fn put(&self, shard: &mut ShardState<S, P::Block>, block: P::Block) -> Result<(), P::Block> {
        let bytes = self.provider.byte_len(&block);
        let Some(class) = SizeClass::within(bytes) else { return Err(block) };
        shard.free_list.put(class, block)?;
        shard.retained += bytes;
        Ok(())
    }

    fn wake_first(&self) {
        fence(Ordering::SeqCst);
        if !seeded_bug!(LostWakeUp)
            && self.has_waiters()
            && let Some(waker) = self.waiters.with(|waiters| waiters.first())
        {
            waker.wake();
        }
    }
}

impl<P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> fmt::Debug for Depot<P, T, S, SHARDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Depot").field("stats", &self.stats(0, 0)).finish_non_exhaustive()
    }
}
