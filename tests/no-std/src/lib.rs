//! Links floodtide-core into a program without std, with a panic handler and an allocator of its
//! own. If core, or a crate that it depends on, pulled std in, both would be defined twice and this
//! would not build.

#![no_std]

use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use floodtide_core::format::safetensors::Header;

struct NoMemory;

// SAFETY: it never hands out memory, which an allocator is allowed to do.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static MEMORY: NoMemory = NoMemory;

#[panic_handler]
fn halt(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Something that only works with core linked in.
#[unsafe(no_mangle)]
pub extern "C" fn floodtide_tensors_in_an_empty_header() -> usize {
    Header::parse(b"{}", 10).map_or(usize::MAX, |header| header.entries().len())
}
