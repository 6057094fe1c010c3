//! The sources of a pool's memory: the heap, or the kernel in huge and optionally locked pages.

use crate::region::Region;
use crate::stable::StableMemory;
use crate::sync::{AtomicUsize, Ordering};
use floodtide_core::{Alignment, WriteOnly};
use std::alloc::Layout;
use std::any::Any;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// The strictest alignment that direct reads need. The default alignment of a pool's memory.
const DIRECT_ALIGNMENT: usize = 4096;
/// The size from which memory comes from the kernel. Below it, a separate mapping would waste most
/// of a page.
const MAPPED_BYTES: usize = 128 << 10;

/// A source of memory for a [`Pool`](super::Pool).
pub trait MemoryProvider: Send + Sync + fmt::Debug {
    /// Allocates exactly `bytes` bytes, aligned to [`alignment`](Self::alignment).
    ///
    /// # Errors
    /// Fails if the system has no memory.
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock>;

    /// Returns the alignment of all addresses in bytes, a power of two.
    fn alignment(&self) -> usize {
        DIRECT_ALIGNMENT
    }

    /// Returns the number of bytes that should be locked but that the system refused to lock.
    fn unlocked_bytes(&self) -> usize {
        0
    }
}

/// A block of memory that belongs to its holder, of which a part from the start is filled. A buffer
/// that was detached from its pool is this.
pub struct MemoryBlock {
    start: NonNull<u8>,
    bytes: usize,
    filled: usize,
    /// Whether it has been lent, so that a borrower may have written to it.
    used: bool,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: by `from_raw` any thread may use the bytes and only the holder does. The owner is `Send`.
unsafe impl Send for MemoryBlock {}
// SAFETY: shared access only reads the filled bytes, and the owner is `Sync`.
unsafe impl Sync for MemoryBlock {}

impl MemoryBlock {
    /// Creates memory that `owner` keeps alive, and frees when it is dropped.
    ///
    /// # Safety
    /// Until `owner` is dropped, the `bytes` bytes at `start` must be readable and writable from
    /// any thread, and exclusive. They must be initialised, and zero if
    /// [`Pool::get_zeroed`](super::Pool::get_zeroed) is to return them.
    pub unsafe fn from_raw(start: NonNull<u8>, bytes: usize, owner: impl Any + Send + Sync) -> Self {
        Self { start, bytes, filled: 0, used: false, _owner: Box::new(owner) }
    }

    /// Returns the length in bytes, filled or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Declares the first bytes filled. They must exist, and the holder must have written them.
    #[inline]
    pub(super) fn set_filled(&mut self, filled: usize) {
        // Only in debug builds: this is on the path of every buffer.
        debug_assert!(filled <= self.bytes, "the filled bytes exceed the memory");
        self.filled = filled;
    }

    /// Prepares it for a new borrower, without filled bytes.
    #[inline]
    pub(super) fn lend(&mut self) {
        self.filled = 0;
        self.used = true;
    }

    /// Returns all bytes for writing.
    pub(super) fn write_only(&mut self) -> WriteOnly<'_> {
        // SAFETY: by `from_raw` the bytes are initialised, writable and exclusive. The borrow of
        // `self` keeps it so.
        WriteOnly::new(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) })
    }

    /// Zeroes the first bytes, unless the memory was never lent and is zero already.
    pub(super) fn zero(&mut self, bytes: usize) {
        if self.used {
            self.write_only().part(0..bytes).fill(0);
        }
    }
}

impl Deref for MemoryBlock {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: by `from_raw` the bytes are initialised, readable and exclusive. By the
        // contract of `set_filled`, the filled ones exist.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.filled) }
    }
}

impl DerefMut for MemoryBlock {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: by `from_raw` the bytes are initialised, writable and exclusive. By the
        // contract of `set_filled`, the filled ones exist.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.filled) }
    }
}

impl fmt::Debug for MemoryBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBlock")
            .field("filled", &self.filled)
            .field("capacity", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Zeroed memory from the allocator.
///
/// ```
/// use floodtide_core::Alignment;
/// use floodtide_memory::pool::{HeapMemory, Pool};
///
/// let pool = Pool::builder().limit(1 << 20).memory(HeapMemory::aligned(Alignment::PAGE)).build();
/// let buffer = pool.get(100)?;
/// assert!((buffer.as_ptr() as usize).is_multiple_of(4096));
/// # Ok::<(), floodtide_memory::pool::PoolError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HeapMemory {
    alignment: usize,
}

impl HeapMemory {
    /// Creates a provider with the alignment of direct reads (4096 bytes).
    #[must_use]
    pub fn new() -> Self {
        Self { alignment: DIRECT_ALIGNMENT }
    }

    /// Creates a provider with another alignment.
    #[must_use]
    pub fn aligned(alignment: Alignment) -> Self {
        Self { alignment: alignment.as_usize() }
    }
}

