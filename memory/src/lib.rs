//! The memory that checkpoints are loaded into. Everything unsafe about memory is in this crate.
//!
//! A `region` is memory from the kernel. A `split_buffer` hands any stable memory out as disjoint
//! owned slices, which `slot_ledger` tracks. An [`Arena`] is the memory of one load, split
//! over its chunks and frozen when all are back; the [`ArenaCache`] keeps arenas for the next load.
//! A [`pool`] lends buffers under a hard limit of bytes. A [`ChunkBuffer`] is what a read fills:
//! its slice, or a scratch buffer from which it is gathered.
//!
//! Locks and atomics come from [`sync`] and from nowhere else, here and in the crates above, so
//! that loom can replace them.

pub mod pool;
pub mod sync;

mod arena;
mod arena_cache;
mod limits;
mod numa;
mod region;
mod scratch;
#[cfg_attr(not(loom), allow(unreachable_pub, reason = "loom's tests alone reach it, through `testing`"))]
mod slot_ledger;
mod split_buffer;
mod stable;

/// The internals that loom's tests need. Exists only with `--cfg loom` and is not part of the
/// library.
#[cfg(loom)]
pub mod testing {
    pub use crate::pool::magazine::{Magazine, Magazines};
    pub use crate::slot_ledger::SlotLedger;
}

pub use arena::{Arena, FrozenArena};
pub use arena_cache::{ArenaCache, ArenaMemory};
pub use limits::{memory_limit, memory_limits, no_limit, resource_limit};
pub use numa::node_of_caller;
pub use region::{Region, lock_memory};
pub use scratch::{ChunkBuffer, ScratchPool};
pub use split_buffer::{BufferSlice, SplitBuffer};
pub use stable::{FilledBytes, StableBuffer, StableMemory};

/// Compiles the example of the crate's README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
