//! Used arenas, kept for the next load of the same loader. Their pages exist already, while new
//! ones must be zeroed and mapped.

use crate::limits;
use crate::region::Region;
use crate::stable::StableMemory;
use crate::sync::{Mutex, MutexGuard};
use floodtide_core::{Alignment, to_usize};
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

/// The arenas that a loader keeps.
#[derive(Debug, Default)]
pub struct ArenaCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The maximum number of bytes to keep. By default as many as remain free beside them.
    limit: Option<u64>,
    regions: Vec<Region>,
}

impl Kept {
    fn byte_len(&self) -> u64 {
        self.regions.iter().map(|region| region.byte_len() as u64).sum()
    }
}

/// The number of bytes that may always be kept.
const MIN_CACHE_BYTES: u64 = 64 << 20;

/// Returns the free memory in bytes. Miri cannot report it.
fn free_memory() -> u64 {
    if cfg!(miri) { u64::MAX } else { limits::memory_limit().available }
}

impl ArenaCache {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// Returns an empty cache that keeps at most this many bytes.
    #[must_use]
    pub fn with_limit(bytes: u64) -> Self {
        Self { kept: Mutex::new(Kept { limit: Some(bytes), regions: Vec::new() }) }
    }

    /// Returns the number of bytes kept.
    pub fn byte_len(&self) -> u64 {
        self.lock().byte_len()
    }

    /// Frees all kept memory.
    pub fn clear(&self) {
        let regions = std::mem::take(&mut self.lock().regions);
        drop(regions);
    }

    /// Takes memory of at least `bytes` bytes, aligned to a huge page.
    ///
    /// It is a kept region that is not much larger, or a new one that adopts the pages of a smaller
    /// kept one.
    ///
    /// # Errors
    /// Fails if the system refuses the mapping.
    pub fn take(self: &Arc<Self>, bytes: usize) -> io::Result<ArenaMemory> {
        let fits = |region: &Region| {
            (bytes..=bytes.saturating_mul(2).max(to_usize(MIN_CACHE_BYTES))).contains(&region.byte_len())
        };
        let kept = {
            let mut kept = self.lock();
            let smallest = (0..kept.regions.len())
                .filter(|&at| fits(&kept.regions[at]))
                .min_by_key(|&at| kept.regions[at].byte_len());
            let largest = || {
                (0..kept.regions.len())
                    .filter(|&at| kept.regions[at].byte_len() < bytes)
                    .max_by_key(|&at| kept.regions[at].byte_len())
            };
            smallest.or_else(largest).map(|at| kept.regions.swap_remove(at))
        };
        let reused = kept.as_ref().map_or(0, |region| region.byte_len().min(bytes));
        // The other kept memory was counted as free, so it must be freed if it is needed.
        let fresh = (bytes - reused) as u64;
        if fresh > MIN_CACHE_BYTES && free_memory() < fresh {
            self.clear();
        }
        let (region, reused) = match kept {
            Some(region) if reused == bytes => (region, reused),
            kept => {
                // The last huge page is complete too.
                let mapped = bytes.checked_next_multiple_of(Alignment::HUGE_PAGE.as_usize()).unwrap_or(usize::MAX);
                let map = || Region::map(mapped, Alignment::HUGE_PAGE);
                let grown = match kept {
                    Some(smaller) => map().and_then(|region| region.adopt(smaller)),
                    None => map(),
                };
                match grown {
                    Ok(region) => (region, reused),
                    // The kept memory may use all of the limited address space. Linux before 6.17
                    // also cannot move memory a second time.
                    Err(_) => {
                        self.clear();
                        (map()?, 0)
                    }
                }
            }
        };
        Ok(ArenaMemory { region: Some(region), reused, cache: Arc::downgrade(self) })
    }

    /// Allocates memory that is never kept, for locked memory.
    ///
    /// # Errors
    /// Fails if the system refuses the mapping.
    pub fn allocate_uncached(bytes: usize) -> io::Result<ArenaMemory> {
        Arc::<Self>::default().take(bytes)
    }

    /// Keeps the region, or returns it if that would exceed the limit.
    fn put(&self, region: Region) -> Option<Region> {
        let (kept, limit) = {
            let kept = self.lock();
            (kept.byte_len().saturating_add(region.byte_len() as u64), kept.limit)
        };
        // Ask the system without the lock.
        let max = limit.unwrap_or_else(|| if kept <= MIN_CACHE_BYTES { MIN_CACHE_BYTES } else { free_memory() });
        let mut cache = self.lock();
        if cache.byte_len().saturating_add(region.byte_len() as u64) > max {
            return Some(region);
        }
        cache.regions.push(region);
        None
    }
}

/// The memory of an arena. When dropped, it returns to its cache, or to the system if the cache is
/// gone.
#[derive(Debug)]
pub struct ArenaMemory {
    /// Set until dropped.
    region: Option<Region>,
    reused: usize,
    cache: Weak<ArenaCache>,
}

impl ArenaMemory {
    /// Requests huge pages for `needed` bytes, unless all their pages exist.
    ///
    /// # Errors
    /// Fails if the kernel refuses. The memory remains usable.
    pub fn advise_huge_pages(&self, needed: usize) -> io::Result<()> {
        match &self.region {
            Some(region) if needed > self.reused => region.advise_huge_pages(),
            _ => Ok(()),
        }
    }

    /// Requests memory of this node for pages that do not exist yet.
    ///
    /// # Errors
    /// Fails if the kernel refuses. The memory remains usable.
    pub fn prefer_node(&self, node: u32) -> io::Result<()> {
        self.region.as_ref().map_or(Ok(()), |region| region.prefer_node(node))
    }