impl Default for HeapMemory {
    fn default() -> Self {
        Self::new()
    }
}

struct HeapOwner {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation belongs to the process. The owner only frees it.
unsafe impl Send for HeapOwner {}
// SAFETY: a shared owner gives no access to anything.
unsafe impl Sync for HeapOwner {}

impl Drop for HeapOwner {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and `MemoryBlock` drops its owner once.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl MemoryProvider for HeapMemory {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let layout = Layout::from_size_align(bytes.max(1), self.alignment).map_err(|_| no_memory())?;
        // SAFETY: the layout has at least one byte.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        // SAFETY: a new allocation of `bytes` zeroed bytes, which the owner frees.
        Ok(unsafe { MemoryBlock::from_raw(start, bytes, HeapOwner { start, layout }) })
    }

    fn alignment(&self) -> usize {
        self.alignment
    }
}

/// What to do if the system refuses to lock memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockPolicy {
    /// Allocation fails.
    Required,
    /// The memory is used unlocked, and counted in [`MemoryProvider::unlocked_bytes`].
    BestEffort,
}

/// Memory from the kernel: huge pages from 2 MiB on where available, locked on request.
///
/// ```
/// use floodtide_memory::pool::{LockPolicy, MappedMemory, Pool};
///
/// // What the system does not lock is lent all the same, and counted.
/// let memory = MappedMemory::locked(LockPolicy::BestEffort);
/// let pool = Pool::builder().limit(1 << 20).memory(memory).build();
/// let _buffer = pool.get(4096)?;
/// println!("{} bytes are not locked", pool.unlocked_bytes());
/// # Ok::<(), floodtide_memory::pool::PoolError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MappedMemory {
    lock: Option<LockPolicy>,
    unlocked: Arc<AtomicUsize>,
    /// At least a page. `None` means a page.
    alignment: Option<Alignment>,
}

impl MappedMemory {
    /// Creates a provider of pages that are faulted in on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a provider of locked pages, which are never swapped out.
    #[must_use]
    pub fn locked(policy: LockPolicy) -> Self {
        Self { lock: Some(policy), ..Self::default() }
    }

    /// Sets the alignment, which is at least a page.
    #[must_use]
    pub fn aligned(mut self, alignment: Alignment) -> Self {
        self.alignment = Some(alignment);
        self
    }
}

/// A region that counts as unlocked while it lives.
struct Unlocked {
    _region: Region,
    bytes: usize,
    count: Arc<AtomicUsize>,
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl MemoryProvider for MappedMemory {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        let huge = bytes >= Alignment::HUGE_PAGE.as_usize();
        let alignment = self.alignment.unwrap_or(Alignment::PAGE);
        let region = Region::map(bytes, if huge { alignment.max(Alignment::HUGE_PAGE) } else { alignment })?;
        if huge {
            // Without huge pages it is only slower to fault in.
            let _ = region.advise_huge_pages();
        }
        let start = region.start();
        let Some(policy) = self.lock else {
            // SAFETY: a new mapping of at least `bytes` zeroed bytes, which the region unmaps.
            return Ok(unsafe { MemoryBlock::from_raw(start, bytes, region) });
        };
        match (region.lock(), policy) {
            // SAFETY: a new mapping of at least `bytes` zeroed bytes, which the region unmaps.
            (Ok(()), _) => Ok(unsafe { MemoryBlock::from_raw(start, bytes, region) }),
            (Err(error), LockPolicy::Required) => Err(io::Error::new(
                error.kind(),
                format!(
                    "{bytes} bytes cannot be locked in memory ({error}); raise the limit of locked memory (ulimit -l)"
                ),
            )),
            (Err(error), LockPolicy::BestEffort) => {
                let before = self.unlocked.fetch_add(bytes, Ordering::Relaxed);
                tracing::warn!(bytes, unlocked = before + bytes, %error, "memory is not locked; raise ulimit -l");
                let owner = Unlocked { _region: region, bytes, count: Arc::clone(&self.unlocked) };
                // SAFETY: a new mapping of at least `bytes` zeroed bytes, which the owner's region
                // unmaps.
                Ok(unsafe { MemoryBlock::from_raw(start, bytes, owner) })
            }
        }
    }

    fn alignment(&self) -> usize {
        self.alignment.map_or(DIRECT_ALIGNMENT, |alignment| DIRECT_ALIGNMENT.max(alignment.as_usize()))
    }

    fn unlocked_bytes(&self) -> usize {
        self.unlocked.load(Ordering::Relaxed)
    }
}

/// The default provider: small buffers from the heap, large ones in huge pages.
#[derive(Debug, Clone, Default)]
pub struct SystemMemory {
    heap: HeapMemory,
    mapped: MappedMemory,
}

impl MemoryProvider for SystemMemory {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        if bytes < MAPPED_BYTES { self.heap.allocate(bytes) } else { self.mapped.allocate(bytes) }
    }
}
