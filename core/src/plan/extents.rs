//! Groups selected tensors into runs of file bytes, and gives every run its place in the arena.

use super::chunks::max_gather_read;
use super::{
    Access, Buffers, DirectLimits, Extent, Location, Method, Placement, PlanOptions, ReadMode, Slices,
    tensor_alignment, ties,
};
use crate::catalog::{Catalog, TensorInfo};
use crate::error::Error;
use crate::strided_range::StridedRange;
use crate::tensor_slice::{FileLayout, TensorSlice};
use crate::units::{Alignment, ByteRange, FileId};
use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use core::ops::Range;

/// A direct run is at least this many alignments long: the two edges that are read along are then under 2 % of it.
const MIN_DIRECT_ALIGNMENTS: u64 = 128;
/// Tensors that share a buffer of a stream may always have so much together.
const MIN_BUFFER_BYTES: u64 = 64 << 10;
/// A plan has no more reads of single blocks than this: past it, its own description would take more than it saves.
const MAX_PER_BLOCK_READS: u64 = 1 << 20;

pub(super) struct LaidOut {
    pub(super) placements: Vec<Placement>,
    pub(super) extents: Vec<Extent>,
    pub(super) mapped: Vec<(FileId, ByteRange)>,
    pub(super) arena_bytes: u64,
    pub(super) slices: Slices,
    /// The bytes of files that strided slices span.
    pub(super) strided_span: u64,
}

/// The tensors of a part of a run end before `end`; those of the next part start with `start_of_next`.
struct PartTensors {
    end: usize,
    start_of_next: usize,
}

/// A run that is still growing.
#[derive(Clone, Copy)]
struct Run {
    file: FileId,
    start: u64,
    end: u64,
    /// The greatest alignment of its tensors.
    alignment: Alignment,
    /// Whether its first tensor lies in the file as it must in memory; if not, the run is shifted.
    in_place: bool,
    first: usize,
    /// The furthest start of a mapped placement that the run has gone over, or its own: no placement of it starts before.
    mapped: u64,
    /// The blocks of the slice that it is. No other tensor joins it.
    strided: Option<StridedRange>,
}

impl Run {
    /// Whether what lies there can join: the same file, near enough, and aligned where the run would put it.
    fn takes(&self, file: FileId, file_layout: &FileLayout, alignment: Alignment, max_gap: u64) -> bool {
        let base = if self.in_place { 0 } else { self.start };
        let start = file_layout.range.start();
        file == self.file
            && self.strided.is_none()
            && file_layout.strided.is_none()
            // Behind the run, which is not a matter of course where the caller lists the tensors.
            && start.checked_sub(self.end).is_some_and(|gap| gap <= max_gap)
            // Slices of tensors that are the same bytes need not ascend.
            && start >= self.mapped
            && alignment.divides(start - base)
            // A shifted run starts at its own alignment; a joining tensor must not ask for more.
            && (self.in_place || alignment <= self.alignment)
    }
}

