//! Turns a catalog and a selection into a plan.

use super::{Access, Buffers, MemoryLimit, Order, Plan, PlanOptions, chunks, extents, ties};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::tensor_slice::TensorSlice;
use alloc::string::String;

/// Creates a [`Plan`] from a catalog and a selection, as a pure function.
///
/// ```
/// use floodtide_core::format::SAFETENSORS;
/// use floodtide_core::{
///     ByteRange, CatalogBuilder, DType, Location, PlanOptions, Planner, Selection,
/// };
///
/// let mut builder = CatalogBuilder::new(SAFETENSORS);
/// let file = builder.add_file("model.safetensors", 4096)?;
/// for (name, start, end) in [("a", 1000, 2000), ("b", 2000, 4000)] {
///     let range = ByteRange::new(start, end).expect("ascending");
///     builder.add_tensor(file, name, DType::U8.into(), &[end - start], range)?;
/// }
/// let catalog = builder.finish()?;
/// let selected = Selection::All.resolve(&catalog)?;
/// let plan = Planner::new(PlanOptions::default()).plan(&catalog, &selected)?;
/// assert_eq!((plan.selected_bytes(), plan.read_bytes()), (3000, 3000));
/// // Neighbours are read together, into one arena.
/// assert_eq!(plan.chunks().len(), 1);
/// assert!(matches!(plan.placements()[1].location, Location::Arena(_)));
/// # Ok::<(), floodtide_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Planner {
    options: PlanOptions,
}

impl Planner {
    /// Creates a planner with these options.
    #[must_use]
    pub fn new(options: PlanOptions) -> Self {
        Self { options }
    }

    /// Plans the load of `selected`.
    ///
    /// The tensors must be of this catalog and ascending, as
    /// [`Selection::resolve`](crate::Selection::resolve) returns them. A stream in
    /// [`Order::Selection`] accepts any order.
    ///
    /// # Errors
    /// - [`Error::BufferTooSmall`] if a tensor does not fit in a buffer of a stream.
    /// - [`Error::NotEnoughMemory`] if the tensors exceed the available memory.
    /// - [`Error::AddressSpace`] if they exceed the address space of this target.
    pub fn plan(&self, catalog: &Catalog, selected: &[TensorSlice]) -> Result<Plan, Error> {
        let selected_bytes = ties::distinct_bytes(catalog, selected, &self.options);
        let laid_out = extents::lay_out(catalog, selected, selected_bytes, &self.options)?;
        let mapped_bytes = laid_out.mapped.iter().fold(0_u64, |sum, (_, range)| sum.saturating_add(range.len()));
        let resident = if self.options.access == (Access::Map { resident: true }) { mapped_bytes } else { 0 };
        let buffered = match self.options.access {
            // All buffers together, up to the limit.
            Access::Stream(Buffers { limit, .. }) => laid_out
                .extents
                .iter()
                .fold(0_u64, |sum, extent| sum.saturating_add(extent.buffer_bytes as u64))
                .min(limit),
            _ => 0,
        };
        let needed = laid_out.arena_bytes.saturating_add(resident).saturating_add(buffered);
        if let Some(memory) = self.options.memory.as_ref().filter(|memory| needed > memory.available) {
            let MemoryLimit { available, limit } = memory.clone();
            let file = catalog.files().first().map_or_else(String::new, |file| file.path.clone());
            return Err(Error::NotEnoughMemory { file, needed, available, limit });
        }
        // Reads are numbered in 32 bits. Each extent may add one to what its bytes need.
        let gathered = self.options.max_gather_read(needed);
        let reads = laid_out.arena_bytes / self.options.shortest_chunk()
            + laid_out.strided_span / gathered
            + laid_out.extents.len() as u64;
        if reads > u64::from(u32::MAX / 2) {
            return Err(Error::TooMany { what: "reads" });
        }
        let arena_bytes = extents::in_memory(laid_out.arena_bytes)?;
        let (mut extents, placements) = (laid_out.extents, laid_out.placements);
        let chunks = match self.options.access {
            Access::Stream(buffers) => {
                if buffers.order == Order::Completion {
                    extents = chunks::interleave(extents, |extent| extent.file.index());
                }
                // In stream order each buffer is completed as early as possible, so that few are
                // partly filled.
                chunks::cut(&extents, &placements, &self.options, gathered)
            }
            _ => chunks::interleave(chunks::cut(&extents, &placements, &self.options, gathered), chunks::lane),
        };
        Ok(Plan {
            placements,
            extents,
            chunks,
            mapped: laid_out.mapped,
            arena_bytes,
            selected_bytes,
            streamed: matches!(self.options.access, Access::Stream(_)),
            slices: laid_out.slices,
        })
    }
}
