//! Traits of memory that does not move: memory that can be split, buffers that the kernel may
//! write to, and buffers that can be read once they are filled.

use floodtide_core::Buffer;
use std::fmt;
use std::ptr::NonNull;

/// Memory that can be handed out in slices.
///
/// # Safety
/// From [`start`](Self::start) on there are [`byte_len`](Self::byte_len) bytes, initialised and
/// writable from any thread. They stay where they are while the value moves, and are its owner's
/// alone: nobody else reads or writes them while it lives, and the value itself does so only
/// through methods that its owner calls.
pub unsafe trait StableMemory: fmt::Debug + Send + Sync + 'static {
    /// Returns the address of the first byte.
    fn start(&self) -> NonNull<u8>;
    /// Returns the length in bytes.
    fn byte_len(&self) -> usize;
}

/// Memory that does not move when its owner moves, so that the kernel may write to it.
///
/// # Safety
/// The address of [`Buffer::memory`] must stay valid and unchanged until the buffer is dropped.
pub unsafe trait StableBuffer: Buffer {}

/// The memory of a chunk, which can be read once the chunk is complete.
pub trait FilledBytes: Buffer {
    /// Returns at most the first `len` bytes.
    ///
    /// Only bytes that were read into it may be requested. The others may be another borrower's.
    fn filled(&self, len: usize) -> &[u8];
}
