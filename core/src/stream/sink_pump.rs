//! Couples a stream with a sink.

use super::{FilledBuffer, Sink, Ticket};
use alloc::vec::Vec;
use core::fmt;
use core::task::{Context, Poll};

/// Where whole buffers come from.
pub trait FilledBufferStream<B> {
    /// Why the stream failed.
    type Error: fmt::Display;

    /// The next whole buffer; `None` when there are no more. Else the waker of `context` is woken when it is worth to ask
    /// again.
    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<B>, Self::Error>>>;
}

/// Why not everything was poured.
#[derive(Debug, PartialEq, Eq)]
pub enum SinkPumpError<S, K> {
    /// The stream failed.
    Stream(S),
    /// The sink failed.
    Sink(K),
}

impl<S: fmt::Display, K: fmt::Display> fmt::Display for SinkPumpError<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Sink(error) => write!(f, "the sink failed: {error}"),
        }
    }
}

impl<S: fmt::Debug + fmt::Display, K: fmt::Debug + fmt::Display> core::error::Error for SinkPumpError<S, K> {}

/// Passes every buffer of a stream to a sink, as many at a time as the sink takes, and gives each back to its pool when the
/// sink has done with it. Meanwhile the stream reads on into the buffers that are free: reading and the sink's work overlap.
#[derive(Debug)]
pub struct SinkPump<S, K> {
    tickets: Vec<Ticket>,
    /// No more is submitted.
    ended: bool,
    failure: Option<SinkPumpError<S, K>>,
}

impl<S, K> Default for SinkPump<S, K> {
    fn default() -> Self {
        Self { tickets: Vec::new(), ended: false, failure: None }
    }
}

impl<S, K> SinkPump<S, K> {
    /// Nothing poured yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on as far as it can without waiting; ready when everything is through the sink, or, after a failure, when every
    /// buffer has come back from it.
    ///
    /// # Errors
    /// The first failure, of the stream or of the sink.
    pub fn poll<B>(
        &mut self,
        source: &mut impl FilledBufferStream<B, Error = S>,
        sink: &mut impl Sink<B, Error = K>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), SinkPumpError<S, K>>> {
        loop {
            self.reap(sink, context);
            if self.ended {
                return match (self.tickets.is_empty(), self.failure.take()) {
                    (true, None) => Poll::Ready(Ok(())),
                    (true, Some(failure)) => Poll::Ready(Err(failure)),
                    (false, failure) => {
                        self.failure = failure;
                        Poll::Pending
                    }
                };
            }
            if self.tickets.len() >= sink.depth().max(1) {
                return Poll::Pending;
            }
            match source.poll_filled(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => self.fail(SinkPumpError::Stream(error)),
                Poll::Ready(Some(Ok(chunk))) => match sink.submit(chunk) {
                    Ok(ticket) => self.tickets.push(ticket),
                    Err(error) => self.fail(SinkPumpError::Sink(error)),
                },
            }
        }
    }

    /// Takes back what the sink has done with; dropping a buffer is giving it back to its pool.
    fn reap<B>(&mut self, sink: &mut impl Sink<B, Error = K>, context: &mut Context<'_>) {
        let mut failure = None;
        self.tickets.retain(|&ticket| match sink.poll(ticket, context) {
            Poll::Pending => true,
            Poll::Ready(Ok(_)) => false,
            Poll::Ready(Err(error)) => {
                failure.get_or_insert(error);
                false
            }
        });
        if let Some(error) = failure {
            self.fail(SinkPumpError::Sink(error));
        }
    }

    fn fail(&mut self, failure: SinkPumpError<S, K>) {
        self.ended = true;
        self.failure.get_or_insert(failure);
    }
}
