//! The lower tier: sharded free lists under one limit, and the queue of waiting borrowers.
//!
//! Locks are taken in the order waiters, tier, shard. None is held while memory is allocated or a
//! waker is called.
//!
//! No wake-up is lost. A waiter raises `waiting` and then looks for memory. A borrower that returns
//! memory first makes it visible and then reads `waiting`. Each side has a sequentially consistent
//! fence between its two steps, so at least one sees the other.

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

/// A request, in terms of blocks.
#[derive(Debug, Clone, Copy)]
struct BlockRequest {
    /// The minimum size in bytes.
    bytes: usize,
    /// The class of fitting blocks.
    class: SizeClass,
    /// The size of a new block in bytes.
    fresh: usize,
}

/// Lends blocks of memory under one limit. `SHARDS` is a power of two.
pub struct Depot<P: Provider, T: Tier<P::Block> = (), S: Containers = Growing, const SHARDS: usize = 8> {
    provider: P,
    tier: T,
    limit: usize,
    /// The number of bytes that are lent, retained, or cached in the upper tier.
    total: AtomicUsize,
    /// 1 while the queue is not empty, so that it can be checked without the lock.
    waiting: AtomicUsize,
    waiters: Mutex<Waiters<S>>,
    shards: [Shard<ShardState<S, P::Block>>; SHARDS],
}

impl<P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> Depot<P, T, S, SHARDS> {
    const MASK: usize = {
        assert!(SHARDS.is_power_of_two());
        SHARDS - 1
    };

    /// Creates a depot with a limit of lent and retained bytes. The limit is at least the smallest
    /// class.
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

    /// Returns the provider.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// Returns the upper tier.
    pub fn tier(&self) -> &T {
        &self.tier
    }

    /// Returns the limit of lent and retained bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns true if a borrower waits.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lends a block of at least `bytes` bytes without waiting and without overtaking those who
    /// wait.
    ///
    /// # Errors
    /// Returns a [`TakeError`] if no block can be lent now.
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

    /// Takes up to `max` retained blocks of at least `bytes` bytes in one step, to refill the upper
    /// tier.
    ///
    /// Never allocates. `taken` must not call the depot.
    pub fn take_retained(&self, bytes: usize, affinity: usize, max: usize, mut taken: impl FnMut(P::Block)) {
        let Ok(request) = self.request(bytes) else { return };
        if !self.has_waiters() {
            self.take_free(request, affinity, max, &mut taken);
        }
    }

    /// Lends a block of at least `bytes` bytes, or joins the queue.
    ///
    /// `waker` is woken when the call is worth repeating with the same `turn` and `bytes`.
    ///
    /// # Errors
    /// Returns a [`TakeError`], but never `Exhausted`. The turn is then over.
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
        // Cloning and dropping a waker may run foreign code, so neither happens under the lock.
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

    /// Ends a turn and wakes the next borrower in the queue.
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

    /// Takes blocks back in one step. The iterator must not call the depot.
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

    /// Takes a block back and frees its memory.
    pub fn release(&self, block: P::Block) {
        self.free(block);
        self.wake_first();
    }

    /// Stops counting a lent block of `bytes` bytes, because its borrower keeps it.
    pub fn detach(&self, bytes: usize) {
        self.total.fetch_sub(bytes, Ordering::AcqRel);
        self.wake_first();
    }

    /// Counts a foreign block of `bytes` bytes as lent. Returns false if it does not fit under the
    /// limit.
    pub fn adopt(&self, bytes: usize, affinity: usize) -> bool {
        let make_room =
            || self.make_room(bytes, affinity) || (self.recall(affinity) && self.make_room(bytes, affinity));
        bytes <= self.limit && !self.has_waiters() && (self.reserve(bytes) || make_room())
    }

    /// Frees all retained blocks, including the upper tier's. Returns the number of bytes freed.
    pub fn trim(&self) -> usize {
        self.recall(0);
        self.free_retained(usize::MAX, 0)
    }

    /// Returns the counters. `cached` and `cached_hits` are the upper tier's.
    ///
    /// While others borrow, the numbers need not belong to one moment.
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
            // Only rounding up exceeds the limit. Such a block has exactly this size, and is kept
            // one class below.
            _ if bytes <= self.limit => {
                let class = SizeClass::within(bytes).ok_or(TakeError::TooLarge)?;
                Ok(BlockRequest { bytes, class, fresh: bytes })
            }
            _ => Err(TakeError::TooLarge),
        }
    }

    /// Takes a block from a free list, or allocates one. Never waits.
    fn take_now(&self, request: BlockRequest, affinity: usize) -> Result<P::Block, TakeError<P::Error>> {
        let mut block = None;
        self.take_free(request, affinity, 1, &mut |taken| block = Some(taken));
        if let Some(block) = block {
            return Ok(block);
        }
        if !self.reserve(request.fresh) && !self.make_room(request.fresh, affinity) {
            return Err(TakeError::Exhausted);
        }
        // Released unless the allocation succeeds, even if the provider panics.
        let reserved = Reserved { depot: self, bytes: request.fresh };
        let allocated = self.provider.allocate(request.fresh).or_else(|error| {
            // The retained blocks may be what the system lacks.
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

    /// Takes up to `max` blocks from the first shard that has any, starting with the caller's.
    fn take_free(&self, request: BlockRequest, affinity: usize, max: usize, taken: &mut impl FnMut(P::Block)) {
        for i in 0..SHARDS {
            let found = self.shards[affinity.wrapping_add(i) & Self::MASK].state.with(|shard| {
                for found in 0..max {
                    let fits = |block: &P::Block| self.provider.byte_len(block) >= request.bytes;
                    let Some(block) = shard.free_list.take(request.class, fits) else { return found > 0 };
                    shard.retained -= self.provider.byte_len(&block);
                    // The first one serves a borrower now. The upper tier counts the others when
                    // they do.
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

    /// Puts a block into a free list. Returns it if the list is full.
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
            && let Some(waker) = self.waiters.with(Waiters::first)
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
