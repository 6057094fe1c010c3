//! Uploads a checkpoint to a device through four buffers of 64 MiB. While the device copies from
//! two of them, the workers fill the others.
//!
//! `cargo run --release -p floodtide --example custom_sink -- model.safetensors`
//!
//! The device of this example is a thread that copies to memory of its own. For a real device,
//! `start` queues the copies and an event after them, and the thread that waits for the events
//! wakes the sink. Its pool registers the buffers (`StreamOptions::pool`).

use floodtide::pool::PoolBuffer;
use floodtide::sink::{FilledBuffer, Sink};
use floodtide::{HumanBytes, Loader, StreamOptions, TensorId};
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{Builder, JoinHandle};

const BUFFERS: u64 = 4;
const BUFFER_BYTES: u64 = 64 << 20;
/// How many buffers the device works on at a time. The others are being filled.
const MAX_UPLOADS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give a checkpoint's file, its index or its folder")?;
    let options = StreamOptions::new().memory_limit(BUFFERS * BUFFER_BYTES).buffer_bytes(BUFFER_BYTES);
    let loader = Loader::new().stream_options(options);
    let mut sink = DeviceSink::start()?;
    let report = loader.stream(&path)?.send_to(&mut sink)?;
    let memory = sink.into_memory();
    let bytes = memory.values().map(|tensor| tensor.len() as u64).sum();
    println!("{} tensors, {} on the device after {:?}", memory.len(), HumanBytes(bytes), report.elapsed);
    Ok(())
}

/// The device's memory, by tensor.
type DeviceMemory = BTreeMap<TensorId, Vec<u8>>;

/// What the device reports to the sink.
#[derive(Default)]
struct Completed {
    uploads: VecDeque<Result<PoolBuffer, String>>,
    waker: Option<Waker>,
}

struct DeviceSink {
    /// Closed to end the device.
    queue: Option<Sender<FilledBuffer<PoolBuffer>>>,
    device: Option<JoinHandle<DeviceMemory>>,
    completed: Arc<Mutex<Completed>>,
    /// The number of buffers that were taken and not returned.
    held: usize,
}

impl DeviceSink {
    fn start() -> io::Result<Self> {
        let (queue, uploads) = channel();
        let completed = Arc::new(Mutex::new(Completed::default()));
        let reports = Arc::clone(&completed);
        let device = Builder::new().name("device".to_owned()).spawn(move || run_device(&uploads, &reports))?;
        Ok(Self { queue: Some(queue), device: Some(device), completed, held: 0 })
    }

    fn into_memory(mut self) -> DeviceMemory {
        self.shut_down()
    }

    /// Waits until the device has processed its queue.
    fn shut_down(&mut self) -> DeviceMemory {
        self.queue = None;
        self.device.take().and_then(|device| device.join().ok()).unwrap_or_default()
    }
}

impl Sink<PoolBuffer> for DeviceSink {
    type Error = String;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.held < MAX_UPLOADS {
            return Poll::Ready(Ok(()));
        }
        lock(&self.completed).waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn start(&mut self, buffer: FilledBuffer<PoolBuffer>) -> Result<(), String> {
        let queue = self.queue.as_ref().ok_or("the device was shut down")?;
        queue.send(buffer).map_err(|_| "the device is gone")?;
        self.held += 1;
        Ok(())
    }

    fn poll_completed(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<PoolBuffer, String>>> {
        if self.held == 0 {
            return Poll::Ready(None);
        }
        let mut completed = lock(&self.completed);
        match completed.uploads.pop_front() {
            Some(upload) => {
                self.held -= 1;
                Poll::Ready(Some(upload))
            }
            None => {
                completed.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut completed = lock(&self.completed);
        if completed.uploads.len() == self.held {
            return Poll::Ready(Ok(()));
        }
        completed.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for DeviceSink {
    /// Waits for the device, which may still read buffers if the stream was dropped.
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Runs one upload after another.
fn run_device(uploads: &Receiver<FilledBuffer<PoolBuffer>>, completed: &Mutex<Completed>) -> DeviceMemory {
    let mut memory = DeviceMemory::new();
    for buffer in uploads {
        let copied = copy(&buffer, &mut memory);
        let waker = {
            let mut completed = lock(completed);
            completed.uploads.push_back(copied.map(|()| buffer.into_buffer()));
            completed.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
    memory
}

fn copy(buffer: &FilledBuffer<PoolBuffer>, memory: &mut DeviceMemory) -> Result<(), String> {
    for part in buffer.parts() {
        let tensor = memory.entry(part.tensor.id).or_default();
        // A tensor larger than a buffer comes in parts. The first part allocates memory for all.
        let len = usize::try_from(part.tensor.byte_len()).map_err(|error| error.to_string())?;
        tensor.try_reserve_exact(len - tensor.len()).map_err(|_| "the device is out of memory")?;
        tensor.resize(len, 0);
        let start = usize::try_from(part.offset).map_err(|error| error.to_string())?;
        tensor[start..start + part.buffer_range.len()].copy_from_slice(&buffer.buffer()[part.buffer_range]);
    }
    Ok(())
}

/// Ignores poisoning: the guarded state stays consistent even if the other side panics.
fn lock(completed: &Mutex<Completed>) -> std::sync::MutexGuard<'_, Completed> {
    completed.lock().unwrap_or_else(PoisonError::into_inner)
}
