//! The trait of consumers that work by themselves: an upload to a device, a socket, a quantiser.

use super::FilledBuffer;
use core::fmt;
use core::task::{Context, Poll};

/// Takes ownership of filled buffers, and returns each when it is done.
///
/// This is the shape of an asynchronous upload with staging buffers: that of a `futures` sink, with
/// buffers that come back. [`SinkPump`](super::SinkPump) drives a sink:
///
/// 1. [`poll_completed`](Self::poll_completed), until no more buffers come back;
/// 2. [`poll_ready`](Self::poll_ready), and as soon as the sink is ready, [`start`](Self::start)
///    with the next filled buffer; then 1 again;
/// 3. after the last buffer, [`poll_flush`](Self::poll_flush), and `poll_completed` until the sink
///    holds no buffer.
///
/// Code that drives a sink by other means keeps to the same rules.
///
/// # Wake-ups
///
/// One task calls all methods. A method that returns [`Poll::Pending`] keeps the waker of its
/// context, and the sink wakes that waker once the method would return something else. One waker
/// for all methods is enough, the latest: a task that is woken calls them all again. It is not
/// called again before, so a wake-up that is lost hangs the stream. A wake-up too many costs a few
/// calls.
///
/// # Errors
///
/// The first error, of any method or of the stream, ends the work. `poll_ready`, `start` and
/// `poll_flush` are not called any more. `poll_completed` is called until the sink holds no buffer;
/// the errors that it still returns are dropped.
///
/// # Dropping
///
/// A sink owns the buffers that it has taken, and it may be dropped with buffers in hand: a stream
/// can be given up at any time. If hardware may still read them, the sink must wait for the
/// hardware or leak them. A buffer that is dropped goes back to its pool, and the next read
/// overwrites it.
///
/// # Examples
///
/// A sink that is done with a buffer when `start` returns. It keeps the bytes of one tensor.
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
///             let (start, part) = (part.offset as usize, &buffer.buffer()[part.bytes]);
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
/// #     bytes[part.bytes].fill(1 + part.placement as u8);
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

    /// Reports whether [`start`](Self::start) may be called; to be asked before every start.
    ///
    /// A sink limits here how many buffers it works on at a time. Being ready reserves nothing:
    /// `start` need not follow, and until it does the sink may be asked again.
    ///
    /// # Errors
    ///
    /// Fails when the sink can take no more buffers.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;

    /// Takes a filled buffer and begins with it. Never waits for buffers that the sink holds.
    ///
    /// # Errors
    ///
    /// Fails when the sink cannot take the buffer, which is then dropped.
    fn start(&mut self, buffer: FilledBuffer<B>) -> Result<(), Self::Error>;

    /// Gives a buffer back that the sink is done with, in any order; `None` when the sink holds no
    /// buffer.
    ///
    /// The caller drops the buffer, which returns it to its pool.
    ///
    /// # Errors
    ///
    /// Fails when the sink could not do its work with one of the buffers. The sink then no longer
    /// holds that buffer, so it returns no more buffers and errors together than it has taken
    /// buffers.
    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<B, Self::Error>>>;

    /// Finishes everything that the sink has taken; ready when it is through, and durable if the
    /// sink promises that.
    ///
    /// It is called after the last buffer, also when there was none, and until it is ready. From
    /// then on [`poll_completed`](Self::poll_completed) returns the buffers that are left without
    /// waiting.
    ///
    /// # Errors
    ///
    /// Fails when not everything went through.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>>;
}
