//! The logic of the buffer pool: limits, free lists and the queue of waiting borrowers.
//!
//! A [`Depot`] lends blocks of memory. It keeps a returned block in a *free list* for the next
//! borrower, by [`SizeClass`]. The last block in is the first out, because it is warm. Free lists
//! are sharded, and a thread tries the shard of its *affinity* first. Lent and retained blocks
//! together never exceed the pool's limit. At the limit the depot first releases retained blocks of
//! other classes. If that does not suffice, the borrower waits, in order of arrival.
//!
//! Two traits connect it to a platform. A [`Provider`] allocates memory. A [`Tier`] is a faster
//! cache above the depot, such as the thread-local magazines on Linux. The depot recalls its blocks
//! before any borrower waits.
//!
//! The depot knows no memory, no thread and no clock. A [`Waker`](core::task::Waker) represents
//! waiting, so a platform can build blocking, timed and async borrowing on
//! [`poll_take`](Depot::poll_take).

mod class;
mod containers;
mod depot;
mod provider;
mod waiters;

pub use class::{COUNT as CLASS_COUNT, MAX_BYTES, MIN_BYTES, SizeClass};
pub use containers::{Containers, Fixed, FreeList, Growing, Queue, Slots, Stacks};
pub use depot::Depot;
pub use provider::{Provider, Stats, TakeError, Tier};
pub use waiters::Turn;

#[cfg(test)]
mod tests;
