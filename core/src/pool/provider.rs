//! What a depot is built on, and what it reports.

/// Where memory comes from. Dropping a block gives its memory back.
pub trait Provider {
    /// A block of memory.
    type Block;
    /// Why there is none.
    type Error;

    /// Memory of exactly so many bytes.
    ///
    /// # Errors
    /// When the system has none to give.
    fn allocate(&self, bytes: usize) -> Result<Self::Block, Self::Error>;

    /// The bytes that a block was allocated with.
    fn byte_len(&self, block: &Self::Block) -> usize;
}

/// A faster cache above the depot. It holds blocks that count as retained but that the depot cannot reach by itself.
pub trait Tier<B> {
    /// Keeps nothing from here on until [`resume`](Self::resume), and hands out all it has.
    fn suspend(&self, drained: &mut dyn FnMut(B));
    /// May keep blocks again.
    fn resume(&self);
}

/// No upper tier.
impl<B> Tier<B> for () {
    fn suspend(&self, _: &mut dyn FnMut(B)) {}
    fn resume(&self) {}
}

/// Why no block was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeError<E> {
    /// More was asked for than the pool may ever have.
    TooLarge,
    /// So much is lent that this does not fit under the limit now.
    Exhausted,
    /// As many wait already as this pool has places for.
    QueueFull,
    /// The provider has no memory.
    Provider(E),
}

/// Counters of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// The bytes that may be lent and retained together.
    pub limit: usize,
    /// The bytes that borrowers have.
    pub lent: usize,
    /// The bytes that are kept for the next borrowers.
    pub retained: usize,
    /// How often a retained block served a borrower.
    pub hits: u64,
    /// How often memory had to be allocated.
    pub misses: u64,
    /// How often a borrower had to wait.
    pub waits: u64,
}
