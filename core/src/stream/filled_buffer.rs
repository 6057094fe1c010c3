//! A filled buffer and its contents.

use crate::catalog::{Catalog, TensorInfo};
use crate::plan::{PlacedPart, Plan};
use crate::units::ExtentId;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

/// A filled buffer of a stream. Dropping it frees memory for further reads.
pub struct FilledBuffer<B> {
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    extent: ExtentId,
    buffer: B,
}

/// The bytes of a tensor in a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPart<'a> {
    /// The tensor, or its selected slice.
    pub tensor: TensorInfo<'a>,
    /// The offset of the first byte in the tensor or slice.
    pub offset: u64,
    /// The range in the buffer.
    pub buffer_range: Range<usize>,
}

impl<B> FilledBuffer<B> {
    /// Creates the filled buffer of an extent. The plan must be of this catalog.
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, extent: ExtentId, buffer: B) -> Self {
        Self { catalog, plan, extent, buffer }
    }

    /// Returns the extent of the plan.
    #[must_use]
    pub fn extent(&self) -> ExtentId {
        self.extent
    }

    /// Returns the contents in the order of the file. A tensor without bytes has an empty part.
    pub fn parts(&self) -> impl Iterator<Item = TensorPart<'_>> {
        self.placed_parts().map(|part| {
            let tensor = self.plan.tensor(&self.catalog, part.placement);
            TensorPart { tensor, offset: part.offset, buffer_range: part.buffer_range }
        })
    }

    /// Returns the contents by placements of the plan.
    pub fn placed_parts(&self) -> impl Iterator<Item = PlacedPart> + '_ {
        self.plan.parts(self.extent)
    }

    /// Returns the catalog of its tensors.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Returns the plan of its extent.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the memory.
    #[must_use]
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// Returns the memory and drops the rest.
    #[must_use]
    pub fn into_buffer(self) -> B {
        self.buffer
    }
}

impl<B> fmt::Debug for FilledBuffer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilledBuffer").field("extent", &self.extent).finish_non_exhaustive()
    }
}
