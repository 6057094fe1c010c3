//! Simulated storage: files on devices with latency, bandwidth, a queue, and rules for direct
//! reads.

use crate::clock::Clock;
use crate::draw::Draw;
use crate::files::SimFile;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::storage::Link;
use floodtide_core::{
    Alignment, Buffer, ByteRange, Completion, DirectLimits, Fault, Outcome, ReadOp, ReadSource, Rejected, SourceError,
    WriteOnly,
};

/// Memory at an address of the world.
#[derive(Debug)]
pub struct SimChunk {
    /// The address.
    pub address: u64,
    /// The contents.
    pub bytes: Vec<u8>,
}

impl Buffer for SimChunk {
    fn memory(&mut self) -> WriteOnly<'_> {
        WriteOnly::new(&mut self.bytes)
    }
}

/// The memory that reads in flight fill.
#[derive(Debug, Default)]
pub struct Flight {
    /// The end of each range, by its start.
    ranges: BTreeMap<u64, u64>,
    /// The bytes of chunks in flight, and their maximum so far.
    bytes: u64,
    peak: u64,
}

impl Flight {
    /// Returns true if a read in flight fills a part of this range.
    #[must_use]
    pub fn touches(&self, start: u64, end: u64) -> bool {
        self.ranges.range(..end).next_back().is_some_and(|(_, &to)| to > start)
    }

    /// Returns the maximum number of bytes that were in flight.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Returns true if nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds a range. Returns false if another read fills a part of it.
    fn enter(&mut self, start: u64, end: u64, chunk: u64) -> bool {
        let free = !self.touches(start, end);
        self.ranges.insert(start, end);
        self.bytes += chunk;
        self.peak = self.peak.max(self.bytes);
        free
    }

    fn leave(&mut self, start: u64, chunk: u64) {
        self.ranges.remove(&start);
        self.bytes -= chunk;
    }
}

/// The behaviour of a file's device.
#[derive(Debug, Clone)]
pub struct FileDevice {
    /// The limits of direct reads that it reports.
    pub says: Option<DirectLimits>,
    /// The limits that it enforces.
    pub asks: DirectLimits,
    /// The minimum latency in nanoseconds.
    pub latency: u64,
    /// The part of the file that it reports as cached.
    pub cached: Option<ByteRange>,
}

/// The storage state that all workers share.
#[derive(Debug)]
pub struct SimStorage {
    /// Returns the files.
    pub files: Rc<[SimFile]>,
    /// Their devices.
    pub devices: Vec<FileDevice>,
    /// The link to all devices.
    pub link: RefCell<Link>,
    /// The share of reads that take a hundred times as long, in millionths.
    pub tail: u32,
    /// The clock.
    pub clock: Clock,
    /// The memory that is being filled.
    pub flight: RefCell<Flight>,
    /// The violated rules.
    pub broken_rules: RefCell<Vec<&'static str>>,
}

#[derive(Debug)]
struct Pending {
    due: u64,
    op: ReadOp,
    buffer: SimChunk,
}

/// A queue of reads of the storage.
#[derive(Debug)]
pub struct SimSource {
    storage: Rc<SimStorage>,
    depth: usize,
    draw: Draw,
    pending: Vec<Pending>,
}

impl SimSource {
    /// Creates a source with a queue of `depth` reads.
    #[must_use]
    pub fn new(storage: Rc<SimStorage>, depth: usize, draw: Draw) -> Self {
        Self { storage, depth: depth.max(1), draw, pending: Vec::new() }
    }

    /// Returns when the next read completes, or `None` if none is in flight.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.pending.iter().map(|pending| pending.due).min()
    }

    fn latency(&mut self, op: &ReadOp) -> u64 {
        let base = self.storage.devices[op.file.index()].latency;
        let varied = base + self.draw.number(0..=base / 2);
        if self.draw.chance(self.storage.tail) { varied.saturating_mul(100) } else { varied }
    }
}

impl SimStorage {
    fn carry_out(&self, op: &ReadOp, buffer: &mut SimChunk) -> Outcome {
        let device = &self.devices[op.file.index()];
        if op.direct {
            let address = buffer.address + op.at as u64;
            let aligned = device.asks.offset.divides(op.offset)
                && device.asks.offset.divides(op.len as u64)
                && device.asks.memory.divides(address);
            if !aligned {
                return Outcome::Failed(Fault::Invalid);
            }
        }
        let mut memory = buffer.memory().part(op.at..op.at + op.len);
        let mut bytes = alloc::vec![0; op.len];
        let there = self.files[op.file.index()].read(op.offset, &mut bytes);
        memory.write(0, &bytes[..there]);
        Outcome::Read(there)
    }
}

impl ReadSource for SimSource {
    type Buffer = SimChunk;

    fn capacity(&self) -> usize {
        self.depth
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn submit(&mut self, op: ReadOp, buffer: SimChunk) -> Result<(), Rejected<SimChunk>> {
        let storage = Rc::clone(&self.storage);
        if self.pending.len() >= self.depth {
            storage.broken_rules.borrow_mut().push("a read was submitted to a full queue");
            return Err(Rejected { buffer, fault: Fault::Again });
        }
        if op.at + op.len > buffer.bytes.len() {
            storage.broken_rules.borrow_mut().push("a read passes the end of its buffer");
            return Err(Rejected { buffer, fault: Fault::Os(14) });
        }
        let start = buffer.address + op.at as u64;
        if !storage.flight.borrow_mut().enter(start, start + op.len as u64, buffer.bytes.len() as u64) {
            storage.broken_rules.borrow_mut().push("two reads in flight fill the same memory");
        }
        let latency = self.latency(&op);
        let now = storage.clock.now();
        let due = storage.link.borrow_mut().schedule_after(now, latency, op.len as u64);
        self.pending.push(Pending { due, op, buffer });
        Ok(())
    }

    /// Completes what is due now. Only the world advances the time.
    fn wait(&mut self, completed: &mut dyn FnMut(Completion<SimChunk>)) -> Result<(), SourceError> {
        let now = self.storage.clock.now();
        while let Some(at) = self.pending.iter().position(|pending| pending.due <= now) {
            let Pending { op, mut buffer, .. } = self.pending.remove(at);
            let outcome = self.storage.carry_out(&op, &mut buffer);
            self.storage.flight.borrow_mut().leave(buffer.address + op.at as u64, buffer.bytes.len() as u64);
            completed(Completion { id: op.id, buffer, outcome });
        }
        Ok(())
    }
}

/// Returns the alignment of `bytes` bytes.
#[must_use]
pub(crate) fn alignment(bytes: u64) -> Alignment {
    Alignment::new(bytes).unwrap_or(Alignment::ONE)
}
