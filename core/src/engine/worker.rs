//! The loop that connects the engine with a source. Every platform uses it, and so does the
//! simulator.

use super::{Disposition, Engine, Readiness};
use crate::error::{Error, ErrorKind};
use crate::seeded_bug::seeded_bug;
use crate::source::{Buffer, Completion, Outcome, ReadOp, ReadSource, SourceError};
use crate::units::{ChunkId, ExtentId, RouteId};
use alloc::vec::Vec;

/// An engine that workers share: a mutex on a platform with threads, a cell in a simulator.
pub trait EngineHandle {
    /// Calls `f` with exclusive access to the engine.
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R;

    /// Waits until the engine may have a read for a route, or a buffer that
    /// [`BufferProvider::reserve`] lacked.
    ///
    /// A worker without reads in flight calls this. It may return early.
    fn wait_for_capacity(&self, route: RouteId);
}

/// Provides the buffer of each chunk, and takes it back when the chunk is complete.
pub trait BufferProvider {
    /// The type of the buffers.
    type Buffer: Buffer;

    /// Reserves the memory of a stream's extent, for [`buffer_for`](Self::buffer_for).
    ///
    /// Returns false if none is free now. Any worker may then ask again. This must not wait,
    /// because the reads in flight may be what frees memory.
    ///
    /// # Errors
    /// Fails if the memory will never be available. This ends the load.
    fn reserve(&self, extent: ExtentId) -> Result<bool, Error>;

    /// Returns the buffer of a chunk, with the length of the chunk's buffer range. Called once per
    /// chunk.
    ///
    /// # Errors
    /// Fails if there is no buffer. This ends the load.
    fn buffer_for(&self, chunk: ChunkId) -> Result<Self::Buffer, Error>;

    /// Takes back the buffer of a complete chunk.
    ///
    /// # Errors
    /// Fails if the bytes are wrong. This ends the load.
    fn complete(&self, chunk: ChunkId, buffer: Self::Buffer) -> Result<(), Error>;

    /// Returns true if [`complete`](Self::complete) takes long.
    ///
    /// A worker then submits further reads before each call, so that the device stays busy. Chunks
    /// that wait for the call use memory in addition to the bytes in flight.
    fn completion_is_slow(&self) -> bool {
        false
    }

    /// Called when nothing more will complete: the load has failed or every worker has ended. It
    /// may be called again.
    fn finish(&self, failed: bool) {
        let _ = failed;
    }
}

/// Returns the engine's next read of a route with its buffer, or `None` if there is nothing to do
/// now.
pub fn next_read<H: EngineHandle, P: BufferProvider>(
    engine: &H,
    buffers: &P,
    route: RouteId,
) -> Option<(ReadOp, P::Buffer)> {
    loop {
        let next = engine.with(|e| e.next_read(route).ok_or_else(|| e.readiness(route)));
        match next {
            Ok(op) => match buffers.buffer_for(op.chunk) {
                Ok(buffer) => return Some((op, buffer)),
                Err(error) => engine.with(|e| {
                    e.fail(error);
                    let _ = e.complete(op.id, Outcome::Read(0));
                }),
            },
            Err(Readiness::NeedsBuffer(extent)) => match buffers.reserve(extent) {
                Ok(true) => engine.with(|e| e.admit(extent)),
                Ok(false) => return None,
                Err(error) => engine.with(|e| e.fail(error)),
            },
            Err(_) => return None,
        }
    }
}

/// Gives a complete chunk to its provider. An error of the provider ends the load.
pub fn complete_chunk<H: EngineHandle, P: BufferProvider>(engine: &H, buffers: &P, chunk: ChunkId, buffer: P::Buffer) {
    if let Err(error) = buffers.complete(chunk, buffer) {
        engine.with(|e| e.fail(error));
    }
}

/// What a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum WorkerState {
    /// A completion of its own source: call [`Worker::collect`].
    AwaitingCompletion,
    /// Other workers or memory: call [`EngineHandle::wait_for_capacity`], then [`Worker::fill`].
    AwaitingCapacity,
    /// Nothing. Its work is done.
    Done,
}

