//! Cuts what is longer than a buffer of a stream into parts, and counts the entries of the plan.

use super::{Layout, Run};
use crate::error::Error;
use crate::plan::{Access, Buffers, Placement, tensor_alignment};
use crate::units::Alignment;
use alloc::borrow::ToOwned;
use core::ops::Range;

/// Tensors of this part of a run end before `end`. Those of the next part start with
/// `start_of_next`.
struct PartTensors {
    end: usize,
    start_of_next: usize,
}

impl Layout<'_> {
    /// Places the run, or the parts of a run that exceeds a buffer of a stream.
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
        // Only a single tensor is this long, or several that are tied, perhaps after empty ones.
        let long = filled(&self.out.placements, run.first..tensors_end);
        let Some(tensor) = self.out.placements.get(long.start).map(|placement| self.catalog.tensor(placement.tensor))
        else {
            return Ok(());
        };
        if !buffers.split {
            return Err(Error::BufferTooSmall { tensor: tensor.name.to_owned(), needed, limit: buffers.limit });
        }
        self.count(run.end - run.start, (run.end - run.start) / (buffer_bytes / 8 * 7) + 1)?;
        // A tensor that arrives in parts is never contiguous in memory, so only its elements must
        // be aligned.
        let (whole, alignment) = self.min(long);
        let run = Run { alignment, in_place: alignment.divides(run.start), ..*run };
        // Split at multiples of the alignment, which keeps the ends of parts direct. If that would
        // cut a block, split before it. Blocks of six-bit or quantised elements do not divide
        // powers of two.
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

    /// Returns the indivisible length and the alignment for tied placements: the largest of their
    /// blocks, and what their elements need.
    pub(super) fn min(&self, placements: Range<usize>) -> (u64, Alignment) {
        self.out.placements[placements].iter().fold((1, Alignment::ONE), |(whole, alignment), placement| {
            let tensor = self.catalog.tensor(placement.tensor);
            (whole.max(tensor.dtype.block_bytes()), tensor_alignment(&tensor, alignment))
        })
    }

    /// Counts the size of the plan itself in advance, so that its description does not use up a
    /// stream's memory.
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

    /// Returns the tensors of a part of a run. A tensor without bytes belongs to one part only.
    fn tensors_until(&self, part: &Run, tensors_end: usize) -> PartTensors {
        let (mut end, mut start_of_next) = (part.first, None);
        while end < tensors_end {
            let range = self.out.placements[end].range;
            if !range.is_empty() && range.start() >= part.end {
                break;
            }
            if !range.is_empty() && range.end() > part.end {
                // The next part starts with the rest of this tensor and of those tied to it.
                start_of_next = start_of_next.or(Some(end));
            } else if start_of_next.is_some() {
                break;
            }
            end += 1;
        }
        PartTensors { end, start_of_next: start_of_next.unwrap_or(end) }
    }
}

/// Returns the placements with bytes: one tensor, or several tied ones, which are adjacent.
pub(in crate::plan) fn filled(placements: &[Placement], of: Range<usize>) -> Range<usize> {
    let has_bytes = |&index: &usize| !placements[index].range.is_empty();
    let start = of.clone().find(has_bytes).unwrap_or(of.start);
    let len = (start..of.end).take_while(has_bytes).count();
    start..(start + len.max(1)).min(of.end)
}

/// Returns the maximum number of extents and chunks in a stream's plan.
///
/// They may use an eighth of the limit plus 16 MiB at about a hundred bytes each, and are numbered
/// in 32 bits.
pub(super) fn max_plan_entries(limit: u64) -> u64 {
    (limit / 800).saturating_add(160_000).min(u64::from(u32::MAX / 2))
}
