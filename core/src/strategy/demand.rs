//! The bytes that a selection needs of each file, and whether direct reads suit any.

use crate::catalog::Catalog;
use crate::plan::{PlanOptions, tensor_alignment};
use crate::strided_range::StridedRange;
use crate::tensor_slice::TensorSlice;
use crate::units::Alignment;
use alloc::vec;
use alloc::vec::Vec;

/// The bytes that a load needs of the files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The needs by file.
    pub files: Vec<FileDemand>,
    /// The selected bytes of all files.
    pub selected_bytes: u64,
    /// The bytes that are copied even if files are mapped.
    pub copied_bytes: u64,
}

/// The bytes that a load needs of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileDemand {
    /// The number of bytes to read.
    pub selected_bytes: u64,
    /// Whether any selected tensor is aligned in the file as it must be in memory.
    pub aligned: bool,
}

impl Demand {
    /// Computes the demand of `selected`. Tensors are aligned to at least `alignment`.
    #[must_use]
    pub fn new(catalog: &Catalog, selected: &[TensorSlice], alignment: Alignment) -> Self {
        let mut files = vec![FileDemand::default(); catalog.files().len()];
        let (mut selected_bytes, mut copied_bytes) = (0_u64, 0_u64);
        let parts = selected.iter().map(|part| (part, catalog.tensor(part.tensor())));
        let mut before: Option<&TensorSlice> = None;
        for (part, tensor) in parts.filter(|(part, tensor)| part.byte_len(tensor) > 0) {
            // Tensors with the same bytes are read once.
            if before.replace(part).is_some_and(|before| part.same_bytes(before, catalog)) {
                continue;
            }
            let (range, strided) = (part.range(&tensor), part.strided(&tensor));
            let tensor_alignment = tensor_alignment(&tensor, alignment);
            let in_place = strided.is_none() && tensor_alignment.divides(range.start());
            // Slices are gathered through separate buffers, so direct reads can fetch them from any
            // offset.
            let file = &mut files[tensor.file.index()];
            file.aligned |= in_place || strided.is_some();
            // Gaps that are read along take time too.
            let along = strided.is_some_and(|strided| strided.gap() <= PlanOptions::default().max_read_gap);
            let bytes = if along { range.len() } else { strided.map_or(range.len(), StridedRange::byte_len) };
            file.selected_bytes += bytes;
            selected_bytes = selected_bytes.saturating_add(bytes);
            let viewed = in_place && tensor_alignment <= Alignment::PAGE;
            copied_bytes = copied_bytes.saturating_add(if viewed { 0 } else { bytes });
        }
        Self { files, selected_bytes, copied_bytes }
    }
}
