//! Groups selected tensors into runs of file bytes, and gives every run its place in the arena.

mod cut;
mod strided;

pub(super) use cut::filled;

use super::{
    Access, Buffers, Extent, Location, Method, Placement, PlanOptions, ReadMode, Slices, tensor_alignment, ties,
};
use crate::catalog::{Catalog, TensorInfo};
use crate::error::Error;
use crate::strided_range::StridedRange;
use crate::tensor_slice::{FileLayout, TensorSlice};
use crate::units::{Alignment, ByteRange, DirectLimits, FileId};
use alloc::vec::Vec;

/// A direct run is at least this many alignments long: the two edges that are read along are then under 2 % of it.
const MIN_DIRECT_ALIGNMENTS: u64 = 128;
/// Tensors that share a buffer of a stream may always have so much together.
const MIN_BUFFER_BYTES: u64 = 64 << 10;

pub(super) struct LaidOut {
    pub(super) placements: Vec<Placement>,
    pub(super) extents: Vec<Extent>,
    pub(super) mapped: Vec<(FileId, ByteRange)>,
    pub(super) arena_bytes: u64,
    pub(super) slices: Slices,
    /// The bytes of files that strided slices span.
    pub(super) strided_span: u64,
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
