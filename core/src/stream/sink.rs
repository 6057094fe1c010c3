//! What takes a stream in by itself: an upload to a device, a socket, a quantiser.

use super::FilledBuffer;
use core::fmt;
use core::task::{Context, Poll};

/// Names a buffer that a sink has, from [`Sink::submit`] until [`Sink::poll`] gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Takes whole buffers, with their ownership, and gives each back when it has done with it: the shape of an asynchronous
/// upload with staging buffers.
///
/// A sink owns what it was given. When it is dropped with buffers in hand that hardware may still read, it must wait for that
/// or leak them.
pub trait Sink<B> {
    /// Why it can take no more.
    type Error: fmt::Display;

    /// How many buffers it works on at a time; at least one. No more are submitted before one has come back.
    fn depth(&self) -> usize;

    /// Takes a buffer and begins with it. Must not wait for buffers that it has.
    ///
    /// # Errors
    /// When it cannot; the buffer is then dropped, and those that it has are still to be polled.
    fn submit(&mut self, chunk: FilledBuffer<B>) -> Result<Ticket, Self::Error>;

    /// The ticket's buffer, once the sink has done with it. Else the waker of `context` is woken when it is worth to ask
    /// again. A ticket for which this was ready is not polled again.
    ///
    /// # Errors
    /// When the sink could not do what it should with this buffer.
    fn poll(&mut self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<B, Self::Error>>;
}
