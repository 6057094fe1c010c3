//! The memory under a depot, and the counters of a depot.

/// Allocates memory. Dropping a block frees it.
pub trait Provider {
    /// A block of memory.
    type Block;
    /// The error of a failed allocation.
    type Error;

    /// Allocates a block of exactly `bytes` bytes.
    ///
    /// # Errors
    /// Fails if the system has no memory.
    fn allocate(&self, bytes: usize) -> Result<Self::Block, Self::Error>;

    /// Returns the length that a block was allocated with.
    fn byte_len(&self, block: &Self::Block) -> usize;
}

/// A faster cache above the depot. Its blocks count as retained, but the depot cannot reach them by
/// itself.
pub trait Tier<B> {
    /// Stops caching until [`resume`](Self::resume), and hands out all cached blocks.
    fn suspend(&self, drained: &mut dyn FnMut(B));
    /// Allows caching again.
    fn resume(&self);
}

/// No upper tier.
impl<B> Tier<B> for () {
    fn suspend(&self, _: &mut dyn FnMut(B)) {}
    fn resume(&self) {}
}

/// The error of a block that was not lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeError<E> {
    /// The request exceeds the limit of the pool.
    TooLarge,
    /// The request does not fit under the limit beside the lent blocks.
    Exhausted,
    /// The queue of waiting borrowers is full.
    QueueFull,
    /// The provider failed.
    Provider(E),
}

/// Counters of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// The limit of lent and retained bytes.
    pub limit: usize,
    /// The number of lent bytes.
    pub lent: usize,
    /// The number of retained bytes.
    pub retained: usize,
    /// How often a retained block served a borrower.
    pub hits: u64,
    /// How often memory was allocated.
    pub misses: u64,
    /// How often a borrower waited.
    pub waits: u64,
}