pub(super) fn lay_out(
    catalog: &Catalog,
    selected: &[TensorSlice],
    selected_bytes: u64,
    options: &PlanOptions,
) -> Result<LaidOut, Error> {
    let mut layout = Layout {
        out: LaidOut {
            placements: Vec::with_capacity(selected.len()),
            extents: Vec::new(),
            mapped: Vec::new(),
            arena_bytes: 0,
            slices: Slices::default(),
            strided_span: 0,
        },
        catalog,
        options,
        // Bytes between tensors are read only as long as they are few beside the selected ones: memory is promised too.
        gap_budget: selected_bytes / 128 + (4 << 20),
        selected_bytes,
        plan_entries: 0,
        per_block_reads: 0,
    };
    let streamed = matches!(options.access, Access::Stream(_));
    let mut run: Option<Run> = None;
    let mut rest = selected;
    while let Some(selection) = rest.first() {
        // Tensors that are the same bytes have one place, which suits all of them.
        let (tied, after) = rest.split_at(ties::together(catalog, rest, options));
        rest = after;
        let tensor = catalog.tensor(selection.tensor());
        let file_layout = selection.file_layout(&tensor);
        let range = file_layout.range;
        // Nearly always it is one, which is not looked up again.
        let others = &tied[1..];
        let alignment =
            others.iter().fold(tensor_alignment(&tensor, options.tensor_alignment), |alignment, selection| {
                tensor_alignment(&catalog.tensor(selection.tensor()), alignment)
            });
        let index = layout.out.placements.len();
        let location = match options.access {
            // A mapping begins at a page, and maybe at nothing rounder.
            Access::Map { .. }
                if alignment <= Alignment::PAGE
                    && alignment.divides(range.start())
                    && file_layout.strided.is_none() =>
            {
                Location::Mapped
            }
            Access::Stream(_) => Location::Streamed,
            // What is empty has no byte to read; the arena's start is aligned for all.
            _ => Location::Arena(0),
        };
        let mut add = |selection: &TensorSlice, tensor: &TensorInfo<'_>| {
            let slice =
                selection.as_slice().and_then(|slice| layout.out.slices.add(tensor, slice, file_layout.strided));
            layout.out.placements.push(Placement { tensor: tensor.id, range, location, slice });
        };
        add(selection, &tensor);
        others.iter().for_each(|selection| add(selection, &catalog.tensor(selection.tensor())));
        if range.is_empty() {
            continue;
        }
        if location == Location::Mapped {
            layout.map(tensor.file, range);
            if let Some(run) = &mut run {
                run.mapped = run.mapped.max(range.start());
            }
            continue;
        }
        let max_gap = options.max_merge_gap.min(layout.gap_budget);
        match &mut run {
            Some(run)
                if run.takes(tensor.file, &file_layout, alignment, max_gap)
                    && layout.shares_buffer(run, range.end(), alignment) =>
            {
                layout.gap_budget -= range.start() - run.end;
                run.end = range.end();
                run.alignment = run.alignment.max(alignment);
            }
            _ => {
                if let Some(run) = run.take() {
                    layout.end(&run, index)?;
                }
                run = Some(Run {
                    file: tensor.file,
                    start: range.start(),
                    end: range.end(),
                    alignment,
                    in_place: alignment.divides(range.start()),
                    mapped: range.start(),
                    strided: file_layout.strided,
                    // What is empty before the first run of a stream goes with it; in the arena it needs no run.
                    first: if streamed && layout.out.extents.is_empty() { 0 } else { index },
                });
            }
        }
    }
    if let Some(run) = run {
        layout.end(&run, layout.out.placements.len())?;
    }
    if catalog.has_ties() {
        unite(&mut layout.out.mapped);
    }
    Ok(layout.out)
}

/// Makes runs ascend, each byte in one of them: slices of tensors that are the same bytes may overlap, in any order.
fn unite(mapped: &mut Vec<(FileId, ByteRange)>) {
    mapped.sort_unstable_by_key(|&(file, range)| (file, range.start()));
    mapped.dedup_by(|&mut (file, range), (last_file, last)| {
        let joins = file == *last_file && range.start() <= last.end();
        if joins && let Some(both) = ByteRange::new(last.start(), last.end().max(range.end())) {
            *last = both;
        }
        joins
    });
}

struct Layout<'o> {
    out: LaidOut,
    catalog: &'o Catalog,
    options: &'o PlanOptions,
    gap_budget: u64,
    selected_bytes: u64,
    /// About how many extents and chunks a stream's plan has.
    plan_entries: u64,
    /// How many blocks are read one by one.
    per_block_reads: u64,
}

