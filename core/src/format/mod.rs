//! The checkpoint formats: from untrusted bytes to a [`Catalog`].
//!
//! A format is one file here that implements [`Format`], and one line in [`FORMATS`]. Everything
//! else uses the registry:
//!
//! - Discovery asks which names and which first bytes a format claims.
//! - The header reader asks the format's [`HeaderParser`] which bytes it needs.
//! - A conversion asks for its [`Writer`].
//!
//! No format does I/O. Each takes names and bytes, and returns names or how many more bytes of a
//! file it needs.
//!
//! Input is untrusted. A parser allocates in proportion to the bytes it has, never by a number that
//! they claim.

mod dims;
mod file_kind;
pub mod gguf;
mod numbers;
pub mod safetensors;
pub mod serverlessllm;
pub mod shard_index;
mod text;

pub use file_kind::{FileKind, SNIFF_BYTES, extension, index_format, is_pickle_name};
pub use gguf::GGUF;
pub use safetensors::SAFETENSORS;
pub use serverlessllm::SERVERLESSLLM;

pub(crate) use shard_index::is_plain_name;
pub(crate) use text::Text;

use crate::catalog::{Catalog, CatalogBuilder};
use crate::convert::Writer;
use crate::error::Error;
use crate::format_id::FormatId;
use crate::warning::Warning;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// The registered formats. The parser of the first one reports errors for files that no format
/// claims.
pub const FORMATS: &[&dyn Format] = &[&safetensors::Safetensors, &gguf::Gguf, &serverlessllm::ServerlessLlm];

/// The maximum size of an index in bytes. The largest known ones have a few MB.
pub const MAX_INDEX_BYTES: u64 = 100_000_000;

/// Returns the registered format with that name.
#[must_use]
pub fn find(id: FormatId) -> Option<&'static dyn Format> {
    FORMATS.iter().find(|format| format.id() == id).copied()
}

/// A checkpoint format.
///
/// To add one:
///
/// 1. Write a file in this folder with a unit struct that implements this trait and a parser that
///    implements [`HeaderParser`]. Only the required methods matter to a format whose files need
///    neither an index nor one another.
/// 2. Add the struct to [`FORMATS`].
/// 3. Add tests, a fuzz target, and a row to the table of formats in the documentation.
///
/// This one has a magic, and all bytes behind it are one tensor:
///
/// ```
/// use floodtide_core::format::{Claim, FileKind, FileStart, Format, HeaderParser, HeaderState};
/// use floodtide_core::{ByteRange, CatalogBuilder, DType, Error, FormatId};
///
/// const RAW: FormatId = FormatId::new("raw", "RAW");
///
/// #[derive(Debug)]
/// struct Raw;
///
/// impl Format for Raw {
///     fn id(&self) -> FormatId {
///         RAW
///     }
///     fn expected(&self) -> &'static str {
///         "*.raw files"
///     }
///     fn claim(&self, name: &str) -> Option<Claim> {
///         name.ends_with(".raw").then_some(Claim::File)
///     }
///     fn sniff(&self, start: &[u8]) -> bool {
///         start.starts_with(b"RAW1")
///     }
///     fn parser(&self) -> Option<Box<dyn HeaderParser>> {
///         Some(Box::new(RawParser))
///     }
/// }
///
/// #[derive(Debug)]
/// struct RawParser;
///
/// impl HeaderParser for RawParser {
///     fn format(&self) -> FormatId {
///         RAW
///     }
///     fn first_read(&self, len: u64) -> u64 {
///         len.min(4)
///     }
///     fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, Error> {
///         let FileStart { name, len, bytes } = start;
///         if !bytes.starts_with(b"RAW1") {
///             return Err(Error::format(name, "the file does not begin with \"RAW1\""));
///         }
///         let range = ByteRange::new(4, len).expect("the magic is there");
///         let file = catalog.add_file(name, len)?;
///         catalog.add_tensor(file, name, DType::U8.into(), &[len - 4], range)?;
///         Ok(HeaderState::Complete)
///     }
/// }
///
/// let file = b"RAW1\x07\x07\x07";
/// let formats: &[&dyn Format] = &[&Raw];
/// let FileKind::Checkpoint(format) = FileKind::sniff(formats, file) else { panic!("it begins with the magic") };
/// let parser = format.parser().expect("it needs no index");
/// let mut catalog = CatalogBuilder::new(parser.format());
/// let start = FileStart { name: "a.raw", len: 7, bytes: &file[..parser.first_read(7) as usize] };
/// assert_eq!(parser.parse(start, &mut catalog)?, HeaderState::Complete);
/// let headers = parser.finish(catalog)?;
/// assert_eq!(headers.catalog.find("a.raw").expect("the only tensor").shape, [3]);
/// # Ok::<(), Error>(())
/// ```
pub trait Format: fmt::Debug + Sync {
    /// Returns the format's name.
    fn id(&self) -> FormatId;

    /// Returns the files that make a folder a checkpoint of this format, for a message: `*.gguf
    /// files`.
    fn expected(&self) -> &'static str;

    /// Returns the role of a file with this name in a folder, or `None` if the format ignores it.
    fn claim(&self, name: &str) -> Option<Claim>;

    /// Returns true if a file starts like one of this format. `start` has [`SNIFF_BYTES`] bytes, or
    /// all bytes of a shorter file.
    fn sniff(&self, start: &[u8]) -> bool;

    /// Returns a parser for files without an index, or `None` if the files need one.
    fn parser(&self) -> Option<Box<dyn HeaderParser>>;

