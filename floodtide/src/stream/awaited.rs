//! A stream for async callers.

use super::{State, TensorStream};
use crate::error::Error;
use crate::report::Report;
use crate::tensors::Tensor;
use floodtide_core::stream::FilledBufferStream;
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The tensors of a checkpoint as a [`Stream`] of any executor. Made by [`Loader::stream_async`](crate::Loader::stream_async). The reads run on threads of their
/// own, so the task is woken when a buffer is whole and never waits for the disk.
///
/// It is otherwise as a [`TensorStream`]. For tensors that are longer than the memory may be, or to pass buffers to a sink, use
/// that one on a blocking thread. And it does not notice that the consumer holds everything itself: a task that does so
/// waits until it is dropped, as any task does that waits for itself.
#[derive(Debug)]
pub struct AsyncTensorStream {
    inner: TensorStream,
}

impl AsyncTensorStream {
    pub(crate) fn new(inner: TensorStream) -> Self {
        Self { inner }
    }

    /// How it went, once it has ended without an error.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.inner.report()
    }
}

impl Stream for AsyncTensorStream {
    type Item = Result<Tensor, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = &mut self.get_mut().inner;
        loop {
            if let Some(tensor) = stream.queue.pop_front() {
                return Poll::Ready(Some(Ok(tensor)));
            }
            if matches!(stream.state, State::Failed) {
                return Poll::Ready(None);
            }
            let polled = match stream.start(false) {
                Ok(running) => running.poll_filled(context),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) if stream.queue.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) => {}
                Poll::Ready(Some(Ok(filled))) => stream.queue(filled),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}
