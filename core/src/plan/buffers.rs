//! What a stream adds to a plan: extents with buffers of their own, in an order that the consumer chooses.
//!
//! Every extent of a stream is what one buffer holds. A tensor lies whole in one extent, unless it is longer than a buffer may be
//! and the consumer takes parts: then each extent holds a part of it.

use super::Plan;
use crate::units::ExtentId;
use core::ops::Range;

/// How a streamed checkpoint is cut into buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Tensors that follow one another share a buffer of up to so many bytes. At least 64 KiB.
    pub buffer_bytes: u64,
    /// The most that all buffers together may have, and so a single one, in bytes; at least `buffer_bytes`.
    pub limit: u64,
    /// Whether a larger tensor than `buffer_bytes` is cut into parts; if not, it has a buffer of its own size.
    pub split: bool,
    /// In which order.
    pub order: Order,
}

/// The order in which a streamed checkpoint's tensors are delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// As they land: the fastest.
    #[default]
    Completion,
    /// File by file, as they are stored.
    File,
    /// As the selection lists them.
    Selection,
}

/// The bytes of a tensor, or of a slice, that one buffer of a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedPart {
    /// The placement, by its number.
    pub placement: usize,
    /// The first of these bytes, counted from the tensor's start; of a slice, from the slice's.
    pub offset: u64,
    /// Where they are in the extent's buffer.
    pub bytes: Range<usize>,
}

impl Plan {
    /// What lies in an extent of a stream: its tensors' bytes, in the order of the file. A tensor without a byte has an
    /// empty part in one extent.
    ///
    /// # Panics
    /// When the plan has no such extent.
    pub fn parts(&self, extent: ExtentId) -> impl Iterator<Item = PlacedPart> + '_ {
        let extent = &self.extents[extent.index()];
        extent.tensors.clone().filter_map(move |placement| {
            let tensor = self.placements[placement].range;
            if tensor.is_empty() {
                return Some(PlacedPart { placement, offset: 0, bytes: extent.buffer_offset..extent.buffer_offset });
            }
            if let Some(strided) = extent.strided {
                let start = strided.before(extent.range.start());
                let len = (strided.before(extent.range.end()) - start) as usize;
                return Some(PlacedPart {
                    placement,
                    offset: start,
                    bytes: extent.buffer_offset..extent.buffer_offset + len,
                });
            }
            let start = tensor.start().max(extent.range.start());
            let end = tensor.end().min(extent.range.end());
            // Within a buffer, whose length is a usize.
            let at = extent.buffer_offset + start.checked_sub(extent.range.start())? as usize;
            let len = end.checked_sub(start).filter(|&len| len > 0)? as usize;
            Some(PlacedPart { placement, offset: start - tensor.start(), bytes: at..at + len })
        })
    }

    /// The placements that no extent holds although the checkpoint is streamed: those of a selection without a single byte.
    #[must_use]
    pub fn without_extent(&self) -> Range<usize> {
        0..if self.extents.is_empty() { self.placements.len() } else { 0 }
    }
}