    /// Groups file names into checkpoints. Each group lists all of its files in order, including
    /// those missing from `names`.
    ///
    /// By default all files form one checkpoint.
    fn group(&self, names: &[&str]) -> Vec<Vec<String>> {
        vec![names.iter().map(|&name| name.to_owned()).collect()]
    }

    /// Returns true if each file of a checkpoint can be checked without the others.
    fn is_file_independent(&self) -> bool {
        false
    }

    /// Returns the format's index, if it has one.
    fn index(&self) -> Option<&dyn IndexFormat> {
        None
    }

    /// Returns true if a metadata key describes the layout of the files.
    ///
    /// A copy in another format drops such keys.
    fn is_layout_key(&self, key: &str) -> bool {
        let _ = key;
        false
    }

    /// Returns the writer of this format, if it can be written.
    fn writer(&self) -> Option<&'static dyn Writer> {
        None
    }
}

/// The role of a file in a format, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// A file of tensors.
    File,
    /// An index.
    Index {
        /// Whether it has the usual name, which takes precedence over other indexes in the folder.
        usual: bool,
    },
    /// A file of tensors that requires the index with this name beside it.
    Part {
        /// The usual name of the index.
        index: &'static str,
    },
}

/// A JSON index, which lists the files or the tensors of a checkpoint.
pub trait IndexFormat: Sync {
    /// Returns how strongly a member of a JSON object indicates an index of this format.
    fn evidence(&self, key: &str, value: JsonShape) -> Evidence;

    /// Returns true if [`parse`](Self::parse) needs all file names in the index's folder.
    fn needs_listing(&self) -> bool {
        false
    }

    /// Parses an index without its files.
    ///
    /// # Errors
    /// Fails if it violates the format.
    fn parse(&self, index: IndexText<'_>) -> Result<ParsedIndex, Error>;
}

/// The contents of an index.
#[derive(Debug)]
pub struct IndexText<'a> {
    /// Its name in the storage, for messages.
    pub name: &'a str,
    /// The bytes.
    pub json: Vec<u8>,
    /// The names in its folder, sorted, if the format [needs](IndexFormat::needs_listing) them.
    pub listing: &'a [String],
}

/// A parsed index.
#[derive(Debug)]
pub struct ParsedIndex {
    /// The files beside the index, in order. Plain names, which cannot lead out of the folder.
    pub files: Vec<String>,
    /// The parser of their headers, which also checks them against the index.
    pub parser: Box<dyn HeaderParser>,
}

/// The shape of a member of a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonShape {
    /// An object.
    Object,
    /// An array whose elements are not yet known.
    Array,
    /// An array that starts with two unsigned integers. The member was reported as an
    /// [`Array`](Self::Array) before.
    Record,
}

/// How strongly a member of a JSON object indicates a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Not at all.
    None,
    /// It is of the format unless a later member indicates another.
    Hint,
    /// It is certainly of the format.
    Proof,
}

/// Parses the headers of a checkpoint's files.
///
/// Files are parsed in any order by any number of threads, each into its own [`CatalogBuilder`].
/// The builders are joined in the order of the files before [`finish`](Self::finish) is called.
pub trait HeaderParser: fmt::Debug + Send + Sync {
    /// Returns the format.
    fn format(&self) -> FormatId;

    /// Returns how many bytes of a file of `len` bytes to read first, at most `len`.
    fn first_read(&self, len: u64) -> u64;

    /// Parses the start of a file, and adds the file to the catalog once its header is complete.
    ///
    /// # Errors
    /// Fails if the header violates the format.
    fn parse(&self, start: FileStart<'_>, catalog: &mut CatalogBuilder) -> Result<HeaderState, Error>;

    /// Checks all files together, and returns the catalog.
    ///
    /// # Errors
    /// Fails if files contradict each other or the index, or two tensors have the same name.
    fn finish(&self, catalog: CatalogBuilder) -> Result<Headers, Error> {
        Ok(Headers { catalog: catalog.finish()?, index_metadata: Vec::new(), warnings: Vec::new() })
    }
}

/// The start of a file.
#[derive(Debug, Clone, Copy)]
pub struct FileStart<'a> {
    /// The file's name in the storage.
    pub name: &'a str,
    /// The length in bytes.
    pub len: u64,
    /// The bytes that were read.
    pub bytes: &'a [u8],
}

/// Whether a header was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderState {
    /// The header is complete.
    Complete,
    /// The bytes up to here are needed: more than were given, and no more than the file has.
    Needs(u64),
}

/// The headers of a checkpoint.
#[derive(Debug)]
pub struct Headers {
    /// The files and tensors.
    pub catalog: Catalog,
    /// The metadata of the index.
    pub index_metadata: Vec<(String, String)>,
    /// Warnings for the user about a valid checkpoint.
    pub warnings: Vec<Warning>,
}

/// Returns how much to read first of a file of `len` bytes if most headers have at most `max`
/// bytes.
///
/// A small file has a small header, so a shorter read suffices.
#[must_use]
pub fn first_read(len: u64, max: u64) -> u64 {
    (len / 64).clamp(4096, max).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_format_is_found_by_its_name_and_shown_by_it() {
        let shown = FORMATS.iter().map(|format| format.id().to_string()).collect::<Vec<_>>();
        assert_eq!(shown, ["safetensors", "gguf", "serverlessllm"]);
        for format in FORMATS {
            assert_eq!(find(format.id()).map(Format::id), Some(format.id()));
        }
        assert!(find(FormatId::new("toy", "Toy")).is_none());
    }
}
