//! Arenas that have been used, kept for the next load of the same loader: their pages are there already, and fresh ones would have to
//! be zeroed and mapped one by one.

use crate::limits;
use crate::region::Region;
use crate::stable::StableMemory;
use crate::sync::{Mutex, MutexGuard};
use floodtide_core::Alignment;
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
    /// The most bytes that may be kept; by default as many as are left free beside them.
    limit: Option<u64>,
    regions: Vec<Region>,
}

impl Kept {
    fn byte_len(&self) -> u64 {
        self.regions.iter().map(|region| region.byte_len() as u64).sum()
    }
}

/// So little may always be kept.
const MIN_CACHE_BYTES: u64 = 64 << 20;

/// What the system has left; Miri's has no such answer.
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

    /// The bytes that are kept.
    pub fn byte_len(&self) -> u64 {
        self.lock().byte_len()
    }

    /// Gives all back to the system.
    pub fn clear(&self) {
        let regions = std::mem::take(&mut self.lock().regions);
        drop(regions);
    }

    /// Memory of at least so many bytes, from a huge page's start: a kept one that is not much larger, or fresh, with the
    /// pages of a kept one that is smaller.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn take(self: &Arc<Self>, bytes: usize) -> io::Result<ArenaMemory> {
        let fits = |region: &Region| {
            (bytes..=bytes.saturating_mul(2).max(MIN_CACHE_BYTES as usize)).contains(&region.byte_len())
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
        // What else is kept was counted as free, and must be if it is needed.
        let fresh = (bytes - reused) as u64;
        if fresh > MIN_CACHE_BYTES && free_memory() < fresh {
            self.clear();
        }
        let (region, reused) = match kept {
            Some(region) if reused == bytes => (region, reused),
            kept => {
                // The last huge page is a whole one too.
                let mapped =
                    bytes.checked_next_multiple_of(Alignment::HUGE_PAGE.as_u64() as usize).unwrap_or(usize::MAX);
                let map = || Region::map(mapped, Alignment::HUGE_PAGE);
                let grown = match kept {
                    Some(smaller) => map().and_then(|region| region.adopt(smaller)),
                    None => map(),
                };
                match grown {
                    Ok(region) => (region, reused),
                    // What is kept may be all that a limit of address space has left; and Linux before 6.17 does not move twice what has
                    // been moved.
                    Err(_) => {
                        self.clear();
                        (map()?, 0)
                    }
                }
            }
        };
        Ok(ArenaMemory { region: Some(region), reused, cache: Arc::downgrade(self) })
    }

    /// Fresh memory that is never kept: what is locked would stay so.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn allocate_uncached(bytes: usize) -> io::Result<ArenaMemory> {
        Arc::<Self>::default().take(bytes)
    }

    /// Gives the region back when it may not be kept.
    fn put(&self, region: Region) -> Option<Region> {
        let (kept, limit) = {
            let kept = self.lock();
            (kept.byte_len().saturating_add(region.byte_len() as u64), kept.limit)
        };
        // The system is asked without the lock.
        let max = limit.unwrap_or_else(|| if kept <= MIN_CACHE_BYTES { MIN_CACHE_BYTES } else { free_memory() });
        let mut cache = self.lock();
        if cache.byte_len().saturating_add(region.byte_len() as u64) > max {
            return Some(region);
        }
        cache.regions.push(region);
        None
    }
}

/// An arena's memory; it goes back to its cache, if that is still there, and else to the system.
#[derive(Debug)]
pub struct ArenaMemory {
    /// There until the drop.
    region: Option<Region>,
    reused: usize,
    cache: Weak<ArenaCache>,
}

impl ArenaMemory {
    /// Asks for huge pages for `needed` bytes, unless all their pages are there already.
    ///
    /// # Errors
    /// When the kernel has none to give; the memory can be used all the same.
    pub fn advise_huge_pages(&self, needed: usize) -> io::Result<()> {
        match &self.region {
            Some(region) if needed > self.reused => region.advise_huge_pages(),
            _ => Ok(()),
        }
    }

    /// Asks for the node's own memory, as far as pages are not there already.
    ///
    /// # Errors
    /// When the kernel refuses; the memory can be used all the same.
    pub fn prefer_node(&self, node: u32) -> io::Result<()> {
        self.region.as_ref().map_or(Ok(()), |region| region.prefer_node(node))
    }

    /// Returns all bytes. Those that were not written to since the memory was taken are zero, or what an earlier load left there.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: by `StableMemory` the bytes are initialised and ours alone; writing to them borrows `self` mutably.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.byte_len()) }
    }

    /// As [`as_bytes`](Self::as_bytes), to be written to.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        // SAFETY: by `StableMemory` the bytes are initialised, writable and ours alone; the slice borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.byte_len()) }
    }

    /// The bytes whose pages have been used before.
    pub fn reused(&self) -> usize {
        self.reused
    }
}

// SAFETY: all is the region's, which is there until the drop.
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
        // SAFETY: the memory is that long, and nobody else uses it.
        unsafe { memory.start().as_ptr().wrapping_add(at).write(byte) };
    }

    fn read(memory: &ArenaMemory, at: usize) -> u8 {
        // SAFETY: as for `write`; all of it is initialised.
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
        assert_eq!(cache.byte_len(), 6 << 20, "as one piece");
    }

    /// What Linux before 6.17 says of memory that has been moved once, any Linux from 6.10 on says of memory that is sealed.
    #[cfg(all(not(miri), target_pointer_width = "64"))]
    #[test]
    fn pages_that_cannot_be_moved_are_done_without() {
        let cache = Arc::<ArenaCache>::default();
        let small = cache.take(2 * MIB).expect("maps");
        // SAFETY: the memory stays as it is, for as long as this process lives.
        let sealed = unsafe { libc::syscall(libc::SYS_mseal, small.start().as_ptr(), small.byte_len(), 0) };
        if sealed != 0 {
            return println!("skipped: this system seals no memory ({})", io::Error::last_os_error());
        }
        drop(small);
        drop(cache.take(2 * MIB).expect("is there"));
        let large = cache.take(5 * MIB).expect("is mapped anew");
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

    // Miri ends the program when it has no memory left itself.
    #[cfg(not(miri))]
    #[test]
    fn an_impossible_size_is_an_error() {
        for bytes in [isize::MAX as usize, usize::MAX] {
            assert!(ArenaCache::allocate_uncached(bytes).is_err());
        }
    }
}
