//! The limit of a depot: bytes are counted before there is memory for them, and until it is gone.

use super::Depot;
use crate::pool::containers::{Containers, FreeList};
use crate::pool::provider::{Provider, Tier};
use crate::seeded_bug::seeded_bug;
use crate::sync::Ordering;

impl<P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> Depot<P, T, S, SHARDS> {
    /// Adds to the total if the limit allows.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let fits =
            |total: usize| total.checked_add(bytes).filter(|&sum| sum <= self.limit || seeded_bug!(LimitIgnored));
        self.total.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok()
    }

    /// Releases retained blocks until so many bytes fit under the limit, and reserves them.
    pub(super) fn make_room(&self, bytes: usize, affinity: usize) -> bool {
        loop {
            let over = self.total.load(Ordering::Relaxed).saturating_add(bytes).saturating_sub(self.limit);
            let freed = self.free_retained(over, affinity);
            if self.reserve(bytes) {
                return true;
            }
            if freed == 0 {
                return false;
            }
        }
    }

    /// Releases retained blocks of at least so many bytes, large ones first; says how many bytes that were.
    pub(super) fn free_retained(&self, bytes: usize, affinity: usize) -> usize {
        let mut freed = 0;
        for i in 0..SHARDS {
            let shard = &self.shards[affinity.wrapping_add(i) & Self::MASK].state;
            while freed < bytes {
                let taken = shard.with(|shard| {
                    let block = shard.free_list.take_largest()?;
                    shard.retained -= self.provider.byte_len(&block);
                    Some(block)
                });
                let Some(block) = taken else { break };
                freed += self.provider.byte_len(&block);
                self.free(block);
            }
        }
        if freed > 0 {
            // Large blocks may free more than whoever asked for it takes.
            self.wake_first();
        }
        freed
    }

    pub(super) fn free(&self, block: P::Block) {
        let bytes = self.provider.byte_len(&block);
        // Only memory that is gone may be counted again.
        drop(block);
        self.total.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Brings the upper tier's blocks down to the free lists; false when somebody waits, since they are down already.
    pub(super) fn recall(&self, affinity: usize) -> bool {
        self.waiters.with(|waiters| {
            let recalled = waiters.is_empty();
            if recalled {
                self.tier.suspend(&mut |block| self.put_back(block, affinity));
                self.tier.resume();
            }
            recalled
        })
    }
}

/// Bytes that count against the limit, for memory that may not come.
pub(super) struct Reserved<'d, P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> {
    pub(super) depot: &'d Depot<P, T, S, SHARDS>,
    pub(super) bytes: usize,
}

impl<P: Provider, T: Tier<P::Block>, S: Containers, const SHARDS: usize> Drop for Reserved<'_, P, T, S, SHARDS> {
    fn drop(&mut self) {
        self.depot.total.fetch_sub(self.bytes, Ordering::AcqRel);
        self.depot.wake_first();
    }
}
