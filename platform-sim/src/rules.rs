//! The rules of a world: at any time, for every delivered buffer, and for a successful load.
//!
//! The checks know the contents from the writer, not from core's parsers.

use crate::faults::FaultKind;
use crate::memory::{ARENA, SimBuffer};
use crate::world::{World, WorldMemory};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use floodtide_core::stream::FilledBuffer;
use floodtide_core::{Error, Location, Order, to_usize};

impl World {
    /// Checks the rules that hold at any time.
    pub(crate) fn check_rules(&self) {
        for rule in self.storage.broken_rules.borrow_mut().drain(..) {
            self.violated(rule);
        }
        if let Some(stream) = self.stream_buffers() {
            let stats = stream.pool.stats(0, 0);
            let live = stream.pool.provider().live();
            if stats.lent + stats.retained > stats.limit || live > stats.limit as u64 {
                self.violated(format!("the pool has {live} bytes over its limit of {}", stats.limit));
            }
        }
    }

    /// Compares a part with the initial contents of the file.
    fn compare(&self, placement: usize, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let tensor = self.catalog.tensor(self.plan.placements()[placement].tensor);
        let Some((known, shape, expected_bytes)) = self.known(placement) else {
            return Err(format!("tensor {:?} was never written", tensor.name));
        };
        let right =
            tensor.dtype == known.dtype && known.file == tensor.file.index() && known.start == tensor.range.start();
        if !right || known.bytes != tensor.range.len() {
            return Err(format!("tensor {:?} is not where it was written", tensor.name));
        }
        if self.plan.tensor(&self.catalog, placement).shape != shape {
            return Err(format!("tensor {:?} has another shape than {shape:?}", tensor.name));
        }
        if offset + bytes.len() as u64 > expected_bytes {
            return Err(format!("tensor {:?} comes past its {expected_bytes} bytes", tensor.name));
        }
        let mut expected = vec![0; bytes.len()];
        self.original(placement, known, offset, &mut expected);
        // Usually they are equal, which is quick to check.
        if expected == bytes {
            return Ok(());
        }
        let at = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        Err(format!("tensor {:?} differs at byte {}", tensor.name, offset + at as u64))
    }

    /// How many bytes are selected of a tensor.
    fn selected_bytes(&self, placement: usize) -> u64 {
        self.known(placement).map_or(0, |(_, _, bytes)| bytes)
    }

    /// Checks the result of a whole load.
    pub(crate) fn check_arena(&self, alignment: u64) -> Result<(), String> {
        let WorldMemory::Whole(arena) = &self.memory else { return Ok(()) };
        let arena = arena.borrow();
        for (index, placement) in self.plan.placements().iter().enumerate() {
            let Location::Arena(place) = placement.location else {
                return Err("a tensor is not in the arena".to_owned());
            };
            let required = alignment.max(self.catalog.tensor(placement.tensor).dtype.alignment());
            let bytes = self.selected_bytes(index);
            if bytes > 0 && !(ARENA + place as u64).is_multiple_of(required) {
                return Err(format!("a tensor's address is no multiple of {required}"));
            }
            // An empty tensor may be anywhere.
            let place = if bytes == 0 { 0 } else { place };
            self.compare(index, 0, &arena[place..place + to_usize(bytes)])?;
        }
        Ok(())
    }

