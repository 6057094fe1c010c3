//! Memory that stays where it is: what may be cut into pieces, written to by the kernel, and read once it has landed.

use floodtide_core::Buffer;
use std::fmt;
use std::ptr::NonNull;

/// Memory that can be handed out in slices.
///
/// # Safety
/// From [`start`](Self::start) on there are [`byte_len`](Self::byte_len) bytes, initialised and writable from any thread. They
/// stay where they are while the value moves, and are its owner's alone: nobody else reads or writes them while it lives,
/// and the value itself does so only through methods that its owner calls.
pub unsafe trait StableMemory: fmt::Debug + Send + Sync + 'static {
    /// The first byte.
    fn start(&self) -> NonNull<u8>;
    /// How many bytes there are.
    fn byte_len(&self) -> usize;
}

/// Memory that stays where it is while its owner moves, so that the kernel may write to it.
///
/// # Safety
/// The address of [`Buffer::memory`] must stay valid and the same until the buffer is dropped.
pub unsafe trait StableBuffer: Buffer {}

/// A chunk's memory, which can be looked at when the chunk has landed.
pub trait Landed: Buffer {
    /// The first bytes that were read into it; not more than it has. Only what has landed may be asked for: what lies behind may be
    /// another borrower's.
    fn landed(&self, bytes: usize) -> &[u8];
}
