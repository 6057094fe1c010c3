//! Ties: tensors with the same file bytes, because they shared storage when they were saved. They
//! are read once, to one place.
//!
//! Tied tensors are adjacent in a catalog, and in a selection that is not listed. Adjacent tied
//! tensors of a selection are planned as one. They are read separately in these cases:
//!
//! - The caller lists another tensor between them, or selects different slices. In a stream the
//!   first may be gone by then.
//! - They arrive in parts and in order, because the first must end before the second starts.

use super::{Access, Buffers, Order, PlanOptions};
use crate::catalog::Catalog;
use crate::tensor_slice::TensorSlice;

/// Returns how many tensors at the start of `selected` are planned as one. At least one, if there
/// is any.
pub(super) fn together(catalog: &Catalog, selected: &[TensorSlice], options: &PlanOptions) -> usize {
    let Some((first, rest)) = selected.split_first() else { return 0 };
    // Most checkpoints have no ties and should not pay for the lookup.
    if !catalog.has_ties() {
        return 1;
    }
    if rest.first().is_none_or(|second| !second.same_bytes(first, catalog)) || comes_in_parts(catalog, first, options) {
        return 1;
    }
    let is_cut = matches!(options.access, Access::Stream(Buffers { split: true, .. }));
    let joins =
        |slice: &&TensorSlice| slice.same_bytes(first, catalog) && (!is_cut || cut_alike(catalog, first, slice));
    1 + rest.iter().take_while(joins).count()
}

/// Returns true if the tensor may arrive in parts and in order.
fn comes_in_parts(catalog: &Catalog, slice: &TensorSlice, options: &PlanOptions) -> bool {
    match options.access {
        // Alignment adds less than half of a buffer.
        Access::Stream(buffers @ Buffers { split: true, order: Order::File | Order::Selection, .. }) => {
            slice.byte_len(&catalog.tensor(slice.tensor())) > buffers.max_shared_bytes() / 2
        }
        _ => false,
    }
}

/// Returns true if cuts between the larger type's blocks are also between the other's, so that the
/// parts of a stream suit both.
fn cut_alike(catalog: &Catalog, a: &TensorSlice, b: &TensorSlice) -> bool {
    let bytes = |slice: &TensorSlice| catalog.tensor(slice.tensor()).dtype.block_bytes();
    let (a, b) = (bytes(a), bytes(b));
    a == b || (a.is_power_of_two() && b.is_power_of_two())
}

/// Returns the number of selected bytes. Tensors that are planned as one count once.
pub(super) fn distinct_bytes(catalog: &Catalog, mut selected: &[TensorSlice], options: &PlanOptions) -> u64 {
    let mut bytes = 0_u64;
    while let Some(slice) = selected.first() {
        bytes = bytes.saturating_add(slice.byte_len(&catalog.tensor(slice.tensor())));
        selected = &selected[together(catalog, selected, options)..];
    }
    bytes
}
