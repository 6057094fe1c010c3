//! Reads on tokio's blocking threads.
//!
//! Linux has no readiness for files, so tokio itself calls `pread` on its blocking pool. This
//! backend does the same with the planned, large reads. A started read owns its buffer and finishes
//! on its thread.

use super::pread::read;
use super::{LocalFiles, Registration};
use floodtide_core::storage::{BoxedSource, SourceOptions};
use floodtide_core::{Backend, Completion, Fault, Outcome, ReadOp, ReadSource, ReadStyle, Rejected, SourceError};
use floodtide_memory::StableBuffer;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::runtime::{Builder, Handle, Runtime};

/// The backend of tokio's blocking threads, of the caller's runtime or of a separate one.
pub const TOKIO: Backend = Backend::new("tokio", ReadStyle::Tasks, "tokio's blocking threads");

pub(super) const fn registration<B: StableBuffer>() -> Registration<B> {
    Registration { backend: TOKIO, refusal: |_| None, source }
}

fn source<B: StableBuffer>(files: LocalFiles, options: SourceOptions) -> Result<BoxedSource<B>, String> {
    // The runtime would panic if it could not start a thread.
    std::thread::Builder::new().spawn(|| ()).map_err(|error| format!("the system gives tokio no thread: {error}"))?;
    let runtime = Builder::new_current_thread().build().map_err(|error| format!("no runtime: {error}"))?;
    let handle = Handle::try_current().unwrap_or_else(|_| runtime.handle().clone());
    let (sender, completed) = channel();
    let (capacity, dont_cache) = (options.capacity.max(1), options.dont_cache);
    Ok(Box::new(TokioSource {
        handle,
        runtime: Some(runtime),
        files,
        capacity,
        dont_cache,
        in_flight: 0,
        sender,
        completed,
    }))
}

#[derive(Debug)]
struct TokioSource<B> {
    handle: Handle,
    /// Shut down without waiting: started reads finish on their threads.
    runtime: Option<Runtime>,
    files: LocalFiles,
    capacity: usize,
    dont_cache: bool,
    in_flight: usize,
    sender: Sender<Completion<B>>,
    completed: Receiver<Completion<B>>,
}

impl<B: StableBuffer> ReadSource for TokioSource<B> {
    type Buffer = B;

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, op: ReadOp, buffer: B) -> Result<(), Rejected<B>> {
        let task = Task { op, buffer: Some(buffer), sender: self.sender.clone() };
        let (files, dont_cache) = (self.files.clone(), self.dont_cache);
        self.handle.spawn_blocking(move || task.run(&files, dont_cache));
        self.in_flight += 1;
        Ok(())
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), SourceError> {
        if self.in_flight == 0 {
            return Ok(());
        }
        let first = self.completed.recv().map_err(|_| SourceError("tokio's threads are gone".to_owned()))?;
        for completion in std::iter::once(first).chain(self.completed.try_iter()) {
            self.in_flight -= 1;
            completed(completion);
        }
        Ok(())
    }
}

impl<B> Drop for TokioSource<B> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A read that reports a result even if a shutdown of its runtime prevents it.
struct Task<B> {
    op: ReadOp,
    buffer: Option<B>,
    sender: Sender<Completion<B>>,
}

impl<B: StableBuffer> Task<B> {
    fn run(mut self, files: &LocalFiles, dont_cache: bool) {
        if let Some(mut buffer) = self.buffer.take() {
            let outcome = read(files, &self.op, &mut buffer, dont_cache);
            let _ = self.sender.send(Completion { id: self.op.id, buffer, outcome });
        }
    }
}

impl<B> Drop for Task<B> {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let outcome = Outcome::Failed(Fault::Other("tokio's runtime was shut down during the load"));
            let _ = self.sender.send(Completion { id: self.op.id, buffer, outcome });
        }
    }
}
