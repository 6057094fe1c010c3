//! Places slices that lie in the file in blocks.

use super::cut::max_plan_entries;
use super::{Layout, Run, filled, in_memory, is_worth_it};
use crate::error::Error;
use crate::plan::{Access, Extent, Location, Method, ReadMode};
use crate::strided_range::StridedRange;
use crate::units::{Alignment, DirectLimits};
use alloc::borrow::ToOwned;
use core::ops::Range;

/// The maximum number of per-block reads of a plan. With more, their description would need more
/// memory than they save.
const MAX_PER_BLOCK_READS: u64 = 1 << 20;

impl Layout<'_> {
    /// Places a strided slice, or the parts of a slice that exceeds a buffer of a stream.
    pub(super) fn end_strided(&mut self, run: &Run, strided: StridedRange, tensors_end: usize) -> Result<(), Error> {
        let span = run.end - run.start;
        let by_block = strided.gap() > self.options.max_read_gap
            && self
                .per_block_reads
                .checked_add(strided.count())
                .is_some_and(|reads| reads <= self.max_per_block_reads());
        self.per_block_reads += if by_block { strided.count() } else { 0 };
        let read_mode = if by_block { ReadMode::PerBlock } else { ReadMode::Spanning };
        self.out.strided_span = self.out.strided_span.saturating_add(span);
        let sliced = filled(&self.out.placements, run.first..tensors_end);
        let bytes = strided.byte_len();
        let part = match self.options.access {
            Access::Stream(buffers) => {
                let buffer_bytes = buffers.max_shared_bytes();
                if bytes > buffer_bytes && !buffers.split && bytes > buffers.limit {
                    let tensor = self.catalog.tensor(self.out.placements[sliced.start].tensor).name.to_owned();
                    return Err(Error::BufferTooSmall { tensor, needed: bytes, limit: buffers.limit });
                }
                let (whole, _) = self.min(sliced.clone());
                let part = if buffers.split && bytes > buffer_bytes { buffer_bytes / whole * whole } else { bytes };
                let reads = if by_block { strided.count() } else { span / self.options.max_gather_read(0) };
                self.plan_entries = self.plan_entries.saturating_add(reads);
                self.count(bytes, if part < bytes { bytes / part + 1 } else { 1 })?;
                part
            }
            _ => bytes,
        };
        let mut from = 0;
        while from < bytes {
            let to = from.saturating_add(part).min(bytes);
            // Empty tensors around it belong to the first or the last part.
            let first = if from == 0 { run.first } else { sliced.start };
            let end = if to == bytes { tensors_end } else { sliced.end };
            self.place_part(run, strided, from..to, first..end, read_mode)?;
            from = to;
        }
        Ok(())
    }

    /// Returns the maximum number of per-block reads.
    fn max_per_block_reads(&self) -> u64 {
        match self.options.access {
            Access::Stream(buffers) => max_plan_entries(buffers.limit) / 2,
            _ => MAX_PER_BLOCK_READS,
        }
    }

    /// Places a part of a strided slice.
    fn place_part(
        &mut self,
        run: &Run,
        strided: StridedRange,
        part: Range<u64>,
        tensors: Range<usize>,
        read_mode: ReadMode,
    ) -> Result<(), Error> {
        let too_large = Error::AddressSpace { needed: u64::MAX };
        let streamed = matches!(self.options.access, Access::Stream(_));
        let len = part.end - part.start;
        let (address, end) = if streamed {
            (0, len)
        } else {
            let address = run.alignment.up(self.out.arena_bytes).ok_or_else(|| too_large.clone())?;
            self.out.arena_bytes = address.checked_add(len).ok_or(too_large)?;
            (address, 0)
        };
        let place = usize::try_from(address).unwrap_or(usize::MAX);
        for placement in &mut self.out.placements[tensors.clone()] {
            if matches!(placement.location, Location::Arena(_)) && !placement.range.is_empty() {
                placement.location = Location::Arena(place);
            }
        }
        let range = strided.file_range(part.start, part.end);
        let limits = self.options.direct.get(run.file.index()).copied().flatten();
        // The edges of a direct read are in a scratch buffer, so that it may begin and end
        // anywhere.
        let read = match read_mode {
            ReadMode::PerBlock => strided.block_len().min(range.len()),
            ReadMode::Spanning => range.len(),
        };
        let direct = limits.filter(|&limits| is_worth_it(read, limits)).map(DirectLimits::both);
        self.out.extents.push(Extent {
            file: run.file,
            range,
            strided: Some(strided),
            read_mode,
            method: if direct.is_some() { Method::Direct } else { Method::Buffered },
            buffer_offset: place,
            buffer_bytes: in_memory(end)?,
            alignment: direct.unwrap_or(Alignment::ONE),
            tensors,
        });
        Ok(())
    }
}
