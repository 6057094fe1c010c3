//! A whole buffer with what it holds.

use crate::catalog::{Catalog, TensorInfo};
use crate::plan::{PlacedPart, Plan};
use crate::units::ExtentId;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

/// A buffer of a stream that is whole. Dropping it makes room for what is still to be read.
pub struct FilledBuffer<B> {
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    extent: ExtentId,
    buffer: B,
}

/// Bytes of a tensor in a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPart<'a> {
    /// The tensor, or the slice of it that was selected.
    pub tensor: TensorInfo<'a>,
    /// The first of these bytes, counted from its start.
    pub offset: u64,
    /// Where they are in the buffer.
    pub bytes: Range<usize>,
}

impl<B> FilledBuffer<B> {
    /// The buffer of an extent of that plan, of that catalog.
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, extent: ExtentId, buffer: B) -> Self {
        Self { catalog, plan, extent, buffer }
    }

    /// Which extent of the plan it is.
    #[must_use]
    pub fn extent(&self) -> ExtentId {
        self.extent
    }

    /// What it holds, in the order of the file. A tensor without a byte has an empty part.
    pub fn parts(&self) -> impl Iterator<Item = TensorPart<'_>> {
        self.placed_parts().map(|part| {
            let tensor = self.plan.tensor(&self.catalog, part.placement);
            TensorPart { tensor, offset: part.offset, bytes: part.bytes }
        })
    }

    /// The same by placements of the plan.
    pub fn placed_parts(&self) -> impl Iterator<Item = PlacedPart> + '_ {
        self.plan.parts(self.extent)
    }

    /// The catalog of its tensors.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The plan that it is an extent of.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The memory.
    #[must_use]
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// The memory alone.
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
