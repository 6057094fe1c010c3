//! The buffer pool's logic: who may have memory, from where, and who waits for it.
//!
//! A [`Depot`] lends blocks of memory. A block that comes back is kept in a *free list* for the next borrower, sorted by
//! [`SizeClass`], the last one in first out, so that it is still warm. Free lists are sharded, and a thread looks at the shard
//! of its *affinity* first. What is lent and what is retained together never pass the pool's limit: when it is reached, retained
//! blocks of other classes are released, and when that is not enough the borrower waits, in order of arrival.
//!
//! Two traits tie it to a platform. A [`Provider`] is where memory comes from. A [`Tier`] is a faster cache above the depot
//! (the thread-local magazines on Linux): the depot asks it for its blocks back before anybody has to wait.
//!
//! The depot knows no memory, no thread and no clock. Waiting is a [`Waker`](core::task::Waker), so that blocking, timed and async
//! borrowing are the platform's three faces of one [`poll_take`](Depot::poll_take).

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
