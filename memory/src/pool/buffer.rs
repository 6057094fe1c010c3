//! A borrowed buffer.

use super::block::Block;
use super::inner::Inner;
use super::memory::MemoryBlock;
use crate::stable::{StableBuffer, StableMemory};
use floodtide_core::{Buffer, WriteOnly};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A buffer of a [`Pool`](super::Pool). Dropping it returns it to the pool, on any thread.
///
/// It derefs to the *filled* bytes, none at first. The bytes of an earlier borrower are never
/// visible. Fill it with [`extend_from_slice`](Self::extend_from_slice), through [`io::Write`], or
/// by a read into [`spare`](Self::spare).
///
/// It is one pointer wide. The number of filled bytes is stored with its memory.
///
/// ```
/// use floodtide_memory::pool::Pool;
///
/// let pool = Pool::builder().limit(1 << 20).build();
/// let mut buffer = pool.get(4096)?;
/// buffer.extend_from_slice(&[1, 2, 3]);
/// buffer.truncate(2);
/// assert_eq!((&buffer[..], buffer.capacity()), (&[1, 2][..], 4096));
/// drop(buffer); // it goes back to the pool
/// assert_eq!(pool.stats().lent, 0);
/// # Ok::<(), floodtide_memory::pool::PoolError>(())
/// ```
pub struct PoolBuffer {
    block: ManuallyDrop<Block>,
}

impl PoolBuffer {
    #[inline(always)]
    pub(super) fn new(mut block: Block, capacity: usize) -> Self {
        block.set_capacity(capacity);
        block.memory_mut().lend();
        Self { block: ManuallyDrop::new(block) }
    }

    /// Creates a buffer whose bytes are filled with zeros.
    pub(super) fn zeroed(mut block: Block, capacity: usize) -> Self {
        block.memory_mut().zero(capacity);
        let mut buffer = Self::new(block, capacity);
        buffer.block.memory_mut().set_filled(capacity);
        buffer
    }

    /// Returns the capacity in bytes: the requested one, unless
    /// [`set_capacity`](Self::set_capacity) changed it.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// Returns the length of its memory in bytes. At least the capacity, because requests are
    /// rounded up to a size class.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        self.block.byte_len()
    }

    /// Changes the capacity to at most [`max_capacity`](Self::max_capacity), and truncates the
    /// filled bytes.
    ///
    /// Returns false without a change if its memory is smaller.
    pub fn set_capacity(&mut self, capacity: usize) -> bool {
        if capacity > self.max_capacity() {
            return false;
        }
        self.block.set_capacity(capacity);
        self.truncate(capacity);
        true
    }

    /// Returns the start of its memory, which does not move.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.block.memory().start().as_ptr()
    }

    /// Returns the bytes between the filled ones and the capacity.
    ///
    /// What is written there counts only once it is [declared filled](Self::assume_filled).
    #[must_use]
    pub fn spare(&mut self) -> WriteOnly<'_> {
        let range = self.len()..self.capacity();
        self.block.memory_mut().write_only().part(range)
    }

    /// Declares the first `filled` bytes filled.
    ///
    /// # Safety
    /// This borrower must have written them, for example by a system call. Other bytes may be
    /// another borrower's, which the caller must not see.
    ///
    /// # Panics
    /// Panics if `filled` exceeds the capacity.
    pub unsafe fn assume_filled(&mut self, filled: usize) {
        assert!(filled <= self.capacity(), "{filled} bytes do not fit in a buffer of {}", self.capacity());
        self.block.memory_mut().set_filled(filled);
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// Panics if they exceed the capacity.
    #[track_caller]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let (new, filled, capacity) = (bytes.len(), self.len(), self.capacity());
        let left = capacity - filled;
        assert!(new <= left, "{new} bytes do not fit in the {left} left of a buffer of {capacity}");
        self.spare().write(0, bytes);
        self.block.memory_mut().set_filled(filled + new);
    }

    /// Fills it up to its capacity with zeros.
    pub fn fill_with_zeros(&mut self) {
        let capacity = self.capacity();
        self.spare().fill(0);
        self.block.memory_mut().set_filled(capacity);
    }

    /// Keeps the first `filled` bytes. Has no effect if fewer are filled.
    pub fn truncate(&mut self, filled: usize) {
        let filled = self.len().min(filled);
        self.block.memory_mut().set_filled(filled);
    }

    /// Removes all filled bytes.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Removes its memory from the pool for good. It no longer counts, and frees itself when
    /// dropped.
    #[must_use]
    pub fn detach(self) -> MemoryBlock {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used again, so the block is taken once.
        let block = unsafe { ManuallyDrop::take(&mut this.block) };
        let bytes = block.byte_len();
        let (memory, pool) = block.into_parts();
        pool.detach(bytes);
        memory
    }
}

impl Drop for PoolBuffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the buffer ends here. `detach` does not run this.
        Inner::give(unsafe { ManuallyDrop::take(&mut self.block) });
    }
}

impl Deref for PoolBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.block.memory()
    }
}

impl DerefMut for PoolBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.block.memory_mut()
    }
}

impl AsRef<[u8]> for PoolBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Writes as much as fits.
impl io::Write for PoolBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.capacity() - self.len());
        self.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A read may fill it up to its capacity.
impl Buffer for PoolBuffer {
    fn memory(&mut self) -> WriteOnly<'_> {
        let capacity = self.capacity();
        self.block.memory_mut().write_only().part(0..capacity)
    }
}

// SAFETY: the memory does not move with the buffer, and the capacity does not change while a source
// owns it.
unsafe impl StableBuffer for PoolBuffer {}

// SAFETY: by `MemoryBlock::from_raw` the bytes are initialised, writable and exclusive, and do not
// move. The capacity is at most the memory's length, and changes only through `&mut self`.
unsafe impl StableMemory for PoolBuffer {
    fn start(&self) -> NonNull<u8> {
        self.block.memory().start()
    }

    fn byte_len(&self) -> usize {
        self.capacity()
    }
}

impl fmt::Debug for PoolBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuffer").field("filled", &self.len()).field("capacity", &self.capacity()).finish()
    }
}
