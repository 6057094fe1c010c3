//! Memory from the kernel: anonymous, zeroed and aligned.
//!
//! Miri does not support aligned mappings. Under Miri the memory comes from the allocator.

use crate::stable::StableMemory;
use floodtide_core::Alignment;
use std::io;
use std::ptr::NonNull;

/// An anonymous mapping, unmapped on drop. The kernel zeroes its bytes, so they are initialised.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    #[cfg(not(miri))]
    bytes: usize,
    #[cfg(miri)]
    layout: std::alloc::Layout,
}

// SAFETY: the mapping belongs to the process, not to a thread. Its holder controls access to the
// bytes.
unsafe impl Send for Region {}
// SAFETY: a shared region gives only the address of its bytes, and its system calls change none.
unsafe impl Sync for Region {}

fn no_memory() -> io::Error {
    io::Error::from(io::ErrorKind::OutOfMemory)
}

impl Region {
    /// Maps at least one byte.
    ///
    /// # Errors
    /// Returns an error if the system has no memory or no address space.
    #[cfg(not(miri))]
    pub fn map(bytes: usize, alignment: Alignment) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags};

        let page = rustix::param::page_size();
        let alignment = alignment.as_usize().max(page);
        let bytes = bytes.max(1).checked_next_multiple_of(page).ok_or_else(no_memory)?;
        // The kernel aligns to a page. A stricter alignment is cut out of a longer mapping.
        let mapped = bytes.checked_add(alignment - page).ok_or_else(no_memory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing
        // memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let start = start.cast::<u8>();
        let head = start.align_offset(alignment);
        let base = start.wrapping_add(head);
        let tail = mapped - head - bytes;
        if head > 0 {
            // SAFETY: the first `head` bytes are ours and precede the region. Nothing points there.
            let _ = unsafe { rustix::mm::munmap(start.cast(), head) };
        }
        if tail > 0 {
            // SAFETY: the last `tail` bytes are ours and follow the region. Nothing points there.
            let _ = unsafe { rustix::mm::munmap(base.wrapping_add(bytes).cast(), tail) };
        }
        Ok(Self { base: NonNull::new(base).ok_or_else(no_memory)?, bytes })
    }

    /// Allocates at least one byte.
    ///
    /// # Errors
    /// Returns an error if the allocator has no memory.
    #[cfg(miri)]
    pub fn map(bytes: usize, alignment: Alignment) -> io::Result<Self> {
        let alignment = (alignment.as_u64() as usize).max(4096);
        let layout = std::alloc::Layout::from_size_align(bytes.max(1), alignment).map_err(|_| no_memory())?;
        // SAFETY: the layout has at least one byte.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Ok(Self { base: NonNull::new(base).ok_or_else(no_memory)?, layout })
    }

    /// Requests huge pages.
    ///
    /// # Errors
    /// Returns an error if the kernel does not support them.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        // SAFETY: the range is our own mapping, and this advice changes no contents.
        #[cfg(not(miri))]
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, rustix::mm::Advice::LinuxHugepage) }?;
        Ok(())
    }

    /// Requests this node's memory for new pages, while it has any (`MPOL_PREFERRED` of
    /// `mbind(2)`).
    ///
    /// # Errors
    /// Fails if the kernel refuses or does not support nodes.
    pub fn prefer_node(&self, node: u32) -> io::Result<()> {
        #[cfg(not(miri))]
        {
            let mut mask = [0_u64; 16];
            let word = mask.get_mut(node as usize / 64).ok_or(io::ErrorKind::Unsupported)?;
            *word = 1 << (node % 64);
            // The kernel uses one bit less than stated.
            let bits = 64 * mask.len() as libc::c_ulong + 1;
            let (start, preferred) = (self.base.as_ptr(), libc::MPOL_PREFERRED);
            // SAFETY: the range is our own mapping, the policy changes no contents, and the mask is
            // read only during the call.
            let done = unsafe { libc::syscall(libc::SYS_mbind, start, self.bytes, preferred, mask.as_ptr(), bits, 0) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let _ = node;
        Ok(())
    }

    /// Moves the pages of a smaller region to the start of this one, which should have no pages
    /// yet.
    ///
    /// # Errors
    /// Fails if the system refuses.
    #[cfg(not(miri))]
    pub fn adopt(self, smaller: Self) -> io::Result<Self> {
        use rustix::mm::MremapFlags;
        assert!(smaller.bytes <= self.bytes, "the pages of the smaller region fit");
        let (from, to) = (smaller.base.as_ptr().cast(), self.base.as_ptr().cast());
        // SAFETY: both are whole mappings of ours to which nothing points. The old pages of the
        // target are dropped. The source is unmapped by the call, so it is forgotten.
        match unsafe { rustix::mm::mremap_fixed(from, smaller.bytes, smaller.bytes, MremapFlags::MAYMOVE, to) } {
            Ok(_) => {
                std::mem::forget(smaller);
                Ok(self)
            }
            Err(error) => {
                // The target's first pages may be unmapped, and their addresses reused by another
                // thread. The rest is still ours and never had a page.
                let (start, rest) = (self.base.as_ptr().wrapping_add(smaller.bytes), self.bytes - smaller.bytes);
                if rest > 0 {
                    // SAFETY: nothing points there, and the first pages were unmapped up to here.
                    let _ = unsafe { rustix::mm::munmap(start.cast(), rest) };
                }
                std::mem::forget(self);
                Err(error.into())
            }
        }
    }

    /// Copies the contents of a smaller region.
    ///
    /// # Errors
    /// None. The method has the signature of the one that moves pages.
    #[cfg(miri)]
    pub fn adopt(self, smaller: Self) -> io::Result<Self> {
        let bytes = smaller.layout.size().min(self.layout.size());
        // SAFETY: both allocations have this many initialised bytes and do not overlap.
        unsafe { self.base.copy_from_nonoverlapping(smaller.base, bytes) };
        Ok(self)
    }

    /// Locks the region in memory. This faults in all of it.
    ///
    /// # Errors
    /// Returns an error if the limit of locked memory or the available memory is too small.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is our own mapping, and locking changes no contents.
        #[cfg(not(miri))]
        unsafe { rustix::mm::mlock(self.base.as_ptr().cast(), self.bytes) }?;
        Ok(())
    }
}

