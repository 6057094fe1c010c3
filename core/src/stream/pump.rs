//! Connects a stream with a sink.

use super::{FilledBuffer, Sink};
use core::fmt;
use core::task::{Context, Poll};

/// A source of filled buffers.
pub trait FilledBufferStream<B> {
    /// Why the stream failed.
    type Error: fmt::Display;

    /// Returns the next filled buffer, or `None` after the last.
    ///
    /// If none is ready, the waker of `context` is woken when one may be.
    fn poll_filled(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<B>, Self::Error>>>;
}

/// Why a [`SinkPump`] failed.
#[derive(Debug, PartialEq, Eq)]
pub enum PumpError<S, K> {
    /// The stream failed.
    Stream(S),
    /// The sink failed.
    Sink(K),
}

impl<S: fmt::Display, K: fmt::Display> fmt::Display for PumpError<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Sink(error) => write!(f, "the sink failed: {error}"),
        }
    }
}

impl<S: fmt::Debug + fmt::Display, K: fmt::Debug + fmt::Display> core::error::Error for PumpError<S, K> {}

/// Passes every buffer of a stream to a sink, and returns each to its pool when the sink has
/// finished it.
///
/// Meanwhile the stream reads into the free buffers, so reading and the sink's work overlap.
#[derive(Debug)]
pub struct SinkPump<S, K> {
    state: State,
    /// The buffers that the sink holds.
    held: usize,
    failure: Option<PumpError<S, K>>,
}

#[derive(Debug)]
enum State {
    /// Buffers go from the stream to the sink.
    Passing,
    /// The stream has ended.
    Flushing,
    /// The sink is flushed, or something failed: buffers only come back.
    Draining,
}

impl<S, K> Default for SinkPump<S, K> {
    fn default() -> Self {
        Self { state: State::Passing, held: 0, failure: None }
    }
}

impl<S, K> SinkPump<S, K> {
    /// Creates a pump for one stream and one sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues until it would wait. Ready when the sink holds no buffer and is flushed, or has
    /// failed. It must not be polled again afterwards.
    ///
    /// # Errors
    /// Returns the first failure, of the stream or of the sink.
    pub fn poll<B>(
        &mut self,
        source: &mut impl FilledBufferStream<B, Error = S>,
        sink: &mut impl Sink<B, Error = K>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError<S, K>>> {
        loop {
            // First, because a sink may become ready only after it returns a buffer.
            self.take_back(sink, context);
            let step = match self.state {
                State::Passing => self.pass_one(source, sink, context),
                State::Flushing => sink.poll_flush(context).map(|flushed| match flushed {
                    Ok(()) => self.state = State::Draining,
                    Err(error) => self.fail(PumpError::Sink(error)),
                }),
                State::Draining if self.held > 0 => Poll::Pending,
                State::Draining => return Poll::Ready(self.failure.take().map_or(Ok(()), Err)),
            };
            if step.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Passes a buffer from the stream to the sink, as soon as the sink is ready and the stream has
    /// one.
    fn pass_one<B>(
        &mut self,
        source: &mut impl FilledBufferStream<B, Error = S>,
        sink: &mut impl Sink<B, Error = K>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        match sink.poll_ready(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => {
                self.fail(PumpError::Sink(error));
                return Poll::Ready(());
            }
            Poll::Ready(Ok(())) => {}
        }
        source.poll_filled(context).map(|next| match next {
            None => self.state = State::Flushing,
            Some(Err(error)) => self.fail(PumpError::Stream(error)),
            Some(Ok(buffer)) => match sink.start(buffer) {
                Ok(()) => self.held += 1,
                Err(error) => self.fail(PumpError::Sink(error)),
            },
        })
    }

    /// Takes the buffers back that the sink is done with, and drops them, which returns them to
    /// their pool.
    fn take_back<B>(&mut self, sink: &mut impl Sink<B, Error = K>, context: &mut Context<'_>) {
        // The count ends it even if a sink returns its error again and again.
        while self.held > 0 {
            match sink.poll_completed(context) {
                Poll::Pending => return,
                Poll::Ready(None) => self.held = 0,
                Poll::Ready(Some(completed)) => {
                    self.held -= 1;
                    if let Err(error) = completed {
                        self.fail(PumpError::Sink(error));
                    }
                }
            }
        }
    }

    fn fail(&mut self, failure: PumpError<S, K>) {
        self.state = State::Draining;
        self.failure.get_or_insert(failure);
    }
}
