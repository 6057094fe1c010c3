//! Adds to a plan what a stream needs: extents with their own buffers, in an order that the
//! consumer chooses.
//!
//! Every extent of a stream fills one buffer. A tensor is contiguous in one extent. If it is longer
//! than a buffer may be and the consumer accepts parts, each extent holds a part of it.

use super::Plan;
use crate::units::{ExtentId, to_usize};
use core::ops::Range;

/// The minimum size of a stream's buffer that tensors share.
const MIN_BUFFER_BYTES: u64 = 64 << 10;

/// How a streamed checkpoint is divided into buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// The maximum size of a buffer that tensors share, in bytes. At least 64 KiB.
    pub buffer_bytes: u64,
    /// The maximum size of all buffers together in bytes, and so of each. At least `buffer_bytes`.
    pub limit: u64,
    /// Whether to split a tensor larger than `buffer_bytes`. If not, it gets a buffer of its own
    /// size.
    pub split: bool,
    /// The order of delivery.
    pub order: Order,
}

impl Buffers {
    /// Returns the maximum size of a buffer that tensors share.
    pub(super) fn max_shared_bytes(&self) -> u64 {
        self.buffer_bytes.max(MIN_BUFFER_BYTES)
    }
}

/// The order in which a streamed checkpoint's tensors are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// As tensors complete. This is the fastest order.
    #[default]
    Completion,
    /// File by file, in the order of the bytes.
    File,
    /// In the order of the selection.
    Selection,
}

/// The bytes of a tensor or a slice that one buffer of a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedPart {
    /// The index of the placement.
    pub placement: usize,
    /// The offset of the first byte in the tensor or slice.
    pub offset: u64,
    /// The range in the extent's buffer.
    pub buffer_range: Range<usize>,
}

impl Plan {
    /// Returns the parts that an extent of a stream holds, in the order of the file.
    ///
    /// A tensor without bytes has an empty part in one extent.
    ///
    /// # Panics
    /// Panics if the plan has no such extent.
    pub fn parts(&self, extent: ExtentId) -> impl Iterator<Item = PlacedPart> + '_ {
        let extent = &self.extents[extent.index()];
        extent.tensors.clone().filter_map(move |placement| {
            let tensor = self.placements[placement].range;
            if tensor.is_empty() {
                return Some(PlacedPart {
                    placement,
                    offset: 0,
                    buffer_range: extent.buffer_offset..extent.buffer_offset,
                });
            }
            if let Some(strided) = extent.strided {
                let start = strided.before(extent.range.start());
                let len = to_usize(strided.before(extent.range.end()) - start);
                return Some(PlacedPart {
                    placement,
                    offset: start,
                    buffer_range: extent.buffer_offset..extent.buffer_offset + len,
                });
            }
            let start = tensor.start().max(extent.range.start());
            let end = tensor.end().min(extent.range.end());
            let at = extent.buffer_offset + to_usize(start.checked_sub(extent.range.start())?);
            let len = to_usize(end.checked_sub(start).filter(|&len| len > 0)?);
            Some(PlacedPart { placement, offset: start - tensor.start(), buffer_range: at..at + len })
        })
    }

    /// Returns the placements of a stream that no extent holds: all of a selection without bytes,
    /// otherwise none.
    #[must_use]
    pub fn without_extent(&self) -> Range<usize> {
        0..if self.extents.is_empty() { self.placements.len() } else { 0 }
    }
}