    /// Returns all bytes. Bytes that were not written since are zero or an earlier load's.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: by `StableMemory` the bytes are initialised and exclusive. Writing to them
        // borrows `self` mutably.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.byte_len()) }
    }

    /// Returns all bytes mutably, like [`as_bytes`](Self::as_bytes).
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        // SAFETY: by `StableMemory` the bytes are initialised, writable and exclusive. The slice
        // borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.byte_len()) }
    }

    /// Returns the number of bytes with used pages.
    pub fn reused(&self) -> usize {
        self.reused
    }
}

// SAFETY: everything is the region's, which lives until the drop.
unsafe impl StableMemory for ArenaMemory {
    fn start(&self) -> NonNull<u8> {
        self.region.as_ref().map_or(NonNull::dangling(), Region::start)
    }

    fn byte_len(&self) -> usize {
        self.region.as_ref().map_or(0, Region::byte_len)
    }
}

impl Drop for ArenaMemory {
    fn drop(&mut self) {
        if let (Some(region), Some(cache)) = (self.region.take(), self.cache.upgrade()) {
            drop(cache.put(region));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn write(memory: &ArenaMemory, at: usize, byte: u8) {
        // SAFETY: the memory is long enough, and nothing else uses it.
        unsafe { memory.start().as_ptr().wrapping_add(at).write(byte) };
    }

    fn read(memory: &ArenaMemory, at: usize) -> u8 {
        // SAFETY: as for `write`. All of it is initialised.
        unsafe { memory.start().as_ptr().wrapping_add(at).read() }
    }

    #[test]
    fn what_was_used_is_used_again() {
        let cache = Arc::<ArenaCache>::default();
        let first = cache.take(3 * MIB).expect("maps");
        assert_eq!((first.reused(), first.byte_len()), (0, 4 * MIB));
        let start = first.start();
        drop(first);
        assert_eq!(cache.byte_len(), 4 << 20);
        let second = cache.take(4 * MIB).expect("is there");
        assert_eq!((second.start(), second.reused(), cache.byte_len()), (start, 4 * MIB, 0));
    }

    #[test]
    fn a_larger_arena_takes_the_pages_of_a_smaller_one() {
        let cache = Arc::<ArenaCache>::default();
        let small = cache.take(2 * MIB).expect("maps");
        write(&small, 0, 7);
        write(&small, 2 * MIB - 1, 8);
        drop(small);
        let large = cache.take(5 * MIB).expect("maps");
        assert_eq!((large.reused(), large.byte_len(), cache.byte_len()), (2 * MIB, 6 * MIB, 0));
        assert_eq!((read(&large, 0), read(&large, 2 * MIB - 1), read(&large, 2 * MIB)), (7, 8, 0));
        assert_eq!(large.start().as_ptr().align_offset(2 * MIB), 0);
        write(&large, 6 * MIB - 1, 9);
        drop(large);
        assert_eq!(cache.byte_len(), 6 << 20, "as one region");
    }

    /// Sealed memory on Linux 6.10 and later fails in the same way as memory that was moved once on
    /// Linux before 6.17.
    #[cfg(all(not(miri), target_pointer_width = "64"))]
    #[test]
    fn pages_that_cannot_be_moved_are_done_without() {
        let cache = Arc::<ArenaCache>::default();
        let small = cache.take(2 * MIB).expect("maps");
        // SAFETY: the memory stays mapped as long as this process lives.
        let sealed = unsafe { libc::syscall(libc::SYS_mseal, small.start().as_ptr(), small.byte_len(), 0) };
        if sealed != 0 {
            return println!("skipped: this system seals no memory ({})", io::Error::last_os_error());
        }
        drop(small);
        drop(cache.take(2 * MIB).expect("is there"));
        let large = cache.take(5 * MIB).expect("is mapped again");
        assert_eq!((large.reused(), large.byte_len(), cache.byte_len()), (0, 6 * MIB, 0));
        assert_eq!(read(&large, 0), 0);
    }

    #[test]
    fn a_tiny_arena_does_not_take_a_huge_one() {
        let cache = Arc::<ArenaCache>::default();
        drop(cache.take(100 * MIB).expect("maps"));
        let tiny = cache.take(MIB).expect("maps");
        assert_eq!((tiny.reused(), tiny.byte_len()), (0, 2 * MIB));
        assert_eq!(cache.byte_len(), 100 << 20);
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let cache = Arc::new(ArenaCache::with_limit(5 << 20));
        let (first, second) = (cache.take(4 * MIB).expect("maps"), cache.take(4 * MIB).expect("maps"));
        drop((first, second));
        assert_eq!(cache.byte_len(), 4 << 20);
        cache.clear();
        assert_eq!(cache.byte_len(), 0);
        let none = Arc::new(ArenaCache::with_limit(0));
        drop(none.take(2 * MIB).expect("maps"));
        assert_eq!(none.byte_len(), 0);
    }

    #[test]
    fn what_outlives_its_loader_or_is_locked_goes_back_to_the_system() {
        let cache = Arc::<ArenaCache>::default();
        let memory = cache.take(MIB).expect("maps");
        drop(cache);
        drop(memory);
        assert!(ArenaCache::allocate_uncached(MIB).expect("maps").cache.upgrade().is_none());
    }

    // Miri itself ends the program when memory runs out.
    #[cfg(not(miri))]
    #[test]
    fn an_impossible_size_is_an_error() {
        for bytes in [isize::MAX as usize, usize::MAX] {
            assert!(ArenaCache::allocate_uncached(bytes).is_err());
        }
    }
}
