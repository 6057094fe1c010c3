//! Those who wait for memory, served in the order in which they came.

use super::storage::Queue;
use crate::planted::planted;
use core::task::Waker;

/// A borrower's place in the queue; empty until it has to wait.
///
/// A turn that is given up goes back by [`Depot::cancel`](super::Depot::cancel): it may be the one that everybody else waits behind.
#[derive(Debug, Default)]
pub struct Turn(Option<u64>);

impl Turn {
    /// No place yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Whether it holds a place in the queue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    waker: Waker,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Waiters<S: super::Storage> {
    queue: S::Queue<Waiter>,
    next_ticket: u64,
}

impl<S: super::Storage> Default for Waiters<S> {
    fn default() -> Self {
        Self { queue: Default::default(), next_ticket: 0 }
    }
}

/// The queue has no place left.
pub(super) struct Full;

impl<S: super::Storage> Waiters<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.front().is_none()
    }

    /// How many have ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.next_ticket
    }

    /// Gives `turn` a place, or renews its waker.
    pub(super) fn join(&mut self, turn: &mut Turn, waker: &Waker) -> Result<(), Full> {
        if let Some(ticket) = turn.0 {
            if let Some(waiter) = self.queue.find(|waiter| waiter.ticket == ticket) {
                waiter.waker.clone_from(waker);
            }
            return Ok(());
        }
        let ticket = self.next_ticket;
        self.queue.push_back(Waiter { ticket, waker: waker.clone() }).map_err(|_| Full)?;
        self.next_ticket += 1;
        turn.0 = Some(ticket);
        Ok(())
    }

    pub(super) fn is_first(&self, turn: &Turn) -> bool {
        turn.0.is_some() && (planted!(WaiterStarved) || self.queue.front().map(|waiter| waiter.ticket) == turn.0)
    }

    pub(super) fn leave(&mut self, turn: &mut Turn) {
        if let Some(ticket) = turn.0.take() {
            self.queue.retain(|waiter| waiter.ticket != ticket);
        }
    }

    /// Whom to wake when memory has come back.
    pub(super) fn first(&self) -> Option<Waker> {
        self.queue.front().map(|waiter| waiter.waker.clone())
    }
}