impl Layout<'_> {
    fn map(&mut self, file: FileId, range: ByteRange) {
        if let Some((last_file, last)) = self.out.mapped.last_mut()
            && *last_file == file
            && last.end() == range.start()
            && let Some(joined) = ByteRange::new(last.start(), range.end())
        {
            *last = joined;
        } else {
            self.out.mapped.push((file, range));
        }
    }

    /// The alignment of direct reads, if the run is read so.
    fn direct(&self, run: &Run) -> Option<Alignment> {
        let limits = self.options.direct.get(run.file.index()).copied().flatten()?;
        let worth_it = is_worth_it(run.end - run.start, limits);
        // Both edges of a buffer are read along, and should be little of it.
        let fits = self.buffer_bytes().is_none_or(|buffer_bytes| limits.both().as_u64() * 16 <= buffer_bytes);
        (run.in_place && worth_it && fits).then(|| limits.both())
    }

    /// What tensors that share a buffer of a stream may have together.
    fn buffer_bytes(&self) -> Option<u64> {
        match self.options.access {
            Access::Stream(buffers) => Some(buffer_bytes(&buffers)),
            _ => None,
        }
    }

    /// Where a run goes that is placed behind `cursor`.
    fn footprint(&self, run: &Run, cursor: u64) -> Option<Footprint> {
        let direct = self.direct(run);
        let alignment = direct.unwrap_or(Alignment::ONE);
        let modulus = alignment.max(run.alignment);
        let slot_start = alignment.down(run.start);
        let residue = if run.in_place { slot_start & (modulus.as_u64() - 1) } else { 0 };
        let slot = place(cursor, residue, modulus)?;
        let end = slot.checked_add(alignment.up(run.end)? - slot_start)?;
        Some(Footprint { direct, address: slot + (run.start - slot_start), end })
    }

    /// Whether the run still fits in a buffer when it goes on to `end`.
    fn shares_buffer(&self, run: &Run, end: u64, alignment: Alignment) -> bool {
        let Some(buffer_bytes) = self.buffer_bytes() else { return true };
        let joined = Run { end, alignment: run.alignment.max(alignment), ..*run };
        self.footprint(&joined, 0).is_some_and(|footprint| footprint.end <= buffer_bytes)
    }

    /// Places the run, or, where it is longer than a buffer of a stream, the parts of it.
    fn end(&mut self, run: &Run, tensors_end: usize) -> Result<(), Error> {
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
    fn min(&self, placements: Range<usize>) -> (u64, Alignment) {
        self.out.placements[placements].iter().fold((1, Alignment::ONE), |(whole, alignment), placement| {
            let tensor = self.catalog.tensor(placement.tensor);
            (whole.max(tensor.dtype.block_bytes()), tensor_alignment(&tensor, alignment))
        })
    }

    /// Places a strided slice, or, where it is longer than a buffer of a stream, the parts of it.
    fn end_strided(&mut self, run: &Run, strided: StridedRange, tensors_end: usize) -> Result<(), Error> {
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
                let buffer_bytes = buffer_bytes(&buffers);
                if bytes > buffer_bytes && !buffers.split && bytes > buffers.limit {
                    let tensor = self.catalog.tensor(self.out.placements[sliced.start].tensor).name.to_owned();
                    return Err(Error::BufferTooSmall { tensor, needed: bytes, limit: buffers.limit });
                }
                let (whole, _) = self.min(sliced.clone());
                let part = if buffers.split && bytes > buffer_bytes { buffer_bytes / whole * whole } else { bytes };
                let reads = if by_block { strided.count() } else { span / max_gather_read(self.options, 0) };
                self.plan_entries = self.plan_entries.saturating_add(reads);
                self.count(bytes, if part < bytes { bytes / part + 1 } else { 1 })?;
                part
            }
            _ => bytes,
        };
        let mut from = 0;
        while from < bytes {
            let to = from.saturating_add(part).min(bytes);
            // What is empty around it is with the first part, or with the last.
            let first = if from == 0 { run.first } else { sliced.start };
            let end = if to == bytes { tensors_end } else { sliced.end };
            self.place_part(run, strided, from..to, first..end, read_mode)?;
            from = to;
        }
        Ok(())
    }

    /// How many blocks may be read one by one.
    fn max_per_block_reads(&self) -> u64 {
        match self.options.access {
            Access::Stream(buffers) => max_plan_entries(buffers.limit) / 2,
            _ => MAX_PER_BLOCK_READS,
        }
    }

    /// Gives a part of a strided slice its place.
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
        // The edges of a direct read are in a scratch buffer, so that it may begin and end anywhere.
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

    /// Counts what the plan itself takes, before it is made: a stream's memory must not go into its own description.
    fn count(&mut self, bytes: u64, buffers: u64) -> Result<(), Error> {
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

    /// Gives the run its place and its tensors theirs.
    fn place(&mut self, run: &Run, tensors_end: usize) -> Result<(), Error> {
        let too_large = Error::AddressSpace { needed: u64::MAX };
        let streamed = matches!(self.options.access, Access::Stream(_));
        let cursor = if streamed { 0 } else { self.out.arena_bytes };
        let Footprint { direct, address, end } = self.footprint(run, cursor).ok_or_else(|| too_large.clone())?;
        if !streamed {
            self.out.arena_bytes = end;
        }
        for placement in &mut self.out.placements[run.first..tensors_end] {
            if matches!(placement.location, Location::Arena(_)) && !placement.range.is_empty() {
                let at = address + (placement.range.start() - run.start);
                // What does not fit in usize is refused by the planner as a whole, by the arena's size.
                placement.location = Location::Arena(usize::try_from(at).unwrap_or(usize::MAX));
            }
        }
        let buffer_bytes = if streamed { end } else { 0 };
        self.out.extents.push(Extent {
            file: run.file,
            range: ByteRange::new(run.start, run.end).ok_or(too_large)?,
            strided: None,
            read_mode: ReadMode::Spanning,
            method: if direct.is_some() { Method::Direct } else { Method::Buffered },
            buffer_offset: usize::try_from(address).unwrap_or(usize::MAX),
            buffer_bytes: in_memory(buffer_bytes)?,
            alignment: direct.unwrap_or(Alignment::ONE),
            tensors: run.first..tensors_end,
        });
        Ok(())
    }
}

