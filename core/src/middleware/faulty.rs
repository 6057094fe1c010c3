//! A source that injects faults.

use crate::source::{Buffer, Completion, Fault, Outcome, ReadId, ReadOp, ReadSource, Rejected, SourceError};
use alloc::vec::Vec;

/// What happens to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// It is executed.
    None,
    /// It is executed, but reports only this many bytes. The others are overwritten, so that using
    /// them is detected.
    Short(usize),
    /// It is executed, but this byte of its result is wrong.
    Corrupt(usize),
    /// It completes with this outcome without being executed.
    Answer(Outcome),
    /// It is rejected.
    Reject(Fault),
}

/// Chooses the faults to inject.
pub trait Faults {
    /// Returns what happens to this read.
    fn inject(&mut self, op: &ReadOp) -> Injection;

    /// Returns which of `completions` completions (at least one) comes first. The others may come
    /// later.
    fn pick(&mut self, completions: usize) -> usize {
        let _ = completions;
        0
    }

    /// Returns true if available completions may wait for a later call, so that they mix with
    /// others.
    fn holds_back(&mut self) -> bool {
        false
    }
}

impl<F: Faults + ?Sized> Faults for alloc::boxed::Box<F> {
    fn inject(&mut self, op: &ReadOp) -> Injection {
        (**self).inject(op)
    }

    fn pick(&mut self, completions: usize) -> usize {
        (**self).pick(completions)
    }

    fn holds_back(&mut self) -> bool {
        (**self).holds_back()
    }
}

/// Overwrites the bytes that a short read did not return.
const NOT_READ: u8 = 0xa5;

/// A source with faults that a [`Faults`] chooses.
#[derive(Debug)]
pub struct Faulty<S: ReadSource, F> {
    inner: S,
    faults: F,
    spoiled: Vec<Spoiled>,
    /// Completions that are held back.
    held: Vec<Completion<S::Buffer>>,
}

impl<S: ReadSource, F: Faults> Faulty<S, F> {
    /// Creates a source that injects `faults` into the reads of `inner`.
    pub fn new(inner: S, faults: F) -> Self {
        Self { inner, faults, spoiled: Vec::new(), held: Vec::new() }
    }

    /// Returns the inner source.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Returns true if completions are held back here, which the inner source no longer counts.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty()
    }
}

impl<S: ReadSource, F: Faults> ReadSource for Faulty<S, F> {
    type Buffer = S::Buffer;

    fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    fn submit(&mut self, op: ReadOp, buffer: S::Buffer) -> Result<(), Rejected<S::Buffer>> {
        match self.faults.inject(&op) {
            Injection::None => self.inner.submit(op, buffer),
            injection @ (Injection::Short(_) | Injection::Corrupt(_)) => {
                self.inner.submit(op, buffer)?;
                self.spoiled.push(Spoiled { id: op.id, at: op.at, injection });
                Ok(())
            }
            Injection::Answer(outcome) => {
                self.held.push(Completion { id: op.id, buffer, outcome });
                Ok(())
            }
            Injection::Reject(fault) => Err(Rejected { buffer, fault }),
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn wait(&mut self, completed: &mut dyn FnMut(Completion<S::Buffer>)) -> Result<(), SourceError> {
        let Self { inner, faults, spoiled, held } = self;
        if held.is_empty() || (inner.in_flight() > 0 && faults.holds_back()) {
            inner.wait(&mut |mut completion| {
                if let Some(at) = spoiled.iter().position(|spoiled| spoiled.id == completion.id) {
                    spoiled.swap_remove(at).apply(&mut completion);
                }
                held.push(completion);
            })?;
        }
        while !held.is_empty() {
            let next = faults.pick(held.len()).min(held.len() - 1);
            completed(held.swap_remove(next));
            if faults.holds_back() {
                break;
            }
        }
        Ok(())
    }
}

/// A read that will be short or wrong.
#[derive(Debug)]
struct Spoiled {
    id: ReadId,
    /// Its offset in the buffer.
    at: usize,
    /// The fault.
    injection: Injection,
}

impl Spoiled {
    fn apply<B: Buffer>(&self, completion: &mut Completion<B>) {
        let Outcome::Read(bytes) = &mut completion.outcome else { return };
        match self.injection {
            Injection::Short(counts) if *bytes > counts => {
                completion.buffer.memory().part(self.at + counts..self.at + *bytes).fill(NOT_READ);
                *bytes = counts;
            }
            Injection::Corrupt(byte) if *bytes > byte => completion.buffer.memory().flip(self.at + byte, 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ChunkId, FileId};
    use crate::write_only::WriteOnly;
    use alloc::boxed::Box;
    use alloc::vec;

    struct Bytes(Vec<u8>);

    impl Buffer for Bytes {
        fn memory(&mut self) -> WriteOnly<'_> {
            WriteOnly::new(&mut self.0)
        }
    }

    /// Fills the requested bytes with ones.
    #[derive(Default)]
    struct Ones(Vec<Completion<Bytes>>);

    impl ReadSource for Ones {
        type Buffer = Bytes;

        fn capacity(&self) -> usize {
            4
        }

        fn in_flight(&self) -> usize {
            self.0.len()
        }

        fn submit(&mut self, op: ReadOp, mut buffer: Bytes) -> Result<(), Rejected<Bytes>> {
            buffer.memory().part(op.at..op.at + op.len).fill(1);
            self.0.push(Completion { id: op.id, buffer, outcome: Outcome::Read(op.len) });
            Ok(())
        }

        fn wait(&mut self, completed: &mut dyn FnMut(Completion<Bytes>)) -> Result<(), SourceError> {
            assert!(!self.0.is_empty(), "it would wait without end");
            self.0.drain(..).for_each(completed);
            Ok(())
        }
    }

    struct Script(Vec<Injection>);

    impl Faults for Script {
        fn inject(&mut self, _: &ReadOp) -> Injection {
            self.0.remove(0)
        }
    }

    fn op(slot: u32) -> ReadOp {
        ReadOp {
            id: ReadId { slot, generation: 0 },
            chunk: ChunkId(slot),
            file: FileId(0),
            offset: 0,
            at: 2,
            len: 6,
            direct: false,
            attempt: 0,
        }
    }

    #[test]
    fn each_injection_does_what_it_says() {
        let script = Script(vec![
            Injection::Short(3),
            Injection::None,
            Injection::Answer(Outcome::Failed(Fault::Io)),
            Injection::Reject(Fault::Again),
        ]);
        let mut source = Faulty::new(Ones::default(), script);
        for slot in 0..3 {
            assert!(source.submit(op(slot), Bytes(vec![0; 10])).is_ok());
        }
        let rejected = source.submit(op(3), Bytes(vec![0; 10])).expect_err("the last one");
        assert_eq!(rejected.fault, Fault::Again);
        assert_eq!(source.in_flight(), 3);
        let mut seen = Vec::new();
        while source.in_flight() > 0 {
            let collect = &mut |completion: Completion<Bytes>| {
                seen.push((completion.id.slot, completion.outcome, completion.buffer.0));
            };
            assert!(source.wait(collect).is_ok());
        }
        seen.sort_by_key(|(slot, ..)| *slot);
        let outcomes: Vec<Outcome> = seen.iter().map(|(_, outcome, _)| *outcome).collect();
        assert_eq!(outcomes, [Outcome::Read(3), Outcome::Read(6), Outcome::Failed(Fault::Io)]);
        assert_eq!(seen[0].2, [0, 0, 1, 1, 1, NOT_READ, NOT_READ, NOT_READ, 0, 0]);
        assert_eq!(seen[2].2, [0; 10]);
    }

    /// Executes all reads, and chooses the order of the completions.
    struct Mixed {
        picks: Vec<usize>,
        holds_back: Vec<bool>,
    }

    impl Faults for Mixed {
        fn inject(&mut self, _: &ReadOp) -> Injection {
            Injection::None
        }

        fn pick(&mut self, _: usize) -> usize {
            self.picks.remove(0)
        }

        fn holds_back(&mut self) -> bool {
            self.holds_back.remove(0)
        }
    }

    fn collected<S: ReadSource<Buffer = Bytes>>(source: &mut S) -> Vec<u32> {
        let mut slots = Vec::new();
        source.wait(&mut |completion| slots.push(completion.id.slot)).expect("never fails");
        slots
    }

    #[test]
    fn completions_come_in_the_order_that_is_picked_and_may_wait_for_others() {
        let holds_back = vec![true, true, true, false, false, true];
        let mixed: Box<dyn Faults> = Box::new(Mixed { picks: vec![2, 1, 9, 0], holds_back });
        let mut source = Faulty::new(Ones::default(), mixed);
        assert_eq!((source.capacity(), source.has_held()), (source.inner().capacity(), false));
        for slot in 0..3 {
            assert!(source.submit(op(slot), Bytes(vec![0; 10])).is_ok());
        }
        assert_eq!(collected(&mut source), [2], "the others are held back");
        assert!(source.submit(op(3), Bytes(vec![0; 10])).is_ok());
        assert!(source.has_held() && source.in_flight() == 3 && source.inner().in_flight() == 1);
        assert_eq!(collected(&mut source), [1], "the fourth has mixed with them");
        assert_eq!(collected(&mut source), [3, 0], "no pick is past the last");
        assert!(!source.has_held() && source.in_flight() == 0);
    }

    #[test]
    fn nothing_in_flight_is_not_waited_for() {
        struct Patient;
        impl Faults for Patient {
            fn inject(&mut self, _: &ReadOp) -> Injection {
                Injection::Answer(Outcome::Read(0))
            }
            fn holds_back(&mut self) -> bool {
                true
            }
        }
        let mut source = Faulty::new(Ones::default(), Patient);
        for slot in 0..2 {
            assert!(source.submit(op(slot), Bytes(vec![0; 10])).is_ok());
        }
        assert_eq!([collected(&mut source), collected(&mut source)], [[0], [1]]);
    }

    #[test]
    fn faults_that_say_nothing_more_pass_everything_on_as_it_came() {
        let mut source = Faulty::new(Ones::default(), Script(vec![Injection::None; 2]));
        for slot in 0..2 {
            assert!(source.submit(op(slot), Bytes(vec![0; 10])).is_ok());
        }
        assert_eq!(collected(&mut source), [0, 1]);
    }

    #[test]
    fn a_wrong_byte_is_one_of_those_that_were_read() {
        let mut source = Faulty::new(Ones::default(), Script([5, 0, 6].map(Injection::Corrupt).to_vec()));
        for slot in 0..3 {
            assert!(source.submit(op(slot), Bytes(vec![0; 10])).is_ok());
        }
        let mut seen = Vec::new();
        let waited = source.wait(&mut |completion| {
            assert_eq!(completion.outcome, Outcome::Read(6));
            seen.push((completion.id.slot, completion.buffer.0));
        });
        waited.expect("never fails");
        seen.sort();
        let whole = [0, 0, 1, 1, 1, 1, 1, 1, 0, 0];
        assert_eq!(seen[0].1, [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!((seen[1].1[2], &seen[1].1[3..]), (0, &whole[3..]));
        assert_eq!(seen[2].1, whole, "it returned fewer bytes");
    }

    #[test]
    fn a_read_that_was_short_already_is_not_made_longer() {
        let mut source = Faulty::new(Ones::default(), Script(vec![Injection::Short(7)]));
        assert!(source.submit(op(0), Bytes(vec![0; 10])).is_ok());
        let waited = source.wait(&mut |completion| {
            assert_eq!(completion.outcome, Outcome::Read(6));
            assert_eq!(completion.buffer.0, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]);
        });
        waited.expect("never fails");
    }
}