    /// Checks a buffer that the consumer receives.
    pub(crate) fn receive(&self, filled: &FilledBuffer<SimBuffer>, alignment: u64) {
        let Some(stream) = self.stream_buffers() else { return };
        self.note("delivered", &[u64::from(filled.extent().0)]);
        if filled.buffer().is_in_flight(&self.storage.flight.borrow()) {
            self.violated("a buffer was delivered while a read into it was in flight");
        }
        let mut delivered = self.delivered.borrow_mut();
        for part in filled.placed_parts() {
            let bytes = &filled.buffer()[part.buffer_range.clone()];
            let tensor = self.catalog.tensor(self.plan.placements()[part.placement].tensor);
            // A part is only as aligned as its elements must be.
            let whole = bytes.len() as u64 == self.selected_bytes(part.placement);
            let required = tensor.dtype.alignment().max(if whole { alignment } else { 1 });
            let address = filled.buffer().address() + part.buffer_range.start as u64;
            if !bytes.is_empty() && address % required != part.offset % required {
                self.violated(format!("a part's address is not aligned to {required}"));
            }
            delivered.parts_of_tensors += u64::from(!bytes.is_empty() && !whole);
            delivered.own_buffers += u64::from(whole && bytes.len() as u64 > stream.buffer_bytes);
            if !stream.split && !whole {
                self.violated("a tensor came in parts although it should be whole");
            }
            if stream.order != Order::Completion && part.placement < delivered.last {
                self.violated("tensors came in another order than was asked for");
            }
            delivered.last = part.placement;
            if let Err(difference) = self.compare(part.placement, part.offset, bytes) {
                // Truncated bytes are never read, so wrong bytes have no other excuse. Verified
                // bytes are known to be right before delivery, unless other parts of their tensor
                // are missing.
                let counts = self.faults.borrow().counts;
                let excused = match &self.verification {
                    None => counts.of(FaultKind::Written) > 0,
                    Some(_) => !whole && counts.of(FaultKind::Written) + counts.of(FaultKind::Corrupted) > 0,
                };
                if !excused {
                    self.violated(format!("a buffer was delivered, but {difference}"));
                }
                delivered.corrupt.get_or_insert(difference);
            }
            delivered.parts.entry(part.placement).or_default().push((part.offset, bytes.len() as u64));
        }
    }

    /// Checks that a successful stream has delivered everything once.
    pub(crate) fn check_delivered(&self) -> Result<(), String> {
        let mut delivered = self.delivered.borrow_mut();
        if let Some(difference) = &delivered.corrupt {
            return Err(difference.clone());
        }
        for index in self.plan.without_extent() {
            delivered.parts.entry(index).or_default().push((0, 0));
        }
        for index in 0..self.plan.placements().len() {
            let expected_bytes = self.selected_bytes(index);
            let mut parts = delivered.parts.remove(&index).unwrap_or_default();
            parts.sort_unstable();
            let mut next = 0;
            for (offset, bytes) in &parts {
                if *offset != next {
                    return Err(format!("placement {index} has a gap or comes twice at byte {next}"));
                }
                next = offset + bytes;
            }
            if next != expected_bytes || (expected_bytes == 0 && parts.len() != 1) {
                return Err(format!("placement {index} has come to byte {next} of {expected_bytes}"));
            }
        }
        Ok(())
    }

    /// Checks that an error names the right file and offset of a tensor.
    pub(crate) fn check_error(&self, error: &Error) -> Result<(), String> {
        if let Error::Mismatch { file, tensor, start, end, .. } = error {
            let right = self.checkpoint.find(tensor).is_some_and(|known| {
                let path = &self.storage.files[known.file].path;
                (path, known.start, known.start + known.bytes) == (file, *start, *end)
            });
            return if right { Ok(()) } else { Err(format!("the mismatch is not where tensor {tensor:?} is")) };
        }
        let (file, tensor, offset) = match error {
            Error::Truncated { file, tensor, found, .. } => (file, tensor, *found),
            Error::Read { file, tensor, offset, .. } => (file, tensor, *offset),
            _ => return Ok(()),
        };
        let number = self
            .storage
            .files
            .iter()
            .position(|f| &f.path == file)
            .ok_or("an error names no file of the checkpoint")?;
        let known = self.checkpoint.find(tensor).filter(|known| known.file == number);
        let known = known.ok_or_else(|| format!("the error names tensor {tensor:?}, which is not in {file}"))?;
        // Between tensors is what was read along, for the next one.
        if offset >= known.start + known.bytes {
            return Err(format!("the error's offset {offset} is behind tensor {tensor:?}"));
        }
        Ok(())
    }
}
