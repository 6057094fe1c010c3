//! The errors of the manifest parser, one variant per rule, so that a test can name the rule that
//! it violates.

use super::Shape;
use crate::element::ElementType;
use crate::escape::Quoted;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// The value of the field `schema`.
pub const SCHEMA: &str = "floodtide-manifest";
/// The value of the field `version`.
pub const VERSION: u64 = 1;
/// The maximum size of a manifest in bytes. A million tensors take a fifth of it.
pub const MAX_BYTES: u64 = 1 << 30;

/// A violated rule of the manifest (`docs/manifest.md`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum ManifestError {
    /// The manifest is not JSON, or a field is missing, unknown, duplicate or of another type.
    #[error("this is not the JSON of a manifest: {message}")]
    Json { message: String },
    /// The manifest is of another program.
    #[error(
        "the manifest's \"schema\" is \"{}\", expected \"{SCHEMA}\"; it is a manifest of another program",
        Quoted(found)
    )]
    Schema { found: String },
    /// The version is unknown.
    #[error(
        "the manifest is of version {found}, but this floodtide supports version {VERSION}; use the floodtide that wrote it, or write it again"
    )]
    Version { found: u64 },
    /// Longer than [`MAX_BYTES`].
    #[error("the manifest has {bytes} bytes, but the limit is {}; name another file", MAX_BYTES)]
    TooLarge { bytes: u64 },
    /// A dtype is unknown.
    #[error("the manifest gives tensor \"{}\" the dtype \"{}\", which is not known", Quoted(name), Quoted(found))]
    DType { name: String, found: String },
    /// The length of a tensor does not match its dtype and shape.
    #[error(
        "the manifest gives tensor \"{}\" {bytes} bytes, but dtype {dtype} and shape {} have another length; the manifest is \
         damaged",
        Quoted(name),
        Shape(shape)
    )]
    WrongBytes { name: String, dtype: ElementType, shape: Vec<u64>, bytes: u64 },
    /// A hash is malformed.
    #[error(
        "the manifest's {field} of \"{}\" is \"{}\", expected 64 digits of lower-case hexadecimal",
        Quoted(name),
        Quoted(found)
    )]
    NotHex { name: String, field: &'static str, found: String },
    /// Two tensors have the same name.
    #[error("tensor \"{}\" is twice in the manifest; names must be unique", Quoted(name))]
    DuplicateTensor { name: String },
    /// Two files have the same name.
    #[error("file \"{}\" is twice in the manifest; names must be unique", Quoted(name))]
    DuplicateFile { name: String },
    /// A file's name could lead out of the checkpoint's folder.
    #[error(
        "the manifest names the file \"{}\", expected the plain name of a file in the checkpoint's folder (no \"/\", \"\\\", \"..\"); \
         create the manifest again",
        Quoted(name)
    )]
    NotPlainName { name: String },
}
