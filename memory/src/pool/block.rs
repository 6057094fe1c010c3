//! The blocks that a pool lends, which know their pool.

use super::inner::Inner;
use super::local::Key;
use super::memory::{MemoryBlock, MemoryProvider};
use floodtide_core::pool::{Provider, SizeClass};
use std::io;
use std::sync::{Arc, Weak};

/// A block is one pointer wide, so that magazines are small and moving it is free.
#[derive(Debug)]
pub(super) struct Block(Box<Header>);

#[derive(Debug)]
struct Header {
    memory: MemoryBlock,
    /// The number of bytes that the current borrower may use.
    capacity: usize,
    class: SizeClass,
    /// Whether it has exactly its class's size. Other blocks are too rare for magazines.
    regular: bool,
    /// The pool's key, copied here to save a pointer chase.
    key: Key,
    /// Blocks on the pool's free lists keep the pool alive. [`Inner::close`] breaks the cycle. So
    /// lending a buffer does not change the reference count of the pool.
    pool: Arc<Inner>,
}

impl Block {
    /// Creates a block that can serve requests of the class.
    pub(super) fn new(memory: MemoryBlock, class: SizeClass, pool: Arc<Inner>) -> Self {
        let regular = memory.capacity() == class.size();
        Self(Box::new(Header { memory, capacity: 0, class, regular, key: pool.key, pool }))
    }

    #[inline]
    pub(super) fn byte_len(&self) -> usize {
        self.0.memory.capacity()
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity
    }

    /// Sets the number of bytes that the borrower may use. The memory must have them.
    #[inline]
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        // Only in debug builds: this is on the path of every buffer.
        debug_assert!(capacity <= self.byte_len(), "the capacity exceeds the memory");
        self.0.capacity = capacity;
    }

    #[inline]
    pub(super) fn class(&self) -> SizeClass {
        self.0.class
    }

    #[inline]
    pub(super) fn is_regular(&self) -> bool {
        self.0.regular
    }

    #[inline]
    pub(super) fn key(&self) -> Key {
        self.0.key
    }

    #[inline]
    pub(super) fn pool(&self) -> &Arc<Inner> {
        &self.0.pool
    }

    #[inline]
    pub(super) fn memory(&self) -> &MemoryBlock {
        &self.0.memory
    }

    #[inline]
    pub(super) fn memory_mut(&mut self) -> &mut MemoryBlock {
        &mut self.0.memory
    }

    pub(super) fn into_parts(self) -> (MemoryBlock, Arc<Inner>) {
        let Header { memory, pool, .. } = *self.0;
        (memory, pool)
    }
}

/// The depot's provider, which uses the pool's memory provider.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) memory: Arc<dyn MemoryProvider>,
    pub(super) pool: Weak<Inner>,
}

impl Provider for Blocks {
    type Block = Block;
    type Error = io::Error;

    fn allocate(&self, bytes: usize) -> io::Result<Block> {
        let memory = self.memory.allocate(bytes)?;
        let other = |what| io::Error::other(format!("the pool's memory provider gave {what}"));
        if memory.capacity() != bytes {
            return Err(other(format!("{} bytes, expected {bytes}", memory.capacity())));
        }
        let alignment = self.memory.alignment();
        if !alignment.is_power_of_two() || memory.start().as_ptr().align_offset(alignment) != 0 {
            return Err(other(format!(
                "memory at {:p}, which is not aligned to the {alignment} bytes it promises",
                memory.start()
            )));
        }
        let pool = self.pool.upgrade().ok_or_else(|| other("memory to a pool that is gone".to_owned()))?;
        let class = SizeClass::within(bytes).ok_or_else(|| other("less than the smallest class".to_owned()))?;
        Ok(Block::new(memory, class, pool))
    }

    fn byte_len(&self, block: &Block) -> usize {
        block.byte_len()
    }
}
