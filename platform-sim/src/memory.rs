//! The world's memory: an arena or a pool's buffers, at virtual addresses.

use crate::device::Flight;
use crate::draw::Draw;
use crate::faults::{FaultKind, FaultState};
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Deref;
use floodtide_core::pool::{Depot, Growing, Provider};
use floodtide_core::sync::{AtomicBool, Ordering};

/// Records a wake-up.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }
}

impl Flag {
    /// Sets the flag.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns true if it was set since the last call, and clears it.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Returns true if it is set.
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The world's memory in bytes.
pub(crate) const WORLD_MEMORY: u64 = 64 << 20;
/// The start of an arena.
pub(crate) const ARENA: u64 = 1 << 40;
/// The start of the gather buffers.
pub(crate) const SCRATCH: u64 = 1 << 48;
/// The start of the pool's memory.
const BLOCKS: u64 = 1 << 44;

/// A block of the pool, which counts as live until it is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    address: u64,
    bytes: Vec<u8>,
    live: Rc<Cell<u64>>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.live.set(self.live.get() - self.bytes.len() as u64);
    }
}

/// Allocates memory, and sometimes refuses.
#[derive(Debug)]
pub(crate) struct Heap {
    next: Cell<u64>,
    live: Rc<Cell<u64>>,
    faults: Rc<RefCell<FaultState>>,
    draw: RefCell<Draw>,
}

impl Heap {
    pub(crate) fn new(faults: Rc<RefCell<FaultState>>, draw: Draw) -> Self {
        Self { next: Cell::new(BLOCKS), live: Rc::default(), faults, draw: RefCell::new(draw) }
    }

    /// Returns true if the system refuses memory now.
    pub(crate) fn refuses(&self) -> bool {
        self.faults.borrow_mut().strikes(FaultKind::AllocationRefused, &mut self.draw.borrow_mut())
    }

    /// Returns the number of allocated bytes.
    pub(crate) fn live(&self) -> u64 {
        self.live.get()
    }
}

impl Provider for Heap {
    type Block = Block;
    type Error = ();

    fn allocate(&self, bytes: usize) -> Result<Block, ()> {
        if self.live.get() + bytes as u64 > WORLD_MEMORY || self.refuses() {
            return Err(());
        }
        let address = self.next.get();
        self.next.set(address + (bytes as u64).next_multiple_of(4096) + 4096);
        self.live.set(self.live.get() + bytes as u64);
        Ok(Block { address, bytes: vec![0; bytes], live: Rc::clone(&self.live) })
    }

    fn byte_len(&self, block: &Block) -> usize {
        block.bytes.len()
    }
}

/// The world's pool.
pub(crate) type Pool = Depot<Heap, (), Growing, 1>;

/// A buffer of the pool. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct SimBuffer {
    block: Option<Block>,
    pool: Rc<Pool>,
}

impl SimBuffer {
    pub(crate) fn new(block: Block, pool: Rc<Pool>) -> Self {
        Self { block: Some(block), pool }
    }

    pub(crate) fn address(&self) -> u64 {
        self.block.as_ref().map_or(0, |block| block.address)
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.block.as_mut().map_or(&mut [], |block| &mut block.bytes)
    }

    /// Returns true if a read in flight fills a part of it.
    pub(crate) fn is_in_flight(&self, flight: &Flight) -> bool {
        flight.touches(self.address(), self.address() + self.len() as u64)
    }
}

impl Deref for SimBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes)
    }
}

impl Drop for SimBuffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.give(block, 0);
        }
    }
}
