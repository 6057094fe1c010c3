//! Where each tensor of a checkpoint goes in another one that is to be written: all files, their headers and indexes, and the place of
//! every byte, before anything is read or written.
//!
//! From a catalog and what is selected of it come items: tensors with their new names ([`Rename`]) and a dtype that the target has,
//! in the order of the source. The target's [`Writer`] divides them among files ([`Split`]) and lays these
//! out. What it comes to is a [`Layout`]; a platform has to write its files' [`start`](OutputFile::start)s and each tensor at its
//! [`Destination`]. What the target cannot express is refused here.
//!
//! **Tied weights**, tensors that share their bytes in the source, share a record in ServerlessLLM. Safetensors has no such thing: there each of
//! them is written, so that every name that was there is still there, with its bytes.

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
use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// A header or an index longer than this is not written, in bytes: no reader accepts it.
pub(crate) const MAX_START_BYTES: u64 = 100_000_000;

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Options {
    /// What writes the format.
    pub writer: &'static dyn Writer,
    /// How many files there are.
    pub split: Split,
    /// Other names for tensors; of several rules that match, the first counts.
    pub renames: Vec<Rename>,
}

/// A tensor to be written.
#[derive(Debug)]
pub struct Item<'a> {
    /// The tensor that is read.
    pub source: TensorInfo<'a>,
    /// Its new name.
    pub name: Cow<'a, str>,
    /// The type of its elements, which the format holds.
    pub dtype: DType,
}

/// Where a tensor's bytes go: one after another, from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The file, as an index into [`Layout::files`].
    pub file: u32,
    /// The first byte in it.
    pub offset: u64,
}

/// A file that is to be written. Of its bytes those come from here that [`start`](Self::start) has, and those of its tensors from the
/// source; all others are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name, a plain one.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its first bytes: the header of a file of tensors, all of an index.
    pub start: Vec<u8>,
}

/// Everything that is to be written, and where.
#[derive(Debug)]
pub struct Layout {
    files: Vec<OutputFile>,
    /// By the source's tensors.
    destinations: Vec<Option<Destination>>,
    tensors: usize,
    tensor_bytes: u64,
    notes: Vec<String>,
}

impl Layout {
    /// Lays out what is `selected` of a catalog. `metadata` is what the source says of itself, each key once, without those that
    /// [describe its layout](crate::format::Format::is_layout_key).
    ///
    /// # Errors
    /// When the target cannot express a tensor, names collide, a rule to rename matches nothing, or there are to be more files than
    /// tensors.
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
            notes: Vec::new(),
        };
        writer.lay_out(&mut layout, &items, &metadata.pairs(), options.split)?;
        layout.notes.extend(metadata.lost(writer));
        Ok(layout)
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[OutputFile] {
        &self.files
    }

    /// Where a tensor of the catalog goes; `None` when it is not selected, or is written already, as another that shares its bytes.
    #[must_use]
    pub fn destination(&self, tensor: TensorId) -> Option<Destination> {
        self.destinations.get(tensor.index()).copied().flatten()
    }

    /// How many tensors the output has, by name.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.tensors
    }

    /// The bytes of all tensors that have a destination: what is to be read and written.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensor_bytes
    }

    /// The bytes of all files.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// What a user should know although nothing is wrong.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Gives a tensor its place; its bytes are then written there. Returns `None` when all tensors together pass 64 bits.
    pub fn place(&mut self, tensor: &TensorInfo<'_>, destination: Destination) -> Option<()> {
        self.tensor_bytes = self.tensor_bytes.checked_add(tensor.byte_len())?;
        *self.destinations.get_mut(tensor.id.index())? = Some(destination);
        Some(())
    }

    /// Adds a file.
    pub fn push_file(&mut self, file: OutputFile) {
        self.files.push(file);
    }

    /// Adds an index, a file of which all bytes are known.
    ///
    /// # Errors
    /// When it is longer than readers accept.
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

/// What is selected, with its new names, when the target has types for all of it.
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

/// The dtype of a tensor whose elements stand for themselves, also where ggml calls it by a name of its own.
fn plain_dtype(tensor: &TensorInfo<'_>) -> Option<DType> {
    tensor.dtype.plain().or_else(|| tensor.dtype.ggml()?.plain())
}

/// Refuses two tensors of one name.
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
