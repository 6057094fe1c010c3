//! Tensors that are the same bytes of a file, as they shared their storage when they were saved: read once, to one place.
//!
//! A catalog has them side by side, and so has a selection that is not listed; what of them follows one another in a selection is planned as
//! one. Where the caller lists something between them, or wants another part of each, they are read for each: of a stream, the first may be
//! gone by then. They are so too where they come in parts and in order, as the first is to be over before the second begins.

use super::extents::buffer_bytes;
use super::{Access, Buffers, Order, PlanOptions};
use crate::catalog::Catalog;
use crate::tensor_slice::TensorSlice;

/// How many at the beginning of `selected` are planned as one: one at least, if there is any.
pub(super) fn together(catalog: &Catalog, selected: &[TensorSlice], options: &PlanOptions) -> usize {
    let Some((first, rest)) = selected.split_first() else { return 0 };
    // In most checkpoints, so that they do not pay for others.
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

/// Whether it may come in parts, and in order.
fn comes_in_parts(catalog: &Catalog, slice: &TensorSlice, options: &PlanOptions) -> bool {
    match options.access {
        // What alignment adds to a buffer is less than the other half of it.
        Access::Stream(buffers @ Buffers { split: true, order: Order::File | Order::Selection, .. }) => {
            slice.byte_len(&catalog.tensor(slice.tensor())) > buffer_bytes(&buffers) / 2
        }
        _ => false,
    }
}

/// Whether what cuts the larger type's blocks apart does so with the other's, so that parts of a stream can keep to both.
fn cut_alike(catalog: &Catalog, a: &TensorSlice, b: &TensorSlice) -> bool {
    let bytes = |slice: &TensorSlice| catalog.tensor(slice.tensor()).dtype.block_bytes();
    let (a, b) = (bytes(a), bytes(b));
    a == b || (a.is_power_of_two() && b.is_power_of_two())
}

/// The bytes of what is selected, those that are planned as one counted once.
pub(super) fn distinct_bytes(catalog: &Catalog, mut selected: &[TensorSlice], options: &PlanOptions) -> u64 {
    let mut bytes = 0_u64;
    while let Some(slice) = selected.first() {
        bytes = bytes.saturating_add(slice.byte_len(&catalog.tensor(slice.tensor())));
        selected = &selected[together(catalog, selected, options)..];
    }
    bytes
}
