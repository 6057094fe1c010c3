//! What a selection asks of each file: how many bytes, and whether direct reads can bring any of them to where they go.

use crate::catalog::Catalog;
use crate::plan::{PlanOptions, tensor_alignment};
use crate::strided_range::StridedRange;
use crate::tensor_slice::TensorSlice;
use crate::units::Alignment;
use alloc::vec;
use alloc::vec::Vec;

/// What a load asks of the files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// By file.
    pub files: Vec<FileDemand>,
    /// The bytes of all files together.
    pub selected_bytes: u64,
    /// Those that are copied even where files are viewed.
    pub copied_bytes: u64,
}

/// What a load asks of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileDemand {
    /// The bytes that are read of it.
    pub selected_bytes: u64,
    /// Whether any selected tensor lies in the file as it must in memory.
    pub aligned: bool,
}

impl Demand {
    /// Adds up what `selected` asks for. Tensors are aligned to at least `alignment`.
    #[must_use]
    pub fn new(catalog: &Catalog, selected: &[TensorSlice], alignment: Alignment) -> Self {
        let mut files = vec![FileDemand::default(); catalog.files().len()];
        let (mut selected_bytes, mut copied_bytes) = (0_u64, 0_u64);
        let parts = selected.iter().map(|part| (part, catalog.tensor(part.tensor())));
        let mut before: Option<&TensorSlice> = None;
        for (part, tensor) in parts.filter(|(part, tensor)| part.byte_len(tensor) > 0) {
            // Tensors that are the same bytes are read once.
            if before.replace(part).is_some_and(|before| part.same_bytes(before, catalog)) {
                continue;
            }
            let (range, strided) = (part.range(&tensor), part.strided(&tensor));
            let tensor_alignment = tensor_alignment(&tensor, alignment);
            let in_place = strided.is_none() && tensor_alignment.divides(range.start());
            // Pieces are gathered from buffers of their own, so that direct reads may bring them from anywhere.
            let file = &mut files[tensor.file.index()];
            file.aligned |= in_place || strided.is_some();
            // What is read along with them takes its time too.
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
