//! A source that reports what happens to its reads.

use crate::source::{Completion, Fault, Outcome, ReadId, ReadOp, ReadSource, Rejected, SourceError};

/// Receives reports of reads, in order.
///
/// Core has no clock. A tracer may have one, and measure the time between two calls.
pub trait Tracer {
    /// Called before a read is submitted. Some sources execute it during submission.
    fn submitting(&mut self, op: &ReadOp) {
        let _ = op;
    }

    /// Called after the source has accepted a read.
    fn submitted(&mut self, op: &ReadOp);
    /// Called after the source has rejected a read.
    fn rejected(&mut self, op: &ReadOp, fault: Fault);
    /// Called before waiting or flushing. All accepted reads are in progress from then on.
    fn waiting(&mut self) {}

    /// Called after a read has completed.
    fn completed(&mut self, id: ReadId, outcome: Outcome);
}

impl<T: Tracer + ?Sized> Tracer for alloc::boxed::Box<T> {
    fn submitting(&mut self, op: &ReadOp) {
        (**self).submitting(op);
    }

    fn submitted(&mut self, op: &ReadOp) {
        (**self).submitted(op);
    }

    fn rejected(&mut self, op: &ReadOp, fault: Fault) {
        (**self).rejected(op, fault);
    }

    fn waiting(&mut self) {
        (**self).waiting();
    }

    fn completed(&mut self, id: ReadId, outcome: Outcome) {
        (**self).completed(id, outcome);
    }
}

/// Ignores all reports.
impl Tracer for () {
    fn submitted(&mut self, _: &ReadOp) {}

    fn rejected(&mut self, _: &ReadOp, _: Fault) {}

    fn completed(&mut self, _: ReadId, _: Outcome) {}
}

/// A source that reports to a [`Tracer`].
#[derive(Debug)]
pub struct Traced<S, T> {
    inner: S,
    tracer: T,
}

impl<S: ReadSource, T: Tracer> Traced<S, T> {
    /// Creates a source that reports the reads of `inner` to `tracer`.
    pub fn new(inner: S, tracer: T) -> Self {
        Self { inner, tracer }
    }

    /// Returns the inner source.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: ReadSource, T: Tracer> ReadSource for Traced<S, T> {
    type Buffer = S::Buffer;

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn submit(&mut self, op: ReadOp, buffer: S::Buffer) -> Result<(), Rejected<S::Buffer>> {
        self.tracer.submitting(&op);
        let submitted = self.inner.submit(op, buffer);
        match &submitted {
            Ok(()) => self.tracer.submitted(&op),
            Err(rejected) => self.tracer.rejected(&op, rejected.fault),
        }
        submitted
    }

    fn flush(&mut self) {
        self.tracer.waiting();
        self.inner.flush();
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<S::Buffer>)) -> Result<(), SourceError> {
        let tracer = &mut self.tracer;
        tracer.waiting();
        self.inner.wait(&mut |completion| {
            tracer.completed(completion.id, completion.outcome);
            completed(completion);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Buffer;
    use crate::units::{ChunkId, FileId};
    use crate::write_only::WriteOnly;
    use alloc::boxed::Box;
    use alloc::format;
    use alloc::rc::Rc;
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    struct Nothing;

    impl Buffer for Nothing {
        fn memory(&mut self) -> WriteOnly<'_> {
            WriteOnly::new(&mut [])
        }
    }

    /// Accepts a number of reads, which all complete at once.
    struct Few(usize, Vec<ReadId>);

    impl ReadSource for Few {
        type Buffer = Nothing;

        fn capacity(&self) -> usize {
            self.0
        }

        fn in_flight(&self) -> usize {
            self.1.len()
        }

        fn submit(&mut self, op: ReadOp, buffer: Nothing) -> Result<(), Rejected<Nothing>> {
            if self.1.len() == self.0 {
                return Err(Rejected { buffer, fault: Fault::Again });
            }
            self.1.push(op.id);
            Ok(())
        }

        fn wait(&mut self, completed: &mut dyn FnMut(Completion<Nothing>)) -> Result<(), SourceError> {
            self.1.drain(..).for_each(|id| completed(Completion { id, buffer: Nothing, outcome: Outcome::Read(6) }));
            Ok(())
        }
    }

    struct Log(Rc<RefCell<Vec<String>>>);

    impl Tracer for Log {
        fn submitted(&mut self, op: &ReadOp) {
            self.0.borrow_mut().push(format!("{} submitted", op.id.slot));
        }

        fn rejected(&mut self, op: &ReadOp, fault: Fault) {
            self.0.borrow_mut().push(format!("{} rejected: {fault:?}", op.id.slot));
        }

        fn completed(&mut self, id: ReadId, outcome: Outcome) {
            self.0.borrow_mut().push(format!("{} completed: {outcome:?}", id.slot));
        }
    }

    #[test]
    fn what_is_told_is_what_happens() {
        let log = Rc::default();
        let tracer: Box<dyn Tracer> = Box::new(Log(Rc::clone(&log)));
        let mut source = Traced::new(Few(2, Vec::new()), tracer);
        assert_eq!((source.capacity(), source.inner().capacity()), (2, 2));
        let taken = [0, 1, 2].map(|slot| {
            let (id, chunk, file) = (ReadId { slot, generation: 0 }, ChunkId(0), FileId(0));
            let op = ReadOp { id, chunk, file, offset: 0, at: 0, len: 6, direct: false, attempt: 0 };
            source.submit(op, Nothing).map_err(|rejected| rejected.fault)
        });
        assert_eq!((taken, source.in_flight()), ([Ok(()), Ok(()), Err(Fault::Again)], 2));
        let mut completed = 0;
        source.wait(&mut |_| completed += 1).expect("never fails");
        assert_eq!((completed, source.in_flight()), (2, 0));
        let expected =
            ["0 submitted", "1 submitted", "2 rejected: Again", "0 completed: Read(6)", "1 completed: Read(6)"];
        assert_eq!(*log.borrow(), expected);
    }
}
