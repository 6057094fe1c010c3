//! Groups selected tensors into runs of file bytes, and places every run in the arena.

mod cut;
mod strided;

pub(super) use cut::filled;

use super::{Access, Extent, Location, Method, Placement, PlanOptions, ReadMode, Slices, tensor_alignment, ties};
use crate::catalog::{Catalog, TensorInfo};
use crate::error::Error;
use crate::strided_range::StridedRange;
use crate::tensor_slice::{FileLayout, TensorSlice};
use crate::units::{Alignment, ByteRange, DirectLimits, FileId};
use alloc::vec::Vec;

/// The minimum length of a direct run in alignments. Its two edges are then under 2 % of it.
const MIN_DIRECT_ALIGNMENTS: u64 = 128;
pub(super) struct LaidOut {
    pub(super) placements: Vec<Placement>,
    pub(super) extents: Vec<Extent>,
    pub(super) mapped: Vec<(FileId, ByteRange)>,
    pub(super) arena_bytes: u64,
    pub(super) slices: Slices,
    /// The number of file bytes that strided slices span.
    pub(super) strided_span: u64,
}

/// A run that still grows.
#[derive(Clone, Copy)]
struct Run {
    file: FileId,
    start: u64,
    end: u64,
    /// The maximum alignment of its tensors.
    alignment: Alignment,
    /// Whether its first tensor is aligned in the file as in memory. If not, the run is shifted.
    in_place: bool,
    first: usize,
    /// The maximum start of a mapped placement that the run has passed, or its own start. None of
    /// its placements starts before.
    mapped: u64,
    /// The blocks of a strided slice. No other tensor joins such a run.
    strided: Option<StridedRange>,
}

impl Run {
    /// Returns true if these bytes can join the run: same file, small gap, and aligned at their
    /// address in the run.
    fn takes(&self, file: FileId, file_layout: &FileLayout, alignment: Alignment, max_gap: u64) -> bool {
        let base = if self.in_place { 0 } else { self.start };
        let start = file_layout.range.start();
        file == self.file
            && self.strided.is_none()
            && file_layout.strided.is_none()
            // They may precede the run if the caller lists the tensors.
            && start.checked_sub(self.end).is_some_and(|gap| gap <= max_gap)
            // Slices of tied tensors need not ascend.
            && start >= self.mapped
            && alignment.divides(start - base)
            // A shifted run starts at its own alignment, so a tensor with a stricter one cannot
            // join.
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
        // Gaps are read only while they are few beside the selected bytes, because they use memory
        // too.
        gap_budget: selected_bytes / 128 + (4 << 20),
        selected_bytes,
        plan_entries: 0,
        per_block_reads: 0,
    };
    let streamed = matches!(options.access, Access::Stream(_));
    let mut run: Option<Run> = None;
    let mut rest = selected;
    while let Some(selection) = rest.first() {
        // Tied tensors share one place, which suits all of them.
        let (tied, after) = rest.split_at(ties::together(catalog, rest, options));
        rest = after;
        let tensor = catalog.tensor(selection.tensor());
        let file_layout = selection.file_layout(&tensor);
        let range = file_layout.range;
        // Usually there is only one, which needs no second lookup.
        let others = &tied[1..];
        let alignment =
            others.iter().fold(tensor_alignment(&tensor, options.tensor_alignment), |alignment, selection| {
                tensor_alignment(&catalog.tensor(selection.tensor()), alignment)
            });
        let index = layout.out.placements.len();
        let location = match options.access {
            // A mapping is aligned to a page only.
            Access::Map { .. }
                if alignment <= Alignment::PAGE
                    && alignment.divides(range.start())
                    && file_layout.strided.is_none() =>
            {
                Location::Mapped
            }
            Access::Stream(_) => Location::Streamed,
            // A tensor without bytes needs no read. The arena's start suits every alignment.
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
                    // Empty tensors before the first run of a stream belong to that run. In an
                    // arena they need none.
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

/// Sorts and merges ranges. Slices of tied tensors may overlap in any order.
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
    /// The approximate number of extents and chunks in a stream's plan.
    plan_entries: u64,
    /// The number of per-block reads.
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

    /// Returns the alignment of direct reads if the run is read directly.
    fn direct(&self, run: &Run) -> Option<Alignment> {
        let limits = self.options.direct.get(run.file.index()).copied().flatten()?;
        let worth_it = is_worth_it(run.end - run.start, limits);
        // Both edges of a buffer are read along, and should be a small part of it.
        let fits = self.buffer_bytes().is_none_or(|buffer_bytes| limits.both().as_u64() * 16 <= buffer_bytes);
        (run.in_place && worth_it && fits).then(|| limits.both())
    }

    /// Returns the maximum size of a stream's buffer that tensors share.
    fn buffer_bytes(&self) -> Option<u64> {
        match self.options.access {
            Access::Stream(buffers) => Some(buffers.max_shared_bytes()),
            _ => None,
        }
    }

    /// Returns where a run goes that is placed at or after `cursor`.
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

    /// Returns true if the run still fits in a buffer when it extends to `end`.
    fn shares_buffer(&self, run: &Run, end: u64, alignment: Alignment) -> bool {
        let Some(buffer_bytes) = self.buffer_bytes() else { return true };
        let joined = Run { end, alignment: run.alignment.max(alignment), ..*run };
        self.footprint(&joined, 0).is_some_and(|footprint| footprint.end <= buffer_bytes)
    }

    /// Places the run and its tensors.
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
                // The planner rejects sizes beyond usize for the arena as a whole.
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

/// The location of a run in memory.
struct Footprint {
    /// The alignment of its direct reads.
    direct: Option<Alignment>,
    /// The address of its first byte.
    address: u64,
    /// The end of the bytes that its reads may fill.
    end: u64,
}

/// Converts a length in memory. No object is longer than `isize::MAX`.
pub(super) fn in_memory(bytes: u64) -> Result<usize, Error> {
    let fits = usize::try_from(bytes).ok().filter(|&bytes| isize::try_from(bytes).is_ok());
    fits.ok_or(Error::AddressSpace { needed: bytes })
}

/// Returns true if a run is long enough for direct reads. Short runs are cheaper as buffered reads,
/// and pack without edges.
fn is_worth_it(bytes: u64, limits: DirectLimits) -> bool {
    bytes >= MIN_DIRECT_ALIGNMENTS * limits.both().as_u64()
}

/// Returns the first address from `cursor` on that is congruent to `residue`.
fn place(cursor: u64, residue: u64, modulus: Alignment) -> Option<u64> {
    let below = modulus.down(cursor) + residue;
    if below >= cursor { Some(below) } else { below.checked_add(modulus.as_u64()) }
}
