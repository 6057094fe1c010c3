//! Lays out a conversion: all output files, their headers and indexes, and the location of every
//! byte, before anything is read or written.
//!
//! The selected tensors become items: they get new names ([`Rename`]) and a dtype of the target
//! format, in the order of the source. The target's [`Writer`] divides them into files ([`Split`])
//! and lays these out. The result is a [`Layout`]. A platform writes the
//! [`start`](OutputFile::start) of each file and each tensor at its [`Destination`]. Tensors that
//! the target cannot express are rejected here.
//!
//! **Tied weights**, tensors with the same bytes in the source, share a record in ServerlessLLM.
//! Safetensors has no shared records, so each of them is written with its name and its bytes.

mod companions;
mod metadata;
mod rename;
mod split;
mod writer;

pub use crate::error::convert::{ConvertError, Offending, RenameError, WriteError};
pub use companions::is_companion;
pub use rename::Rename;
pub use split::Split;
pub use writer::Writer;

pub(crate) use split::evenly;

use crate::catalog::{Catalog, TensorInfo};
use crate::dtype::DType;
use crate::metadata::MetadataValue;
use crate::names::sorted_by_name;
use crate::tensor_slice::TensorSlice;
use crate::units::TensorId;
use crate::warning::Warning;
use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// The maximum size of a header or an index in bytes. No reader accepts a longer one.
pub(crate) const MAX_START_BYTES: u64 = 100_000_000;

/// The options of a conversion.
#[derive(Debug, Clone)]
pub struct Options {
    /// The writer of the target format.
    pub writer: &'static dyn Writer,
    /// How to divide the tensors into files.
    pub split: Split,
    /// The renaming rules. The first one that matches counts.
    pub renames: Vec<Rename>,
}

/// A tensor to write.
#[derive(Debug)]
pub struct Item<'a> {
    /// The source tensor.
    pub source: TensorInfo<'a>,
    /// The new name.
    pub name: Cow<'a, str>,
    /// The element type, which the target format supports.
    pub dtype: DType,
}

/// The start of a tensor's bytes in the output. They are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The file, as an index into [`Layout::files`].
    pub file: u32,
    /// The offset of the first byte in the file.
    pub offset: u64,
}

/// A file to write.
///
/// Its bytes are [`start`](Self::start), then its tensors' bytes from the source, and zeros
/// everywhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// The plain file name.
    pub name: String,
    /// The length in bytes.
    pub bytes: u64,
    /// The first bytes: the header of a tensor file, or all of an index.
    pub start: Vec<u8>,
}

/// The files of a conversion, and the destination of each tensor.
#[derive(Debug)]
pub struct Layout {
    files: Vec<OutputFile>,
    /// The destinations, by source tensor.
    destinations: Vec<Option<Destination>>,
    tensors: usize,
    tensor_bytes: u64,
    warnings: Vec<Warning>,
}

impl Layout {
    /// Lays out the `selected` tensors of a catalog.
    ///
    /// `metadata` is the source's, with unique keys and without those that [describe its
    /// layout](crate::format::Format::is_layout_key).
    ///
    /// # Errors
    /// Fails if the target cannot express a tensor, names collide, a renaming rule matches nothing,
    /// or more files than tensors are requested.
    pub fn new(
        catalog: &Catalog,
        selected: &[TensorSlice],
        metadata: &[(String, MetadataValue)],
        options: &Options,
    ) -> Result<Self, ConvertError> {
        let items = items(catalog, selected, options)?;
        check_names(&items)?;
        let writer = options.writer;
        let metadata = metadata::Kept::of(catalog.format(), writer.format(), metadata);
        let mut layout = Self {
            files: Vec::new(),
            destinations: vec![None; catalog.len()],
            tensors: items.len(),
            tensor_bytes: 0,
            warnings: Vec::new(),
        };
        writer.lay_out(&mut layout, &items, &metadata.pairs(), options.split)?;
        layout.warnings.extend(metadata.lost(writer));
        Ok(layout)
    }

    /// Returns the files.
    #[must_use]
    pub fn files(&self) -> &[OutputFile] {
        &self.files
    }

