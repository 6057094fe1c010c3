//! A source of reads over files in memory.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::convert::Infallible;
use floodtide_core::{Alignment, Buffer, Completion, Fault, Outcome, ReadOp, ReadSource, Rejected, WriteOnly};

/// A chunk's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryBuffer(pub Vec<u8>);

impl Buffer for MemoryBuffer {
    fn memory(&mut self) -> WriteOnly<'_> {
        WriteOnly::new(&mut self.0)
    }
}

/// Reads files that lie in memory, with the rules of a real device: a direct read must keep the alignment, and ends at the
/// file's end.
#[derive(Debug)]
pub struct MemorySource {
    files: Rc<[Vec<u8>]>,
    alignment: Alignment,
    depth: usize,
    queue: VecDeque<Completion<MemoryBuffer>>,
}

impl MemorySource {
    /// A source over these files, by their number in the catalog. Direct reads must be aligned to `alignment`; up to `depth`
    /// reads are kept in flight and completed in the order of their submission.
    #[must_use]
    pub fn new(files: Rc<[Vec<u8>]>, alignment: Alignment, depth: usize) -> Self {
        Self { files, alignment, depth: depth.max(1), queue: VecDeque::new() }
    }

    fn read(&self, op: &ReadOp, mut memory: WriteOnly<'_>) -> Outcome {
        if op.direct && !(self.alignment.divides(op.offset) && self.alignment.divides(op.len as u64)) {
            return Outcome::Failed(Fault::Invalid);
        }
        let Some(file) = self.files.get(op.file.index()) else { return Outcome::Failed(Fault::Io) };
        let rest = usize::try_from(op.offset).ok().and_then(|start| file.get(start..)).unwrap_or(&[]);
        let bytes = rest.len().min(op.len);
        memory.write(op.at, &rest[..bytes]);
        Outcome::Read(bytes)
    }
}

impl ReadSource for MemorySource {
    type Buffer = MemoryBuffer;
    type Error = Infallible;

    fn capacity(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn submit(&mut self, op: ReadOp, mut buffer: MemoryBuffer) -> Result<(), Rejected<MemoryBuffer>> {
        if self.queue.len() >= self.depth {
            return Err(Rejected { buffer, fault: Fault::Again });
        }
        let outcome = self.read(&op, buffer.memory());
        self.queue.push_back(Completion { id: op.id, buffer, outcome });
        Ok(())
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<MemoryBuffer>)) -> Result<(), Infallible> {
        if let Some(completion) = self.queue.pop_front() {
            completed(completion);
        }
        Ok(())
    }
}
