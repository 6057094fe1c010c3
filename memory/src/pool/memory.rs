//! Where a pool's memory comes from: the heap, or the kernel in huge and perhaps locked pages.

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

/// What direct reads ask of addresses at most; a pool's memory keeps it unless a provider says otherwise.
const DIRECT_ALIGNMENT: usize = 4096;
/// From this size on memory comes from the kernel: below, a mapping of its own would waste most of a page.
const MAPPED_BYTES: usize = 128 << 10;

/// A source of memory for a [`Pool`](super::Pool).
pub trait MemoryProvider: Send + Sync + fmt::Debug {
    /// Memory of exactly so many bytes, at an address of the provider's [`alignment`](Self::alignment).
    ///
    /// # Errors
    /// When the system has none to give.
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock>;

    /// The alignment of every address, in bytes; a power of two.
    fn alignment(&self) -> usize {
        DIRECT_ALIGNMENT
    }

    /// The bytes that should be locked in memory and are not, as the system refused.
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
    /// Whether it has ever been lent, so that somebody may have written to it.
    used: bool,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: `from_raw` makes the bytes its holder's alone, and the owner is `Send`.
unsafe impl Send for MemoryBlock {}
// SAFETY: shared access only reads the filled bytes, and the owner is `Sync`.
unsafe impl Sync for MemoryBlock {}

impl MemoryBlock {
    /// Memory that `owner` keeps and frees when it is dropped.
    ///
    /// # Safety
    /// Until `owner` is dropped, the `bytes` bytes from `start` on must be readable and writable, from any thread, and
    /// nobody else's. They must be initialised; zero, if they are to be seen by [`Pool::get_zeroed`](super::Pool::get_zeroed).
    pub unsafe fn from_raw(start: NonNull<u8>, bytes: usize, owner: impl Any + Send + Sync) -> Self {
        Self { start, bytes, filled: 0, used: false, _owner: Box::new(owner) }
    }

    /// How many bytes it has, filled or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Declares the first bytes filled; there are that many, and whoever holds the memory has written them.
    #[inline]
    pub(super) fn set_filled(&mut self, filled: usize) {
        debug_assert!(filled <= self.bytes, "what is filled never passes the memory");
        self.filled = filled;
    }

    /// Gets a new borrower, who has filled nothing yet.
    #[inline]
    pub(super) fn lend(&mut self) {
        self.filled = 0;
        self.used = true;
    }

    /// All bytes, to be written.
    pub(super) fn write_only(&mut self) -> WriteOnly<'_> {
        // SAFETY: by `from_raw` the bytes are initialised, writable and ours alone; the borrow of `self` keeps it so.
        WriteOnly::new(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) })
    }

    /// Makes the first bytes zero, which they are already unless somebody has had it.
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
        // SAFETY: by `from_raw` the bytes are initialised, readable and ours alone; `set_filled` keeps within them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.filled) }
    }
}

impl DerefMut for MemoryBlock {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: by `from_raw` the bytes are initialised, writable and ours alone; `set_filled` keeps within them.
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

/// Memory from the allocator, zeroed.
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
    /// Aligned for direct reads (4096 bytes).
    #[must_use]
    pub fn new() -> Self {
        Self { alignment: DIRECT_ALIGNMENT }
    }

    /// With another alignment.
    #[must_use]
    pub fn aligned(alignment: Alignment) -> Self {
        Self { alignment: alignment.as_u64() as usize }
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

// SAFETY: the allocation belongs to the process; the owner only frees it.
unsafe impl Send for HeapOwner {}
// SAFETY: as for `Send`.
unsafe impl Sync for HeapOwner {}

impl Drop for HeapOwner {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and `Memory` drops its owner once.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl MemoryProvider for HeapMemory {
    fn allocate(&self, bytes: usize) -> io::Result<MemoryBlock> {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let layout = Layout::from_size_align(bytes.max(1), self.alignment).map_err(|_| no_memory())?;
        // SAFETY: the layout has at least one byte.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        // SAFETY: a fresh allocation of `bytes` zeroed bytes, which the owner frees.
        Ok(unsafe { MemoryBlock::from_raw(start, bytes, HeapOwner { start, layout }) })
    }

    fn alignment(&self) -> usize {
        self.alignment
    }
}

/// What becomes of memory that the system will not lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockPolicy {
    /// Allocating fails.
    Required,
    /// It is used all the same, and counted: [`MemoryProvider::unlocked_bytes`].
    BestEffort,
}

/// Memory from the kernel: whole pages, huge ones from 2 MiB on where the system has them, locked on request.
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
    /// At least a page; `None` for that.
    alignment: Option<Alignment>,
}

impl MappedMemory {
    /// Pages that are faulted in as they are touched.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Pages that are locked in memory, so that they are never swapped out.
    #[must_use]
    pub fn locked(policy: LockPolicy) -> Self {
        Self { lock: Some(policy), ..Self::default() }
    }

    /// At addresses of this alignment, or of a page if that is more.
    #[must_use]
    pub fn aligned(mut self, alignment: Alignment) -> Self {
        self.alignment = Some(alignment);
        self
    }
}

/// A region that counts as unlocked while it is there.
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
        let huge = bytes >= Alignment::HUGE_PAGE.as_u64() as usize;
        let alignment = self.alignment.unwrap_or(Alignment::PAGE);
        let region = Region::map(bytes, if huge { alignment.max(Alignment::HUGE_PAGE) } else { alignment })?;
        if huge {
            // Without huge pages it is slower to fault in, and that is all.
            let _ = region.advise_huge_pages();
        }
        let start = region.start();
        let Some(policy) = self.lock else {
            // SAFETY: a fresh mapping of at least `bytes` zeroed bytes, which the region unmaps.
            return Ok(unsafe { MemoryBlock::from_raw(start, bytes, region) });
        };
        match (region.lock(), policy) {
            // SAFETY: as above.
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
                // SAFETY: as above; the owner holds the region.
                Ok(unsafe { MemoryBlock::from_raw(start, bytes, owner) })
            }
        }
    }

    fn alignment(&self) -> usize {
        self.alignment.map_or(DIRECT_ALIGNMENT, |alignment| DIRECT_ALIGNMENT.max(alignment.as_u64() as usize))
    }

    fn unlocked_bytes(&self) -> usize {
        self.unlocked.load(Ordering::Relaxed)
    }
}

/// The default: small buffers from the heap, large ones in huge pages.
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
