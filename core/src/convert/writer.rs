//! What a format implements so that it can be written.

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

    /// Returns what is written, in a sentence for the help of `--to`.
    fn summary(&self) -> &'static str;

    /// Returns true when the format has tensors of that dtype.
    fn holds(&self, dtype: DType) -> bool;

    /// Returns what to do with tensors that the format cannot hold, to follow a message.
    fn advice(&self) -> &'static str;

    /// Returns true when the format has a place for pairs of texts.
    fn holds_metadata(&self) -> bool;

    /// Divides the tensors among files, adds the files to the layout, and gives each tensor its place.
    ///
    /// # Errors
    /// When the format cannot express the tensors.
    fn lay_out(
        &self,
        layout: &mut Layout,
        items: &[Item<'_>],
        metadata: &[(&str, &str)],
        split: Split,
    ) -> Result<(), ConvertError>;
}
