//! Decides which loads must be refused before their first read.
//!
//! It uses the request, the memory and the tensors as they were written, not core's plan.

use crate::case::{Case, Job};
use crate::checkpoint::KnownTensor;
use crate::memory::WORLD_MEMORY;
use alloc::collections::BTreeMap;
use floodtide_core::{Buffers, Error};

/// Whether a reason to refuse a load applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Given {
    No,
    /// Alignment and gaps decide.
    Perhaps,
    Surely,
}

/// Compares an estimate between two numbers with a limit.
fn over(limit: u64, (min, max): (u64, u64)) -> Given {
    match limit {
        _ if min > limit => Given::Surely,
        _ if max > limit => Given::Perhaps,
        _ => Given::No,
    }
}

/// The reasons to refuse a load.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// It needs more than the reported memory.
    memory: Given,
    /// A tensor that must be whole exceeds a stream's buffers.
    buffer: Given,
    /// A stream has too many buffers to plan.
    buffers: Given,
    /// It exceeds the address space of this target.
    addresses: Given,
    /// The amount of memory is unknown, and the world has less.
    world: Given,
}

impl Refusals {
    pub(crate) fn of(case: &Case) -> Self {
        let selected = || case.checkpoint.tensors.iter().filter(|tensor| case.selection.takes(tensor));
        let asked = case.devices.iter().filter_map(|device| device.says).map(|limits| limits.both().as_u64());
        // At both ends of a run, and before it.
        let edges = 3 * asked.chain([case.tensor_alignment.as_u64(), 4096]).max().unwrap_or(0);
        let (mut bytes, mut longest, mut tensors) = (0_u64, 0, 0);
        for tensor in selected() {
            let tensor_bytes = case.selection.byte_len(tensor);
            bytes = bytes.saturating_add(tensor_bytes);
            longest = longest.max(tensor_bytes);
            tensors += 1;
        }
        let min = distinct(case).map(|tensor| case.selection.byte_len(tensor)).fold(0, u64::saturating_add);
        let gaps = bytes / 128 + (4 << 20);
        let alone = (longest, longest.saturating_add(edges));
        let told = case.memory.unwrap_or(u64::MAX);
        let (memory, held, addresses, buffer, buffers) = match &case.job {
            Job::Load => {
                let arena = (min, bytes.saturating_add(gaps + tensors * edges));
                (arena, arena, over(isize::MAX as u64, arena), Given::No, Given::No)
            }
            Job::Stream { buffers, .. } => {
                let Buffers { buffer_bytes, limit, split, .. } = *buffers;
                let plan_entries = plan_entries(case, split, buffer_bytes, edges);
                let all = bytes.saturating_add(gaps).saturating_add(plan_entries.1.saturating_mul(edges));
                let held = (min.min(limit), all.min(limit));
                let one = if split { (0, alone.1.min(buffer_bytes)) } else { (longest.min(limit), alone.1.min(limit)) };
                // The plan may use an eighth of the limit and 16 MiB, at a hundred bytes per entry.
                let planned = (limit / 800).saturating_add(160_000);
                let buffer = if split { Given::No } else { over(limit, alone) };
                (held, (0, held.1), over(usize::MAX as u64, one), buffer, over(planned, plan_entries))
            }
        };
        let memory = over(told, memory);
        let world = if told > WORLD_MEMORY { over(WORLD_MEMORY, held) } else { Given::No };
        Self { memory, buffer, buffers, addresses, world }
    }

    /// Returns true if the load must be refused.
    pub(crate) fn are_sure(&self) -> bool {
        let all = [self.memory, self.buffer, self.buffers, self.addresses, self.world];
        all.contains(&Given::Surely)
    }

    /// Returns true if an allocation may fail because the memory is unknown.
    ///
    /// What exceeds the address space is refused before any allocation.
    pub(crate) fn explain_no_memory(&self) -> bool {
        self.world > Given::No && self.addresses < Given::Surely
    }

    /// Returns whether an error states one of the reasons with its numbers, or `None` for other
    /// errors.
    pub(crate) fn explain(&self, case: &Case, error: &Error) -> Option<bool> {
        let buffers = match &case.job {
            Job::Stream { buffers, .. } => Some(buffers),
            Job::Load => None,
        };
        Some(match error {
            Error::NotEnoughMemory { needed, available, .. } => {
                self.memory > Given::No && case.memory == Some(*available) && needed > available
            }
            Error::BufferTooSmall { tensor, needed, limit } => {
                let known = case.checkpoint.find(tensor).filter(|known| case.selection.takes(known));
                self.buffer > Given::No
                    && needed > limit
                    && known.is_some_and(|known| case.selection.byte_len(known) <= *needed)
                    && buffers.is_some_and(|buffers| buffers.limit == *limit)
            }
            Error::TooManyBuffers { limit, .. } => {
                self.buffers > Given::No && buffers.is_some_and(|buffers| buffers.limit == *limit)
            }
            Error::AddressSpace { .. } => self.addresses > Given::No,
            _ => return None,
        })
    }
}

/// The selected tensors, of those that are the same bytes only the one of which most is selected:
/// they may be read once.
fn distinct(case: &Case) -> impl Iterator<Item = &KnownTensor> {
    let mut max: BTreeMap<(usize, u64), (u64, usize)> = BTreeMap::new();
    for (number, tensor) in
        case.checkpoint.tensors.iter().enumerate().filter(|(_, tensor)| case.selection.takes(tensor))
    {
        let bytes = case.selection.byte_len(tensor);
        let entry = max.entry((tensor.file, tensor.start)).or_insert((bytes, number));
        *entry = (bytes, number).max(*entry);
    }
    max.into_values().map(|(_, number)| &case.checkpoint.tensors[number])
}

/// Returns the minimum and the maximum number of buffers and reads of a stream's plan.
fn plan_entries(case: &Case, split: bool, buffer_bytes: u64, edges: u64) -> (u64, u64) {
    let read = case.chunk_bytes.clamp(64 << 10, 1 << 30).next_power_of_two();
    let (mut min, mut max) = (0_u64, 0_u64);
    for tensor in distinct(case) {
        let bytes = case.selection.byte_len(tensor);
        let in_parts = split && bytes > buffer_bytes + edges;
        min = min.saturating_add(if in_parts { bytes / buffer_bytes } else { 0 } + bytes / read);
    }
    for tensor in case.checkpoint.tensors.iter().filter(|tensor| case.selection.takes(tensor)) {
        let slice = case.selection.slice(tensor);
        let bytes = case.selection.byte_len(tensor);
        // One more of each for the start and the end of a tensor, and for the gap before it.
        let parts = if split { bytes / (buffer_bytes / 8 * 7) } else { 0 };
        max = max.saturating_add(parts + bytes / read + 4);
        // What blocks are gathered from is read as well, or each block by itself.
        max = max.saturating_add(slice.map_or(0, |slice| tensor.bytes / read + slice.block_count(tensor)));
    }
    (min, max)
}
