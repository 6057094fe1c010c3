//! Memory straight from the kernel: anonymous, zeroed, as aligned as is asked for.
//!
//! Under Miri, which does not know aligned mappings, it comes from the allocator, so that what is built on it can run
//! there.

use crate::stable::StableMemory;
use floodtide_core::Alignment;
use std::io;
use std::ptr::NonNull;

/// An anonymous mapping, unmapped on drop. Its bytes are initialised from the start: the kernel zeroes them.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    #[cfg(not(miri))]
    bytes: usize,
    #[cfg(miri)]
    layout: std::alloc::Layout,
}

// SAFETY: the mapping belongs to the process, not to a thread; who may touch which bytes is its holder's business.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; a region itself gives no access to its bytes, only their address.
unsafe impl Sync for Region {}

fn no_memory() -> io::Error {
    io::Error::from(io::ErrorKind::OutOfMemory)
}

impl Region {
    /// Maps at least one byte.
    #[cfg(not(miri))]
    pub fn map(bytes: usize, alignment: Alignment) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags};

        let page = rustix::param::page_size();
        let alignment = (alignment.as_u64() as usize).max(page);
        let bytes = bytes.max(1).checked_next_multiple_of(page).ok_or_else(no_memory)?;
        // The kernel aligns to a page; what is more is cut out of a mapping that is longer by so much.
        let mapped = bytes.checked_add(alignment - page).ok_or_else(no_memory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let start = start.cast::<u8>();
        let head = start.align_offset(alignment);
        let base = start.wrapping_add(head);
        let tail = mapped - head - bytes;
        if head > 0 {
            // SAFETY: the first `head` bytes are ours and lie before the region; nothing points there.
            let _ = unsafe { rustix::mm::munmap(start.cast(), head) };
        }
        if tail > 0 {
            // SAFETY: the last `tail` bytes are ours and lie after the region; nothing points there.
            let _ = unsafe { rustix::mm::munmap(base.wrapping_add(bytes).cast(), tail) };
        }
        Ok(Self { base: NonNull::new(base).ok_or_else(no_memory)?, bytes })
    }

    /// Allocates at least one byte.
    #[cfg(miri)]
    pub fn map(bytes: usize, alignment: Alignment) -> io::Result<Self> {
        let alignment = (alignment.bytes() as usize).max(4096);
        let layout = std::alloc::Layout::from_size_align(bytes.max(1), alignment).map_err(|_| no_memory())?;
        // SAFETY: the layout has at least one byte.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Ok(Self { base: NonNull::new(base).ok_or_else(no_memory)?, layout })
    }

    /// Asks for huge pages.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        // SAFETY: the range is our own mapping, and this advice changes no contents.
        #[cfg(not(miri))]
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, rustix::mm::Advice::LinuxHugepage) }?;
        Ok(())
    }

    /// Asks that pages which come from now on are of that node's memory, as long as it has any (`MPOL_PREFERRED` of `mbind(2)`).
    ///
    /// # Errors
    /// When the kernel refuses, or knows no nodes.
    pub fn prefer_node(&self, node: u32) -> io::Result<()> {
        #[cfg(not(miri))]
        {
            let mut mask = [0_u64; 16];
            let word = mask.get_mut(node as usize / 64).ok_or(io::ErrorKind::Unsupported)?;
            *word = 1 << (node % 64);
            // The kernel takes one bit less than it is told.
            let bits = 64 * mask.len() as libc::c_ulong + 1;
            let (start, preferred) = (self.base.as_ptr(), libc::MPOL_PREFERRED);
            // SAFETY: the range is our own mapping, the policy changes no contents, and the mask is read only during the call.
            let done = unsafe { libc::syscall(libc::SYS_mbind, start, self.bytes, preferred, mask.as_ptr(), bits, 0) };
            if done != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let _ = node;
        Ok(())
    }

    /// Takes the pages of a smaller region for its first ones, with what is in them; a region without pages so far is meant.
    ///
    /// # Errors
    /// When the system refuses.
    #[cfg(not(miri))]
    pub fn adopt(self, smaller: Self) -> io::Result<Self> {
        use rustix::mm::MremapFlags;
        assert!(smaller.bytes <= self.bytes, "the pages of the smaller region fit");
        let (from, to) = (smaller.base.as_ptr().cast(), self.base.as_ptr().cast());
        // SAFETY: both are whole mappings of ours to which nothing points; the old pages of the target are given up, and the
        // source is no longer mapped after it, which is why it is forgotten.
        match unsafe { rustix::mm::mremap_fixed(from, smaller.bytes, smaller.bytes, MremapFlags::MAYMOVE, to) } {
            Ok(_) => {
                std::mem::forget(smaller);
                Ok(self)
            }
            Err(error) => {
                // The target's first pages may be unmapped by now, and their addresses somebody else's; the rest of it is still ours. It
                // never had a page.
                let (start, rest) = (self.base.as_ptr().wrapping_add(smaller.bytes), self.bytes - smaller.bytes);
                if rest > 0 {
                    // SAFETY: nothing points there, and whoever unmapped the first pages did so up to here.
                    let _ = unsafe { rustix::mm::munmap(start.cast(), rest) };
                }
                std::mem::forget(self);
                Err(error.into())
            }
        }
    }

    /// Takes what is in a smaller region.
    #[cfg(miri)]
    pub fn adopt(self, smaller: Self) -> io::Result<Self> {
        let bytes = smaller.layout.size().min(self.layout.size());
        // SAFETY: both allocations have so many initialised bytes, and are apart.
        unsafe { self.base.copy_from_nonoverlapping(smaller.base, bytes) };
        Ok(self)
    }

    /// Keeps it in memory, so that it is never swapped out; this brings all of it in.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is our own mapping, and locking changes no contents.
        #[cfg(not(miri))]
        unsafe { rustix::mm::mlock(self.base.as_ptr().cast(), self.bytes) }?;
        Ok(())
    }
}

// SAFETY: the mapping has so many bytes, which the kernel (or the allocator) has zeroed, does not move, and is nobody else's.
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
        // SAFETY: whoever could reach these bytes (chunks, frozen arenas, buffers) holds what owns this region.
        #[cfg(not(miri))]
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        // SAFETY: as above; it was allocated with this layout.
        #[cfg(miri)]
        unsafe {
            std::alloc::dealloc(self.base.as_ptr(), self.layout);
        }
    }
}

/// Locks memory and adds to what is locked.
pub fn lock_memory(bytes: &[u8], locked: &mut u64) -> io::Result<()> {
    if !bytes.is_empty() {
        // SAFETY: the bytes are borrowed, so they stay mapped; locking changes no contents.
        unsafe { rustix::mm::mlock(bytes.as_ptr().cast_mut().cast(), bytes.len()) }?;
        *locked += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_aligned_and_zeroed() {
        for alignment in [1, 4096, 1 << 16, 2 << 20] {
            let region = Region::map(10_000, Alignment::new(alignment).expect("a power of two")).expect("maps");
            assert_eq!(region.start().as_ptr().align_offset(alignment as usize), 0);
            // SAFETY: the region has that many bytes and nobody else touches them.
            let bytes = unsafe { std::slice::from_raw_parts(region.start().as_ptr(), 10_000) };
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }

    // Miri ends the program when it has no memory left itself.
    #[cfg(not(miri))]
    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(Region::map(isize::MAX as usize, Alignment::ONE).is_err());
        assert!(Region::map(usize::MAX, Alignment::HUGE_PAGE).is_err());
    }
}