/// A worker: one source that executes reads of a load.
#[derive(Debug)]
pub struct Worker<S: ReadSource> {
    source: S,
    route: RouteId,
    completed: Vec<Completion<S::Buffer>>,
    /// Complete chunks that are not yet returned. Empty between two calls.
    whole: Vec<(ChunkId, S::Buffer)>,
}

impl<S: ReadSource> Worker<S> {
    /// Creates a worker of a route.
    pub fn new(source: S, route: RouteId) -> Self {
        let completed = Vec::with_capacity(source.capacity());
        Self { source, route, completed, whole: Vec::new() }
    }

    /// Returns its source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Runs until this source has nothing left to do.
    ///
    /// All reads are then issued or the load is over, and none of its own is in flight. The
    /// engine's [`result`](Engine::result) is the result of the load.
    pub fn run<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(mut self, engine: &H, buffers: &P) {
        loop {
            match self.fill(engine, buffers) {
                WorkerState::AwaitingCompletion if self.collect(engine, buffers).is_err() => return,
                WorkerState::AwaitingCompletion => {}
                WorkerState::AwaitingCapacity => engine.wait_for_capacity(self.route),
                WorkerState::Done => return,
            }
        }
    }

    /// Submits reads until the source is full or the engine has none. Never waits.
    pub fn fill<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
    ) -> WorkerState {
        self.submit_all(engine, buffers);
        if self.source.in_flight() > 0 {
            WorkerState::AwaitingCompletion
        } else if engine.with(|e| e.readiness(self.route) == Readiness::Exhausted) {
            WorkerState::Done
        } else {
            WorkerState::AwaitingCapacity
        }
    }

    fn submit_all<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(&mut self, engine: &H, buffers: &P) {
        let max = self.source.capacity().min(engine.with(|e| e.reads_per_worker(self.route)));
        while self.source.in_flight() < max {
            let Some((op, buffer)) = next_read(engine, buffers, self.route) else { break };
            self.submit(engine, buffers, op, buffer);
        }
    }

    /// Waits for a completion and processes all that are available.
    ///
    /// # Errors
    /// Fails if the source cannot continue. It keeps the buffers in flight: dropping it waits for
    /// the reads or leaks their buffers.
    pub fn collect<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
    ) -> Result<(), SourceError> {
        let completed = &mut self.completed;
        if let Err(error) = self.source.wait(&mut |completion| completed.push(completion)) {
            let message = error.0.clone();
            engine.with(|e| e.fail(Error::Platform { kind: ErrorKind::Io, message }));
            return Err(error);
        }
        while let Some(completion) = self.completed.pop() {
            self.on_completion(engine, buffers, completion);
        }
        while let Some((chunk, buffer)) = self.whole.pop() {
            self.submit_all(engine, buffers);
            self.source.flush();
            complete_chunk(engine, buffers, chunk, buffer);
        }
        Ok(())
    }

    /// Submits a read. A rejected read counts as an outcome and may lead to the next read of the
    /// chunk.
    fn submit<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
        mut op: ReadOp,
        mut buffer: S::Buffer,
    ) {
        loop {
            let Err(rejected) = self.source.submit(op, buffer) else { return };
            match engine.with(|e| e.complete(op.id, Outcome::Failed(rejected.fault))) {
                Disposition::Resubmit(next) => (op, buffer) = (next, rejected.buffer),
                Disposition::Complete(chunk) => return complete_chunk(engine, buffers, chunk, rejected.buffer),
                Disposition::Abandoned => return,
            }
        }
    }

    fn on_completion<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
        completion: Completion<S::Buffer>,
    ) {
        if seeded_bug!(DoubleCompletion) {
            let _ = engine.with(|e| e.complete(completion.id, completion.outcome));
        }
        match engine.with(|e| e.complete(completion.id, completion.outcome)) {
            Disposition::Complete(chunk) if buffers.completion_is_slow() => self.whole.push((chunk, completion.buffer)),
            Disposition::Complete(chunk) => complete_chunk(engine, buffers, chunk, completion.buffer),
            Disposition::Resubmit(op) => self.submit(engine, buffers, op, completion.buffer),
            Disposition::Abandoned => {}
        }
    }
}
