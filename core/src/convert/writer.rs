//! The trait of formats that can be written.

use super::{ConvertError, Item, Layout, Split};
use crate::dtype::DType;
use crate::format_id::FormatId;
use core::fmt;

/// Lays out checkpoints of one format.
///
/// A format that can be written returns one from [`Format::writer`](crate::format::Format::writer).
pub trait Writer: fmt::Debug + Sync {
    /// Returns the format.
    fn format(&self) -> FormatId;

    /// Returns a description of the output in one sentence, for a list of choices.
    fn summary(&self) -> &'static str;

    /// Returns true if the format supports this dtype.
    fn holds(&self, dtype: DType) -> bool;

    /// Returns advice for tensors that the format does not support. It follows a message.
    fn advice(&self) -> &'static str;

    /// Returns true if the format can store pairs of texts.
    fn holds_metadata(&self) -> bool;

    /// Divides the tensors into files, adds the files to the layout, and places each tensor.
    ///
    /// # Errors
    /// Fails if the format cannot express the tensors.
    fn lay_out(
        &self,
        layout: &mut Layout,
        items: &[Item<'_>],
        metadata: &[(&str, &str)],
        split: Split,
    ) -> Result<(), ConvertError>;
}
