//! Streams: a checkpoint that passes through a few buffers.
//!
//! The plan of a stream gives every extent its own buffer, in the order of reading.
//! [`FillingBuffers`] holds the buffers that are being filled, until their last chunk arrives.
//! [`ReorderBuffer`] holds the filled buffers until the consumer takes them in its
//! [`Order`](crate::Order). Each is a [`FilledBuffer`], which describes its contents. Dropping it
//! frees its memory for the next extent, so a slow consumer throttles the reads.
//!
//! A consumer that works by itself, such as an upload to a device, is a [`Sink`]. [`SinkPump`]
//! connects it with a stream, so that reading and uploading overlap.
//!
//! A stream always ends. Buffers are provided in the order of the plan, and filling one never
//! requires another. So in every order of delivery, the next extent either has a buffer already, or
//! the consumer holds all the buffers.

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
