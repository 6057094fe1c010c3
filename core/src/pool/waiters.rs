//! Those who wait for memory, served in the order in which they came.

use super::containers::Queue;
use crate::seeded_bug::seeded_bug;
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
pub(super) struct Waiter {
    ticket: u64,
    /// Taken out when it is used: whoever was woken and still has to wait renews it.
    waker: Option<Waker>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Waiters<S: super::Containers> {
    queue: S::Queue<Waiter>,
    next_ticket: u64,
}

impl<S: super::Containers> Default for Waiters<S> {
    fn default() -> Self {
        Self { queue: Default::default(), next_ticket: 0 }
    }
}

/// The queue has no place left; the waiter is to be dropped without the lock.
pub(super) struct Full(#[allow(dead_code, reason = "it is there to be dropped")] Waiter);

impl<S: super::Containers> Waiters<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.front().is_none()
    }

    /// How many have ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.next_ticket
    }

    /// Gives `turn` a place, or renews its waker. What comes back, the waker it had, is to be dropped without the lock: that
    /// may run anybody's code.
    pub(super) fn join(&mut self, turn: &mut Turn, waker: Waker) -> Result<Option<Waker>, Full> {
        if let Some(ticket) = turn.0 {
            let waiter = self.queue.find(|waiter| waiter.ticket == ticket);
            return Ok(match waiter {
                Some(waiter) => waiter.waker.replace(waker),
                None => Some(waker),
            });
        }
        let ticket = self.next_ticket;
        self.queue.push_back(Waiter { ticket, waker: Some(waker) }).map_err(Full)?;
        self.next_ticket += 1;
        turn.0 = Some(ticket);
        Ok(None)
    }

    pub(super) fn is_first(&self, turn: &Turn) -> bool {
        turn.0.is_some() && (seeded_bug!(WaiterStarved) || self.queue.front().map(|waiter| waiter.ticket) == turn.0)
    }

    /// Ends a turn. What comes back is to be dropped without the lock.
    pub(super) fn leave(&mut self, turn: &mut Turn) -> Option<Waiter> {
        let ticket = turn.0.take()?;
        self.queue.remove(|waiter| waiter.ticket == ticket)
    }

    /// Whom to wake when memory has come back, unless that one has been woken already.
    pub(super) fn first(&mut self) -> Option<Waker> {
        let front = self.queue.front().map(|waiter| waiter.ticket)?;
        self.queue.find(|waiter| waiter.ticket == front)?.waker.take()
    }
}
