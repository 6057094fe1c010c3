//! A checkpoint that passes through a few buffers: which buffer is being filled, which is whole, and whose turn it is.
//!
//! The plan of a stream gives every extent a buffer of its own, in the order in which they are read. [`FillingBuffers`] keeps the
//! buffers that are being filled, until the last chunk has landed. [`ReorderBuffer`] keeps those that are whole, until the consumer takes
//! them in the [`Order`](crate::Order) that it wants. What it takes is a [`FilledBuffer`] buffer, which knows what it holds; dropping it gives the memory
//! back, and only then can another extent be read: so a slow consumer throttles the reads.
//!
//! A consumer that works by itself, like the upload to a device, is a [`Sink`]. [`SinkPump`] couples one with a stream, so
//! that reading and uploading overlap.
//!
//! Why a stream ends: buffers are provided in the order of the plan, and a buffer, once provided, is filled without
//! needing another. So whatever the order of delivery, the next extent to deliver is among those that have a buffer, or
//! nothing is lent but what the consumer holds.

mod filled_buffer;
mod filling_buffers;
mod pump;
mod reorder_buffer;
mod sink;

pub use filled_buffer::{FilledBuffer, TensorPart};
pub use filling_buffers::FillingBuffers;
pub use pump::{FilledBufferStream, PumpError, SinkPump};
pub use reorder_buffer::ReorderBuffer;
pub use sink::Sink;

#[cfg(test)]
mod tests;
