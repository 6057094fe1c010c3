//! A borrowed buffer.

use super::block::Block;
use super::inner::Inner;
use super::memory::MemoryBlock;
use crate::split_buffer::SplitBuffer;
use crate::stable::{StableBuffer, StableMemory};
use floodtide_core::{Buffer, WriteOnly};
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// A buffer of a [`Pool`](super::Pool), which goes back to it when it is dropped, on any thread.
///
/// It derefs to the bytes that have been *filled*, none at first: what an earlier borrower left in it cannot be seen. Fill
/// it by [`extend_from_slice`](Self::extend_from_slice), through [`io::Write`], or by a read into [`spare`](Self::spare).
///
/// It is one pointer wide: how much of it is filled is kept with its memory.
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

    /// With its first bytes zero, and filled.
    pub(super) fn zeroed(mut block: Block, capacity: usize) -> Self {
        block.memory_mut().zero(capacity);
        let mut buffer = Self::new(block, capacity);
        buffer.block.memory_mut().set_filled(capacity);
        buffer
    }

    /// How many bytes it takes: what was asked for, unless [`set_capacity`](Self::set_capacity) changed it.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// How many bytes its memory has; at least the capacity, as requests are rounded up to a size class.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        self.block.byte_len()
    }

    /// Makes it take fewer bytes, or more up to [`max_capacity`](Self::max_capacity). What is filled beyond is cut off. False,
    /// and nothing changed, when its memory is smaller.
    pub fn set_capacity(&mut self, capacity: usize) -> bool {
        if capacity > self.max_capacity() {
            return false;
        }
        self.block.set_capacity(capacity);
        self.truncate(capacity);
        true
    }

    /// Where its memory starts; it stays there.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.block.memory().start().as_ptr()
    }

    /// The bytes between what is filled and the capacity. What is written there counts only once it is
    /// [declared filled](Self::assume_filled).
    #[must_use]
    pub fn spare(&mut self) -> WriteOnly<'_> {
        let range = self.len()..self.capacity();
        self.block.memory_mut().write_only().part(range)
    }

    /// Declares the first `filled` bytes filled.
    ///
    /// # Safety
    /// They must have been written by this borrower, by a system call for example: what was there before may be another
    /// borrower's, and is not the caller's to see.
    ///
    /// # Panics
    /// When that is more than the capacity.
    pub unsafe fn assume_filled(&mut self, filled: usize) {
        assert!(filled <= self.capacity(), "{filled} bytes do not fit in a buffer of {}", self.capacity());
        self.block.memory_mut().set_filled(filled);
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// When they pass the capacity.
    #[track_caller]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let (new, filled, capacity) = (bytes.len(), self.len(), self.capacity());
        let left = capacity - filled;
        assert!(new <= left, "{new} bytes do not fit in what is left of a buffer of {capacity}: {left}");
        self.spare().write(0, bytes);
        self.block.memory_mut().set_filled(filled + new);
    }

    /// Fills it up to its capacity with zeros.
    pub fn fill_with_zeros(&mut self) {
        let capacity = self.capacity();
        self.spare().fill(0);
        self.block.memory_mut().set_filled(capacity);
    }

    /// Keeps the first `filled` bytes; does nothing when there are not more.
    pub fn truncate(&mut self, filled: usize) {
        let filled = self.len().min(filled);
        self.block.memory_mut().set_filled(filled);
    }

    /// Nothing is filled any more.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Takes its memory out of the pool for good: it counts no more, and frees itself when it is dropped.
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

impl SplitBuffer<PoolBuffer> {
    /// Returns the buffer when neither a slice nor another handle is left, filled up to the end of
    /// `written`. What lies before `written` is zeroed. `written` must be what the slices' holders
    /// have written: bytes of it that nobody wrote are what an earlier borrower of the buffer left
    /// there.
    ///
    /// # Panics
    /// When `written` passes the buffer's capacity.
    #[must_use]
    pub fn into_filled(self, written: Range<usize>) -> Option<PoolBuffer> {
        let mut buffer = self.into_memory()?;
        buffer.spare().part(0..written.start).fill(0);
        // SAFETY: the memory is initialised; that it is this borrower's own is the caller's promise.
        unsafe { buffer.assume_filled(written.end) };
        Some(buffer)
    }
}

impl Drop for PoolBuffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the end of the buffer; `detach` does not come here.
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

// SAFETY: the memory stays where it is while the buffer moves, and the buffer's capacity does not change while a source
// has it.
unsafe impl StableBuffer for PoolBuffer {}

// SAFETY: by `Memory::from_raw` the bytes are initialised, writable and the buffer's alone; they do not move. The capacity is
// at most the memory's size, and changes only through `&mut self`.
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
