//! The loop that couples the engine with one source; every platform runs this one, the simulator too.

use super::{Disposition, Engine};
use crate::error::Error;
use crate::source::{Buffer, Completion, Outcome, ReadOp, ReadSource};
use crate::units::ChunkId;
use alloc::string::ToString;
use alloc::vec::Vec;

/// An engine shared by workers: a mutex on a platform with threads, a cell in a simulator.
pub trait EngineHandle {
    /// Runs `f` with the engine to itself.
    fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R;

    /// Waits until another worker has completed a read. Called by a worker that has nothing in flight while the engine
    /// has work that its limit of bytes in flight holds back.
    fn wait_for_room(&self);
}

/// Where chunks' buffers come from and go to.
pub trait BufferSupply {
    /// The memory.
    type Buffer: Buffer;

    /// The buffer of a chunk, as long as its slot. Asked for once per chunk.
    ///
    /// # Errors
    /// When there is none, which ends the load.
    fn take(&self, chunk: ChunkId) -> Result<Self::Buffer, Error>;

    /// Takes back the buffer of a chunk that is whole.
    fn landed(&self, chunk: ChunkId, buffer: Self::Buffer);
}

/// One source at work on a load.
#[derive(Debug)]
pub struct Worker<S: ReadSource> {
    source: S,
    completed: Vec<Completion<S::Buffer>>,
}

impl<S: ReadSource> Worker<S> {
    /// A worker with its source.
    pub fn new(source: S) -> Self {
        let completed = Vec::with_capacity(source.capacity());
        Self { source, completed }
    }

    /// Works until nothing is left for this source: everything is issued or the load is over, and nothing of its own is
    /// in flight. How the load ended is the engine's [`result`](Engine::result).
    pub fn run<H: EngineHandle, P: BufferSupply<Buffer = S::Buffer>>(mut self, engine: &H, buffers: &P) {
        loop {
            self.fill(engine, buffers);
            if self.source.in_flight() > 0 {
                let completed = &mut self.completed;
                if let Err(error) = self.source.wait(&mut |completion| completed.push(completion)) {
                    let message = error.to_string();
                    engine.with(|e| e.fail(Error::Platform { message }));
                    // What is in flight stays with the source, which waits for it or leaks it when it is dropped.
                    return;
                }
            } else if engine.with(|e| e.is_exhausted()) {
                return;
            } else {
                engine.wait_for_room();
            }
            while let Some(completion) = self.completed.pop() {
                self.absorb(engine, buffers, completion);
            }
        }
    }

    /// Submits reads until the source is full or the engine gives none.
    fn fill<H: EngineHandle, P: BufferSupply<Buffer = S::Buffer>>(&mut self, engine: &H, buffers: &P) {
        while self.source.in_flight() < self.source.capacity() {
            let Some(op) = engine.with(Engine::next_read) else { return };
            match buffers.take(op.chunk) {
                Ok(buffer) => self.submit(engine, buffers, op, buffer),
                Err(error) => {
                    engine.with(|e| {
                        e.fail(error);
                        let _ = e.complete(op.id, Outcome::Read(0));
                    });
                }
            }
        }
    }

    /// Submits one read; a refusal is an outcome like any other, and may bring the same chunk's next read.
    fn submit<H: EngineHandle, P: BufferSupply<Buffer = S::Buffer>>(
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
                Disposition::Landed(chunk) => return buffers.landed(chunk, rejected.buffer),
                Disposition::Abandoned => return,
            }
        }
    }

    fn absorb<H: EngineHandle, P: BufferSupply<Buffer = S::Buffer>>(
        &mut self,
        engine: &H,
        buffers: &P,
        completion: Completion<S::Buffer>,
    ) {
        match engine.with(|e| e.complete(completion.id, completion.outcome)) {
            Disposition::Landed(chunk) => buffers.landed(chunk, completion.buffer),
            Disposition::Resubmit(op) => self.submit(engine, buffers, op, completion.buffer),
            Disposition::Abandoned => {}
        }
    }
}
