//! The queue of borrowers that wait for memory, in order of arrival.

use super::containers::Queue;
use crate::seeded_bug::seeded_bug;
use core::task::Waker;

/// A borrower's place in the queue. Empty until it has to wait.
///
/// An abandoned turn must be passed to [`Depot::cancel`](super::Depot::cancel), because all others
/// may wait behind it.
#[derive(Debug, Default)]
pub struct Turn(Option<u64>);

impl Turn {
    /// Creates a turn without a place.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
    }

    /// Returns true if it has a place in the queue.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
}

#[derive(Debug)]
pub(super) struct Waiter {
    ticket: u64,
    /// Taken when it is woken. A borrower that must wait again sets it again.
    waker: Option<Waker>,
}

/// The queue of waiting borrowers.
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

/// The queue is full. The waiter must be dropped without the lock.
pub(super) struct Full(#[allow(dead_code, reason = "it is there to be dropped")] Waiter);

impl<S: super::Containers> Waiters<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.front().is_none()
    }

    /// Returns how many have ever joined.
    pub(super) fn joined(&self) -> u64 {
        self.next_ticket
    }

    /// Adds `turn` to the queue, or replaces its waker.
    ///
    /// The result is the previous waker. It must be dropped without the lock, because dropping it
    /// may run foreign code.
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

    /// Ends a turn. The result must be dropped without the lock.
    pub(super) fn leave(&mut self, turn: &mut Turn) -> Option<Waiter> {
        let ticket = turn.0.take()?;
        self.queue.remove(|waiter| waiter.ticket == ticket)
    }

    /// Returns the waker to wake when memory was returned, unless it was woken already.
    pub(super) fn first(&mut self) -> Option<Waker> {
        let front = self.queue.front().map(|waiter| waiter.ticket)?;
        self.queue.find(|waiter| waiter.ticket == front)?.waker.take()
    }
}