    /// Returns where a tensor goes, or `None` if it is not selected or tied to one that is already
    /// written.
    #[must_use]
    pub fn destination(&self, tensor: TensorId) -> Option<Destination> {
        self.destinations.get(tensor.index()).copied().flatten()
    }

    /// Returns the number of tensors in the output, by name.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// Returns the number of tensor bytes to read and write.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensor_bytes
    }

    /// Returns the total size of all files in bytes.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Returns warnings for the user about a valid conversion.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Sets the destination of a tensor. Returns `None` if the sizes of all tensors exceed 64 bits.
    pub fn place(&mut self, tensor: &TensorInfo<'_>, destination: Destination) -> Option<()> {
        self.tensor_bytes = self.tensor_bytes.checked_add(tensor.byte_len())?;
        *self.destinations.get_mut(tensor.id.index())? = Some(destination);
        Some(())
    }

    /// Adds a file.
    pub fn push_file(&mut self, file: OutputFile) {
        self.files.push(file);
    }

    /// Adds an index, a file whose bytes are all known.
    ///
    /// # Errors
    /// Fails if it is longer than readers accept.
    pub fn push_index(&mut self, name: &str, start: Vec<u8>) -> Result<(), ConvertError> {
        let bytes = start.len() as u64;
        if bytes > MAX_START_BYTES {
            let source = WriteError::HeaderTooLarge { needed: bytes, limit: MAX_START_BYTES };
            return Err(ConvertError::File { file: name.to_owned(), source });
        }
        self.files.push(OutputFile { name: name.to_owned(), bytes, start });
        Ok(())
    }
}

/// Returns the selected tensors with their new names, if the target supports all their types.
fn items<'a>(catalog: &'a Catalog, selected: &[TensorSlice], options: &Options) -> Result<Vec<Item<'a>>, ConvertError> {
    let writer = options.writer;
    let tensors = || selected.iter().map(|slice| catalog.tensor(slice.tensor()));
    if let Some(slice) = selected.iter().find(|slice| slice.as_slice().is_some()) {
        return Err(ConvertError::Slice { tensor: catalog.tensor(slice.tensor()).name.to_owned() });
    }
    let dtype = |tensor: &TensorInfo<'_>| plain_dtype(tensor).filter(|&dtype| writer.holds(dtype));
    let inexpressible = tensors().filter(|tensor| dtype(tensor).is_none());
    if let Some(tensors) = Offending::collect(inexpressible.map(|tensor| (tensor.name, tensor.dtype.name()))) {
        let (target, advice) = (writer.format(), writer.advice());
        return Err(ConvertError::Inexpressible { target, advice, tensors });
    }
    let mut used = vec![false; options.renames.len()];
    let items = tensors()
        .filter_map(|source| {
            let (name, rule) = rename::renamed(&options.renames, source.name);
            if let Some(rule) = rule {
                used[rule] = true;
            }
            Some(Item { dtype: dtype(&source)?, source, name })
        })
        .collect();
    match used.iter().zip(&options.renames).find(|(used, _)| !**used) {
        Some((_, rule)) => Err(ConvertError::RenameUnused { rule: rule.to_string() }),
        None => Ok(items),
    }
}

/// Returns the dtype of a plain tensor, even if ggml has its own name for it.
fn plain_dtype(tensor: &TensorInfo<'_>) -> Option<DType> {
    tensor.dtype.plain().or_else(|| tensor.dtype.ggml()?.plain())
}

/// Rejects duplicate names.
fn check_names(items: &[Item<'_>]) -> Result<(), ConvertError> {
    let order = sorted_by_name(items.iter().map(|item| item.name.as_ref()));
    let item = |number: u32| &items[number as usize];
    match order.windows(2).find(|pair| item(pair[0]).name == item(pair[1]).name) {
        Some(pair) => {
            let source = |number| item(number).source.name.to_owned();
            let name = item(pair[0]).name.as_ref().to_owned();
            Err(ConvertError::SameName { name, first: source(pair[0]), second: source(pair[1]) })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