/// What tensors that share a buffer of a stream may have together.
pub(super) fn buffer_bytes(buffers: &Buffers) -> u64 {
    buffers.buffer_bytes.max(MIN_BUFFER_BYTES)
}

/// Of these placements those that have bytes: a tensor, or several that are the same bytes, which follow one another.
pub(super) fn filled(placements: &[Placement], of: Range<usize>) -> Range<usize> {
    let has_bytes = |&index: &usize| !placements[index].range.is_empty();
    let start = of.clone().find(has_bytes).unwrap_or(of.start);
    let len = (start..of.end).take_while(has_bytes).count();
    start..(start + len.max(1)).min(of.end)
}

/// How many extents and chunks the plan of a stream may have: an eighth of the limit and 16 MiB, at about a hundred bytes each;
/// and what 32 bits number.
fn max_plan_entries(limit: u64) -> u64 {
    (limit / 800).saturating_add(160_000).min(u64::from(u32::MAX / 2))
}

/// Where a run goes.
struct Footprint {
    /// The alignment of its direct reads.
    direct: Option<Alignment>,
    /// Where its first byte is.
    address: u64,
    /// One past the last byte that its reads may fill.
    end: u64,
}

/// A length of memory: no object is longer than `isize::MAX`.
pub(super) fn in_memory(bytes: u64) -> Result<usize, Error> {
    let fits = usize::try_from(bytes).ok().filter(|&bytes| isize::try_from(bytes).is_ok());
    fits.ok_or(Error::AddressSpace { needed: bytes })
}

/// Short runs cost less through the page cache, and pack without the edges that a direct read brings along.
fn is_worth_it(bytes: u64, limits: DirectLimits) -> bool {
    bytes >= MIN_DIRECT_ALIGNMENTS * limits.both().as_u64()
}

/// The first address from `cursor` on that is congruent to `residue`.
fn place(cursor: u64, residue: u64, modulus: Alignment) -> Option<u64> {
    let below = modulus.down(cursor) + residue;
    if below >= cursor { Some(below) } else { below.checked_add(modulus.as_u64()) }
}