// SAFETY: the mapping has this many bytes, zeroed by the kernel or the allocator. It does not move
// and is exclusive.
unsafe impl StableMemory for Region {
    fn start(&self) -> NonNull<u8> {
        self.base
    }

    #[cfg(not(miri))]
    fn byte_len(&self) -> usize {
        self.bytes
    }

    #[cfg(miri)]
    fn byte_len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: everything that could reach these bytes (chunks, frozen arenas, buffers) holds
        // the owner of this region.
        #[cfg(not(miri))]
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        // SAFETY: whatever could reach these bytes holds the owner of this region. It was allocated
        // with this layout.
        #[cfg(miri)]
        unsafe {
            std::alloc::dealloc(self.base.as_ptr(), self.layout);
        }
    }
}

/// Locks memory, and adds its length to `locked`.
///
/// # Errors
/// Returns an error if the limit of locked memory or the available memory is too small.
pub fn lock_memory(bytes: &[u8], locked: &mut u64) -> io::Result<()> {
    if !bytes.is_empty() {
        // SAFETY: the bytes are borrowed, so they stay mapped. Locking changes no contents.
        unsafe { rustix::mm::mlock(bytes.as_ptr().cast_mut().cast(), bytes.len()) }?;
        *locked += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodtide_core::to_usize;

    #[test]
    fn a_region_is_aligned_and_zeroed() {
        for alignment in [1, 4096, 1 << 16, 2 << 20] {
            let region = Region::map(10_000, Alignment::new(alignment).expect("a power of two")).expect("maps");
            assert_eq!(region.start().as_ptr().align_offset(to_usize(alignment)), 0);
            // SAFETY: the region has this many bytes, and nothing else touches them.
            let bytes = unsafe { std::slice::from_raw_parts(region.start().as_ptr(), 10_000) };
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }

    // Miri itself ends the program when memory runs out.
    #[cfg(not(miri))]
    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(Region::map(isize::MAX as usize, Alignment::ONE).is_err());
        assert!(Region::map(usize::MAX, Alignment::HUGE_PAGE).is_err());
    }
}
