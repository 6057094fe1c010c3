//! The trait of consumers that work by themselves: an upload to a device, a socket, a quantiser.

use super::FilledBuffer;
use core::fmt;
use core::task::{Context, Poll};

/// Takes ownership of filled buffers, and returns each when it is done.
///
/// An asynchronous upload with staging buffers has this shape. It is that of a `futures` sink that
/// also returns its buffers. [`SinkPump`](super::SinkPump) drives a sink:
///
/// 1. [`poll_completed`](Self::poll_completed), until no more buffers come back;
/// 2. [`poll_ready`](Self::poll_ready), and as soon as the sink is ready, [`start`](Self::start)
///    with the next filled buffer; then 1 again;
/// 3. after the last buffer, [`poll_flush`](Self::poll_flush), and `poll_completed` until the sink
///    holds no buffer.
///
/// Other code that drives a sink must follow the same rules.
///
/// # Wake-ups
///
/// One task calls all methods. A method that returns [`Poll::Pending`] keeps the waker of its
/// context, and the sink wakes that waker once the method would return something else. Keeping the
/// latest waker is enough for all methods: a task that is woken calls them all again. Nothing else
/// polls the sink again: a lost wake-up hangs the stream. A spurious one costs a few calls.
///
/// # Errors
///
/// The first error, of any method or of the stream, ends the work. `poll_ready`, `start` and
/// `poll_flush` are not called again. `poll_completed` is called until the sink holds no buffer.
/// Its later errors are ignored.
///
/// # Dropping
///
/// A sink owns the buffers that it has taken, and may be dropped while it holds some, because a
/// stream can be dropped at any time. If hardware may still read them, the sink must wait for the
/// hardware or leak them. A dropped buffer returns to its pool, and the next read overwrites it.
///
/// # Examples
///
/// A sink that finishes each buffer in `start`, and keeps the bytes of one tensor.
///
/// ```
/// use core::ops::Deref;
/// use core::task::{Context, Poll};
/// use floodtide_core::stream::{Sink, FilledBuffer};
///
/// struct KeepOne<B> {
///     name: &'static str,
///     bytes: Vec<u8>,
///     done: Vec<B>,
/// }
///
/// impl<B: Deref<Target = [u8]>> Sink<B> for KeepOne<B> {
///     type Error = &'static str;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn start(&mut self, buffer: FilledBuffer<B>) -> Result<(), Self::Error> {
///         for part in buffer.parts().filter(|part| part.tensor.name == self.name) {
///             // Parts of a tensor may come in any order.
///             let (start, part) = (part.offset as usize, &buffer.buffer()[part.buffer_range]);
///             let end = start + part.len();
///             self.bytes.resize(self.bytes.len().max(end), 0);
///             self.bytes[start..end].copy_from_slice(part);
///         }
///         self.done.push(buffer.into_buffer());
///         Ok(())
///     }
///
///     fn poll_completed(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<B, Self::Error>>> {
///         Poll::Ready(self.done.pop().map(Ok))
///     }
///
///     fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
///         Poll::Ready(if self.bytes.is_empty() { Err("no such tensor") } else { Ok(()) })
///     }
/// }
/// # use floodtide_core::format::{SAFETENSORS, safetensors::Header};
/// # use floodtide_core::{Access, Buffers, CatalogBuilder, ExtentId, Order, PlanOptions, Planner, Selection};
/// # use core::task::Waker;
/// # use floodtide_core::stream::{PumpError, SinkPump, FilledBufferStream};
/// # use std::sync::Arc;
/// #
/// # struct Once(Option<FilledBuffer<Vec<u8>>>);
/// #
/// # impl FilledBufferStream<Vec<u8>> for Once {
/// #     type Error = &'static str;
/// #
/// #     fn poll_filled(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<FilledBuffer<Vec<u8>>, Self::Error>>> {
/// #         Poll::Ready(self.0.take().map(Ok))
/// #     }
/// # }
/// #
/// # let json = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
/// # let len = (8 + json.len() + 5) as u64;
/// # let mut builder = CatalogBuilder::new(SAFETENSORS);
/// # Header::parse(json.as_bytes(), len)?.add_to(&mut builder, "model", len)?;
/// # let catalog = builder.finish()?;
/// # let buffers = Buffers { buffer_bytes: 65536, limit: 1 << 20, split: false, order: Order::File };
/// # let options = PlanOptions { access: Access::Stream(buffers), ..PlanOptions::default() };
/// # let plan = Planner::new(options).plan(&catalog, &Selection::All.resolve(&catalog)?)?;
/// # let mut bytes = vec![0; plan.extents()[0].buffer_bytes];
/// # for part in plan.parts(ExtentId(0)) {
/// #     bytes[part.buffer_range].fill(1 + part.placement as u8);
/// # }
/// # let staged = FilledBuffer::new(Arc::new(catalog), Arc::new(plan), ExtentId(0), bytes);
/// # let mut source = Once(Some(staged));
/// # let context = &mut Context::from_waker(Waker::noop());
///
/// let mut sink = KeepOne { name: "b", bytes: Vec::new(), done: Vec::new() };
/// assert_eq!(SinkPump::new().poll(&mut source, &mut sink, context), Poll::Ready(Ok(())));
/// assert_eq!(sink.bytes, [2, 2]);
/// #
/// # let mut sink = KeepOne { name: "c", bytes: Vec::new(), done: Vec::new() };
/// # let failed = Poll::Ready(Err(PumpError::Sink("no such tensor")));
/// # assert_eq!(SinkPump::new().poll(&mut source, &mut sink, context), failed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Sink<B> {
    /// Why the sink failed.
    type Error: fmt::Display;

    /// Returns ready if [`start`](Self::start) may be called. Poll it before every `start`.
    ///
    /// A sink limits here how many buffers it works on at a time. Being ready reserves nothing:
    /// `start` need not follow, and until it does the sink may be polled again.
    ///
    /// # Errors
    /// Returns an error if the sink accepts no more buffers.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Takes a filled buffer and starts its work. Never waits for buffers that the sink holds.
    ///
    /// # Errors
    /// Returns an error if the sink cannot take the buffer, which is then dropped.
    fn start(&mut self, buffer: FilledBuffer<B>) -> Result<(), Self::Error>;

    /// Returns a finished buffer, in any order, or `None` if the sink holds none.
    ///
    /// The caller drops the buffer, which returns it to its pool.
    ///
    /// # Errors
    /// Returns an error if the sink could not process one of the buffers. The sink then no longer
    /// holds that buffer, so it never returns more buffers and errors together than it has taken
    /// buffers.
    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<B, Self::Error>>>;

    /// Completes all work. Ready when every buffer was processed, and durable if the sink
    /// guarantees it.
    ///
    /// It is called after the last buffer, even if there was none, until it is ready. From then on
    /// [`poll_completed`](Self::poll_completed) returns the remaining buffers without waiting.
    ///
    /// # Errors
    /// Returns an error if any work failed.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;
}
