//! A reference of the engine's state, which must hold after every step.

use crate::device::Device;
use floodtide_core::{
    Catalog, Disposition, Engine, Error, Event, ExtentId, Fault, FileId, Outcome, Plan, ReadId, ReadOp, Readiness,
    RouteId, TensorId, TensorInfo,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Actions of the platform that may end a load.
#[derive(Debug, Default)]
struct Causes {
    /// It violated the contract.
    broken: bool,
    /// A buffered read returned nothing.
    ended: bool,
    faults: Vec<Fault>,
}

/// An engine with its files and memory, and what is known of it.
pub struct Ledger {
    /// The engine.
    pub engine: Engine,
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    device: Device,
    max_in_flight_bytes: u64,
    /// The reads in flight.
    pub in_flight: Vec<ReadOp>,
    /// Completed reads.
    pub past: Vec<ReadId>,
    issued: usize,
    landed: HashSet<u32>,
    admitted: u32,
    ready: HashSet<TensorId>,
    refused: HashSet<FileId>,
    reported: HashSet<FileId>,
    causes: Causes,
    /// Why the load has failed. Never changes once set.
    failure: Option<Error>,
}

impl Ledger {
    /// Creates a load that has not started.
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, cut: Option<(FileId, u64)>, max_in_flight_bytes: u64) -> Self {
        Self {
            engine: Engine::new(Arc::clone(&catalog), Arc::clone(&plan), max_in_flight_bytes),
            device: Device::new(&catalog, &plan, cut),
            admitted: if plan.is_streamed() { 0 } else { u32::MAX },
            catalog,
            plan,
            max_in_flight_bytes,
            in_flight: Vec::new(),
            past: Vec::new(),
            issued: 0,
            landed: HashSet::new(),
            ready: HashSet::new(),
            refused: HashSet::new(),
            reported: HashSet::new(),
            causes: Causes::default(),
            failure: None,
        }
    }

    /// Requests a read. Returns whether there was one.
    pub fn issue(&mut self) -> bool {
        let readiness = self.engine.readiness(RouteId(0));
        let next = self.engine.next_read(RouteId(0));
        assert_eq!(next.is_some(), readiness == Readiness::Ready, "it does as it says");
        let Some(op) = next else {
            match readiness {
                Readiness::NeedsBuffer(extent) => assert_eq!(extent.0, self.admitted, "the first without a buffer"),
                Readiness::Full => assert!(!self.in_flight.is_empty(), "or nothing would ever come"),
                _ => assert!(self.failure.is_some() || self.issued == self.plan.chunks().len()),
            }
            return false;
        };
        assert_eq!(op.chunk.index(), self.issued, "each chunk once, in the plan's order");
        assert_eq!((op.at, op.attempt), (0, 0));
        let chunk = &self.plan.chunks()[op.chunk.index()];
        assert!(chunk.extent.0 < self.admitted, "no read before its buffer");
        assert!(!op.direct || !self.refused.contains(&op.file), "no direct read of a file that refused one");
        self.issued += 1;
        self.take(op);
        assert!(self.in_flight.len() == 1 || self.in_flight_bytes() <= self.max_in_flight_bytes);
        self.check();
        true
    }

    /// Completes a read in flight with at most `limit` bytes.
    pub fn bring(&mut self, at: usize, limit: usize) {
        let op = self.in_flight.swap_remove(at);
        let bytes = self.device.read(&self.plan, &op, limit);
        self.causes.ended |= bytes == 0 && !op.direct;
        self.complete(op, Outcome::Read(bytes));
    }

    /// Completes a read in flight with a fault.
    pub fn fault(&mut self, at: usize, fault: Fault) {
        let op = self.in_flight.swap_remove(at);
        self.causes.faults.push(fault);
        if op.direct && matches!(fault, Fault::Invalid | Fault::NotSupported) && self.failure.is_none() {
            self.refused.insert(op.file);
        }
        self.complete(op, Outcome::Failed(fault));
    }

    /// Completes a read in flight with more bytes than requested.
    pub fn bring_too_much(&mut self, at: usize) {
        let op = self.in_flight.swap_remove(at);
        self.causes.broken = true;
        self.complete(op, Outcome::Read(op.len + 1));
        assert!(self.failure.is_some());
    }

    /// Completes a read that is no longer in flight.
    pub fn complete_again(&mut self, at: usize, outcome: Outcome) {
        self.causes.broken = true;
        assert_eq!(self.engine.complete(self.past[at], outcome), Disposition::Abandoned);
        self.failed();
        assert!(self.failure.is_some());
        self.check();
    }

    /// Admits an extent and all before it.
    pub fn admit(&mut self, extent: u32) {
        self.engine.admit(ExtentId(extent));
        self.admitted = self.admitted.max(extent.saturating_add(1));
        assert_eq!(self.engine.admitted(), self.admitted);
        self.check();
    }

    /// Cancels the load.
    pub fn cancel(&mut self) {
        let whole = self.landed.len() == self.plan.chunks().len();
        self.engine.cancel();
        if self.failure.is_none() && !whole {
            self.failure = Some(Error::Cancelled);
        }
        self.check();
    }

    /// Processes the events.
    pub fn events(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::TensorReady(id) => {
                    assert!(self.ready.insert(id), "each tensor once");
                    let placement = self.plan.placements().iter().position(|placement| placement.tensor == id);
                    let placement = placement.expect("a tensor of the plan");
                    assert!(self.device.holds_tensor(&self.catalog, &self.plan, placement), "its bytes are in");
                }
                Event::DirectRefused(file) => {
                    assert!(self.reported.insert(file) && self.refused.contains(&file), "each file once");
                }
                _ => {}
            }
        }
        assert_eq!(self.ready.len(), self.engine.progress().tensors_done);
        assert_eq!(self.reported, self.refused);
    }

    /// Finishes the load, and checks how it ended.
    pub fn finish(mut self) {
        let mut steps = 0;
        while !self.engine.is_finished() {
            steps += 1;
            assert!(steps < 100_000, "the load does not end");
            if self.issue() {
                continue;
            }
            if let Readiness::NeedsBuffer(extent) = self.engine.readiness(RouteId(0)) {
                self.admit(extent.0);
            } else {
                assert!(!self.in_flight.is_empty(), "nothing in flight, and yet it is not finished");
                self.bring(0, usize::MAX);
            }
        }
        self.events();
        assert!(self.in_flight.is_empty());
        match self.engine.result() {
            Ok(()) => {
                assert!(self.failure.is_none() && !self.causes.broken);
                assert_eq!(self.ready.len(), self.plan.placements().len());
                assert_eq!(self.landed.len(), self.plan.chunks().len());
                for placement in 0..self.plan.placements().len() {
                    assert!(self.device.holds_tensor(&self.catalog, &self.plan, placement), "a byte is wrong");
                }
            }
            Err(error) => assert_eq!(Some(error), self.failure),
        }
    }

    fn complete(&mut self, op: ReadOp, outcome: Outcome) {
        self.past.push(op.id);
        let disposition = self.engine.complete(op.id, outcome);
        match disposition {
            Disposition::Complete(id) => {
                assert!(id == op.chunk && self.failure.is_none());
                assert!(self.landed.insert(id.0), "each chunk once");
                let chunk = &self.plan.chunks()[id.index()];
                assert!(self.device.holds(&self.plan, chunk, chunk.payload_len), "a chunk that is not whole");
            }
            Disposition::Resubmit(next) => {
                assert!(next.chunk == op.chunk && self.failure.is_none());
                let chunk = &self.plan.chunks()[next.chunk.index()];
                assert!(self.device.holds(&self.plan, chunk, next.at), "what is not read again is in");
                self.take(next);
            }
            Disposition::Abandoned => assert!(self.engine.has_failed()),
        }
        self.failed();
        self.check();
    }

    fn take(&mut self, op: ReadOp) {
        assert!(self.in_flight.iter().all(|other| other.id.number() != op.id.number()), "a number for each in flight");
        self.in_flight.push(op);
    }

    /// Records why the load has just failed, and checks that there is a cause.
    fn failed(&mut self) {
        if self.failure.is_some() || !self.engine.has_failed() {
            return;
        }
        let error = self.engine.result().expect_err("it has failed");
        match &error {
            Error::Contract { .. } => assert!(self.causes.broken),
            Error::Truncated { tensor, expected, found, .. } => {
                assert!(self.causes.ended);
                assert!(found < expected);
                assert_eq!(*expected, self.named(tensor, *found).range.end());
            }
            Error::Read { tensor, offset, fault, .. } => {
                assert!(self.causes.faults.contains(fault));
                self.named(tensor, *offset);
            }
            other => panic!("nothing that happened explains: {other}"),
        }
        self.failure = Some(error);
    }

    /// Returns the tensor that an error names. It must end after the offset that the error names.
    fn named(&self, name: &str, offset: u64) -> TensorInfo<'_> {
        let named = self.catalog.find(name).unwrap_or_else(|| panic!("no tensor is \"{name}\""));
        assert!(offset < named.range.end(), "tensor \"{name}\" is whole before byte {offset}");
        named
    }

    fn in_flight_bytes(&self) -> u64 {
        self.in_flight.iter().map(|op| self.plan.chunks()[op.chunk.index()].buffer_range.len() as u64).sum()
    }

    fn check(&self) {
        let engine = &self.engine;
        assert_eq!((engine.in_flight(), engine.in_flight_bytes()), (self.in_flight.len(), self.in_flight_bytes()));
        let exhausted = self.failure.is_some() || self.issued == self.plan.chunks().len();
        assert_eq!(engine.is_exhausted(), exhausted);
        assert_eq!(engine.is_finished(), exhausted && self.in_flight.is_empty());
        assert_eq!(engine.has_failed(), self.failure.is_some());
        if let Some(failure) = &self.failure {
            assert_eq!(engine.result().as_ref(), Err(failure), "the first failure counts");
        }
        let progress = engine.progress();
        let landed = self.landed.iter().map(|&id| self.plan.chunks()[id as usize].payload_len as u64).sum::<u64>();
        assert_eq!((progress.bytes_done, progress.bytes_total), (landed, self.plan.read_bytes()));
        assert_eq!(progress.tensors_total, self.plan.placements().len());
    }
}
