//! Cuts what is longer than a buffer of a stream into parts, and counts the entries of the plan.

use super::{Layout, Run};
use crate::error::Error;
use crate::plan::{Access, Buffers, Placement, tensor_alignment};
use crate::units::Alignment;
use alloc::borrow::ToOwned;
use core::ops::Range;

/// The tensors of a part of a run end before `end`; those of the next part start with `start_of_next`.
struct PartTensors {
    end: usize,
    start_of_next: usize,
}

impl Layout<'_> {
    /// Places the run, or, where it is longer than a buffer of a stream, the parts of it.
    pub(super) fn end(&mut self, run: &Run, tensors_end: usize) -> Result<(), Error> {
        if let Some(strided) = run.strided {
            return self.end_strided(run, strided, tensors_end);
        }
        let (Access::Stream(buffers), Some(buffer_bytes)) = (self.options.access, self.buffer_bytes()) else {
            return self.place(run, tensors_end);
        };
        let needed = self.footprint(run, 0).map_or(u64::MAX, |footprint| footprint.end);
        if needed <= buffer_bytes || (!buffers.split && needed <= buffers.limit) {
            self.count(run.end - run.start, 1)?;
            return self.place(run, tensors_end);
        }
        // Only a tensor alone is that long, or several that are the same bytes, perhaps with empty ones before them.
        let long = filled(&self.out.placements, run.first..tensors_end);
        let Some(tensor) = self.out.placements.get(long.start).map(|placement| self.catalog.tensor(placement.tensor))
        else {
            return Ok(());
        };
        if !buffers.split {
            return Err(Error::BufferTooSmall { tensor: tensor.name.to_owned(), needed, limit: buffers.limit });
        }
        self.count(run.end - run.start, (run.end - run.start) / (buffer_bytes / 8 * 7) + 1)?;
        // What comes in parts is no tensor in memory, so only its elements must be aligned there.
        let (whole, alignment) = self.min(long);
        let run = Run { alignment, in_place: alignment.divides(run.start), ..*run };
        // Partition at multiples of the alignment, which keeps the parts' ends direct, or, where that would cut a block (elements of six
        // bits, or quantised ones, which no power of two holds), just before.
        let direct = self.direct(&run).unwrap_or(Alignment::ONE);
        let margin = 2 * direct.max(alignment).as_u64().max(whole.next_power_of_two());
        let step = (buffer_bytes - margin) / margin * margin;
        let base = if run.in_place { run.start / margin * margin } else { run.start };
        let mut part = Run { end: run.start, ..run };
        let mut cut = base;
        while part.end < run.end {
            cut = cut.saturating_add(step);
            part.start = part.end;
            part.end = if cut < run.end { cut - (cut - run.start) % whole } else { run.end };
            let next = self.tensors_until(&part, tensors_end);
            self.place(&part, next.end)?;
            part.first = next.start_of_next;
        }
        Ok(())
    }

    /// What may be cut of placements that are the same bytes, and what its place is aligned to: the largest of their blocks, and of what their
    /// elements need.
    pub(super) fn min(&self, placements: Range<usize>) -> (u64, Alignment) {
        self.out.placements[placements].iter().fold((1, Alignment::ONE), |(whole, alignment), placement| {
            let tensor = self.catalog.tensor(placement.tensor);
            (whole.max(tensor.dtype.block_bytes()), tensor_alignment(&tensor, alignment))
        })
    }

    /// Counts what the plan itself takes, before it is made: a stream's memory must not go into its own description.
    pub(super) fn count(&mut self, bytes: u64, buffers: u64) -> Result<(), Error> {
        let (Access::Stream(Buffers { limit, .. }), Some(buffer_bytes)) = (self.options.access, self.buffer_bytes())
        else {
            return Ok(());
        };
        self.plan_entries =
            self.plan_entries.saturating_add(buffers).saturating_add(bytes / self.options.shortest_chunk());
        if self.plan_entries > max_plan_entries(limit) {
            return Err(Error::TooManyBuffers { bytes: self.selected_bytes, buffer_bytes, limit });
        }
        Ok(())
    }

    /// Which tensors a part of a run holds; one without a byte belongs to one part alone.
    fn tensors_until(&self, part: &Run, tensors_end: usize) -> PartTensors {
        let (mut end, mut start_of_next) = (part.first, None);
        while end < tensors_end {
            let range = self.out.placements[end].range;
            if !range.is_empty() && range.start() >= part.end {
                break;
            }
            if !range.is_empty() && range.end() > part.end {
                // The rest of this tensor, and of those that are the same bytes, is in the next part, and so is what follows them.
                start_of_next = start_of_next.or(Some(end));
            } else if start_of_next.is_some() {
                break;
            }
            end += 1;
        }
        PartTensors { end, start_of_next: start_of_next.unwrap_or(end) }
    }
}

/// Of these placements those that have bytes: a tensor, or several that are the same bytes, which follow one another.
pub(in crate::plan) fn filled(placements: &[Placement], of: Range<usize>) -> Range<usize> {
    let has_bytes = |&index: &usize| !placements[index].range.is_empty();
    let start = of.clone().find(has_bytes).unwrap_or(of.start);
    let len = (start..of.end).take_while(has_bytes).count();
    start..(start + len.max(1)).min(of.end)
}

/// How many extents and chunks the plan of a stream may have: an eighth of the limit and 16 MiB, at about a hundred bytes each;
/// and what 32 bits number.
pub(super) fn max_plan_entries(limit: u64) -> u64 {
    (limit / 800).saturating_add(160_000).min(u64::from(u32::MAX / 2))
}
