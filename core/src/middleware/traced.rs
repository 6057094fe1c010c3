//! A source that tells what happens.

use crate::source::{Completion, Fault, Outcome, ReadId, ReadOp, ReadSource, Rejected};

/// Is told what happens to reads, in order. Core has no clock; a tracer may have one, and what lies between two calls is then
/// what took the time.
pub trait Tracer {
    /// The source is about to be given a read, which some sources carry out before they return.
    fn submitting(&mut self, op: &ReadOp) {
        let _ = op;
    }

    /// The source has taken a read.
    fn submitted(&mut self, op: &ReadOp);
    /// The source did not take a read.
    fn rejected(&mut self, op: &ReadOp, fault: Fault);
    /// The source is about to be waited for: whatever it has taken is under way from here on.
    fn waiting(&mut self) {}

    /// A read has completed.
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

/// Nobody is told.
impl Tracer for () {
    fn submitted(&mut self, _: &ReadOp) {}

    fn rejected(&mut self, _: &ReadOp, _: Fault) {}

    fn completed(&mut self, _: ReadId, _: Outcome) {}
}

/// Another source, watched by a [`Tracer`].
#[derive(Debug)]
pub struct Traced<S, T> {
    inner: S,
    tracer: T,
}

impl<S: ReadSource, T: Tracer> Traced<S, T> {
    /// Reads of `inner`, of which `tracer` is told.
    pub fn new(inner: S, tracer: T) -> Self {
        Self { inner, tracer }
    }

    /// The source within.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: ReadSource, T: Tracer> ReadSource for Traced<S, T> {
    type Buffer = S::Buffer;
    type Error = S::Error;

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

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<S::Buffer>)) -> Result<(), S::Error> {
        let tracer = &mut self.tracer;
        tracer.waiting();
        self.inner.wait(&mut |completion| {
            tracer.completed(completion.id, completion.outcome);
            completed(completion);
        })
    }
}
