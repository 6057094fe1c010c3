//! Reads by `pread(2)` on the worker's own thread: one at a time, on any kernel, in any sandbox.

use super::{fault, pause};
use crate::files::OpenFile;
use floodtide_core::{Buffer, Completion, Outcome, ReadOp, ReadSource, Rejected};
use std::convert::Infallible;
use std::sync::Arc;

/// A source that has read by the time it is asked.
#[derive(Debug)]
pub(crate) struct PreadSource<B> {
    files: Arc<[OpenFile]>,
    done: Option<Completion<B>>,
}

impl<B: Buffer> PreadSource<B> {
    pub(crate) fn new(files: Arc<[OpenFile]>) -> Self {
        Self { files, done: None }
    }
}

/// Carries out one read, into the part of the buffer that it names.
pub(super) fn read<B: Buffer>(files: &[OpenFile], op: &ReadOp, buffer: &mut B) -> Outcome {
    if let Some(pause) = pause(op) {
        std::thread::sleep(pause);
    }
    let file = files[op.file.index()].descriptor(op.direct);
    let mut memory = buffer.memory().part(op.at..op.at + op.len);
    // SAFETY: the bytes are initialised, whatever they hold, and ours alone while `memory` lives; the kernel only writes.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr(), memory.len()) };
    match rustix::io::pread(file, memory, op.offset) {
        Ok(bytes) => Outcome::Read(bytes),
        Err(errno) => Outcome::Failed(fault(errno.raw_os_error())),
    }
}

impl<B: Buffer> ReadSource for PreadSource<B> {
    type Buffer = B;
    type Error = Infallible;

    fn capacity(&self) -> usize {
        1
    }

    fn in_flight(&self) -> usize {
        usize::from(self.done.is_some())
    }

    fn submit(&mut self, op: ReadOp, mut buffer: B) -> Result<(), Rejected<B>> {
        let outcome = read(&self.files, &op, &mut buffer);
        self.done = Some(Completion { id: op.id, buffer, outcome });
        Ok(())
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<B>)) -> Result<(), Infallible> {
        if let Some(completion) = self.done.take() {
            completed(completion);
        }
        Ok(())
    }
}
