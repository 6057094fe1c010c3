//! The loop that couples the engine with one source; every platform runs this one, the simulator too.

use super::{Disposition, Engine, Readiness};
use crate::error::Error;
use crate::seeded_bug::seeded_bug;
use crate::source::{Buffer, Completion, Outcome, ReadOp, ReadSource, SourceError};
use crate::units::{ChunkId, ExtentId, RouteId};
use alloc::vec::Vec;

/// An engine shared by workers: a mutex on a platform with threads, a cell in a simulator.
pub trait EngineHandle {
    /// Runs `f` with the engine to itself.
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R;

    /// Waits until the engine may have a read of a route to hand out, or a buffer that [`BufferProvider::reserve`] did not have. Called
    /// by a worker that has nothing in flight itself. May return early.
    fn wait_for_capacity(&self, route: RouteId);
}

/// Gives each chunk the buffer that it is read into, and takes the buffer back when the chunk is whole.
pub trait BufferProvider {
    /// The memory.
    type Buffer: Buffer;

    /// Gets the memory of an extent of a stream, so that [`buffer_for`](Self::buffer_for) can give buffers to its chunks. Returns false when
    /// there is none just now; it is then asked for again, by any worker. Must not wait: reads in flight may be what brings memory back.
    ///
    /// # Errors
    /// When there will never be any, which ends the load.
    fn reserve(&self, extent: ExtentId) -> Result<bool, Error>;

    /// Returns the buffer of a chunk, as long as its slot. Called once per chunk.
    ///
    /// # Errors
    /// When there is none, which ends the load.
    fn buffer_for(&self, chunk: ChunkId) -> Result<Self::Buffer, Error>;

    /// Takes back the buffer of a chunk that is whole.
    ///
    /// # Errors
    /// When what was read is not what it should be, which ends the load.
    fn complete(&self, chunk: ChunkId, buffer: Self::Buffer) -> Result<(), Error>;

    /// Returns true when [`complete`](Self::complete) is work that takes its time. A worker then submits what it can before each, so that
    /// the device has something to do meanwhile; what is not complete yet is memory on top of what is in flight.
    fn completion_is_slow(&self) -> bool {
        false
    }

    /// Learns that nothing more will complete: the load has failed, or else every worker is gone. May come more than once.
    fn finish(&self, failed: bool) {
        let _ = failed;
    }
}

/// The engine's next read of a route with its buffer; `None` when there is nothing to do now.
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

/// Gives a whole chunk to its provider; what it finds wrong ends the load.
pub fn land<H: EngineHandle, P: BufferProvider>(engine: &H, buffers: &P, chunk: ChunkId, buffer: P::Buffer) {
    if let Err(error) = buffers.complete(chunk, buffer) {
        engine.with(|e| e.fail(error));
    }
}

/// What a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum WorkerState {
    /// A completion of its own: [`Worker::collect`].
    AwaitingCompletion,
    /// Other workers or memory: [`EngineHandle::wait_for_capacity`], then [`Worker::fill`].
    AwaitingCapacity,
    /// Nothing: its work is done.
    Done,
}

/// One source at work on a load.
#[derive(Debug)]
pub struct Worker<S: ReadSource> {
    source: S,
    route: RouteId,
    completed: Vec<Completion<S::Buffer>>,
    /// Chunks that are whole and not given back yet; empty between two calls.
    whole: Vec<(ChunkId, S::Buffer)>,
}

impl<S: ReadSource> Worker<S> {
    /// A worker of a route with its source.
    pub fn new(source: S, route: RouteId) -> Self {
        let completed = Vec::with_capacity(source.capacity());
        Self { source, route, completed, whole: Vec::new() }
    }

    /// Its source.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Works until nothing is left for this source: everything is issued or the load is over, and nothing of its own is
    /// in flight. How the load ended is the engine's [`result`](Engine::result).
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

    /// Submits reads until the source is full or the engine gives none. Never waits.
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

    /// Waits for a completion, and absorbs all that are there.
    ///
    /// # Errors
    /// When the source can go on no more. What is in flight stays with it: it waits for that or leaks it when it is dropped.
    pub fn collect<H: EngineHandle, P: BufferProvider<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
    ) -> Result<(), SourceError> {
        let completed = &mut self.completed;
        if let Err(error) = self.source.wait(&mut |completion| completed.push(completion)) {
            let message = error.0.clone();
            engine.with(|e| e.fail(Error::Platform { message }));
            return Err(error);
        }
        while let Some(completion) = self.completed.pop() {
            self.on_completion(engine, buffers, completion);
        }
        while let Some((chunk, buffer)) = self.whole.pop() {
            self.submit_all(engine, buffers);
            self.source.flush();
            land(engine, buffers, chunk, buffer);
        }
        Ok(())
    }

    /// Submits one read; a refusal is an outcome like any other, and may bring the same chunk's next read.
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
                Disposition::Landed(chunk) => return land(engine, buffers, chunk, rejected.buffer),
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
            Disposition::Landed(chunk) if buffers.completion_is_slow() => self.whole.push((chunk, completion.buffer)),
            Disposition::Landed(chunk) => land(engine, buffers, chunk, completion.buffer),
            Disposition::Resubmit(op) => self.submit(engine, buffers, op, completion.buffer),
            Disposition::Abandoned => {}
        }
    }
}
