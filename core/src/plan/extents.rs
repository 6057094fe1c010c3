//! Groups selected tensors into runs of file bytes, and gives every run its place in the arena.

use super::{Access, DirectLimits, Extent, Location, Method, Placement, PlanOptions};
use crate::catalog::{Catalog, TensorInfo};
use crate::error::Error;
use crate::units::{Alignment, ByteRange, FileId, TensorId};
use alloc::vec::Vec;

/// A direct run is at least this many alignments long: the two edges that are read along are then under 2 % of it.
const MIN_DIRECT_ALIGNMENTS: u64 = 128;

pub(super) struct LaidOut {
    pub(super) placements: Vec<Placement>,
    pub(super) extents: Vec<Extent>,
    pub(super) mapped: Vec<(FileId, ByteRange)>,
    pub(super) arena_bytes: u64,
}

/// A run that is still growing.
struct Run {
    file: FileId,
    start: u64,
    end: u64,
    /// The greatest alignment of its tensors.
    alignment: Alignment,
    /// Whether its first tensor lies in the file as it must in memory; if not, the run is shifted.
    in_place: bool,
    first: usize,
}

impl Run {
    /// Whether `tensor` can join: the same file, near enough, and aligned where the run would put it.
    fn takes(&self, tensor: &TensorInfo<'_>, alignment: Alignment, max_gap: u64) -> bool {
        let base = if self.in_place { 0 } else { self.start };
        tensor.file == self.file
            && tensor.range.start() - self.end <= max_gap
            && alignment.divides(tensor.range.start() - base)
            // A shifted run starts at its own alignment; a joining tensor must not ask for more.
            && (self.in_place || alignment <= self.alignment)
    }
}

pub(super) fn lay_out(
    catalog: &Catalog,
    selected: &[TensorId],
    selected_bytes: u64,
    options: &PlanOptions,
) -> Result<LaidOut, Error> {
    let mut layout = Layout {
        out: LaidOut {
            placements: Vec::with_capacity(selected.len()),
            extents: Vec::new(),
            mapped: Vec::new(),
            arena_bytes: 0,
        },
        options,
        // Bytes between tensors are read only as long as they are few beside the selected ones: memory is promised too.
        gap_budget: selected_bytes / 128 + (4 << 20),
    };
    let mut run: Option<Run> = None;
    for &id in selected {
        let tensor = catalog.tensor(id);
        let alignment = alignment_of(&tensor, options);
        let index = layout.out.placements.len();
        let mapped = matches!(options.access, Access::Map { .. }) && alignment.divides(tensor.range.start());
        // What is empty has no byte to read; the arena's start is aligned for all.
        let location = if mapped { Location::Mapped } else { Location::Arena(0) };
        layout.out.placements.push(Placement { tensor: id, range: tensor.range, location });
        if tensor.range.is_empty() {
            continue;
        }
        if mapped {
            layout.map(tensor.file, tensor.range);
            continue;
        }
        let max_gap = options.merge_gap.min(layout.gap_budget);
        match &mut run {
            Some(run) if run.takes(&tensor, alignment, max_gap) => {
                layout.gap_budget -= tensor.range.start() - run.end;
                run.end = tensor.range.end();
                run.alignment = run.alignment.max(alignment);
            }
            _ => {
                if let Some(run) = run.take() {
                    layout.close(&run, index)?;
                }
                run = Some(Run {
                    file: tensor.file,
                    start: tensor.range.start(),
                    end: tensor.range.end(),
                    alignment,
                    in_place: alignment.divides(tensor.range.start()),
                    first: index,
                });
            }
        }
    }
    if let Some(run) = run {
        layout.close(&run, layout.out.placements.len())?;
    }
    Ok(layout.out)
}

fn alignment_of(tensor: &TensorInfo<'_>, options: &PlanOptions) -> Alignment {
    Alignment::new(tensor.dtype.alignment()).unwrap_or(Alignment::ONE).max(options.tensor_alignment)
}

struct Layout<'o> {
    out: LaidOut,
    options: &'o PlanOptions,
    gap_budget: u64,
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

    /// Gives the run its place and its tensors theirs.
    fn close(&mut self, run: &Run, tensors_end: usize) -> Result<(), Error> {
        let too_large = Error::AddressSpace { needed: u64::MAX };
        let limits = self.options.direct.get(run.file.index()).copied().flatten();
        let direct = limits.filter(|limits| run.in_place && is_worth_it(run, *limits)).map(DirectLimits::both);
        let alignment = direct.unwrap_or(Alignment::ONE);
        let modulus = alignment.max(run.alignment);
        let slot_start = alignment.down(run.start);
        let slot_end = alignment.up(run.end).ok_or_else(|| too_large.clone())?;
        let residue = if run.in_place { slot_start & (modulus.bytes() - 1) } else { 0 };
        let slot = place(self.out.arena_bytes, residue, modulus).ok_or_else(|| too_large.clone())?;
        self.out.arena_bytes = slot.checked_add(slot_end - slot_start).ok_or_else(|| too_large.clone())?;
        let address = slot + (run.start - slot_start);
        for placement in &mut self.out.placements[run.first..tensors_end] {
            if placement.location != Location::Mapped && !placement.range.is_empty() {
                let at = address + (placement.range.start() - run.start);
                // What does not fit in usize is refused by the planner as a whole, by the arena's size.
                placement.location = Location::Arena(usize::try_from(at).unwrap_or(usize::MAX));
            }
        }
        self.out.extents.push(Extent {
            file: run.file,
            range: ByteRange::new(run.start, run.end).ok_or(too_large)?,
            method: if direct.is_some() { Method::Direct } else { Method::Buffered },
            place: usize::try_from(address).unwrap_or(usize::MAX),
            alignment,
            tensors: run.first..tensors_end,
        });
        Ok(())
    }
}

/// Short runs cost less through the page cache, and pack without the edges that a direct read brings along.
fn is_worth_it(run: &Run, limits: DirectLimits) -> bool {
    run.end - run.start >= MIN_DIRECT_ALIGNMENTS * limits.both().bytes()
}

/// The first address from `cursor` on that is congruent to `residue`.
fn place(cursor: u64, residue: u64, modulus: Alignment) -> Option<u64> {
    let below = modulus.down(cursor) + residue;
    if below >= cursor { Some(below) } else { below.checked_add(modulus.bytes()) }
}
