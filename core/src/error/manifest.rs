//! What can be wrong with a manifest: one variant a rule, so that a test can name the rule it breaks.

use super::Shape;
use crate::element::ElementType;
use crate::escape::Quoted;
use alloc::string::String;
use alloc::vec::Vec;
use thiserror::Error;

/// What the field `schema` says.
pub const SCHEMA: &str = "floodtide-manifest";
/// What the field `version` says.
pub const VERSION: u64 = 1;
/// A manifest longer than this is none: a million tensors take a fifth of it.
pub const MAX_BYTES: u64 = 1 << 30;

/// A broken rule of the manifest (`docs/manifest.md`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ManifestError {
    /// Not JSON, or fields that are missing, unknown, twice there or of another type.
    #[error("this is not the JSON of a manifest: {message}")]
    Json { message: String },
    /// Of another program.
    #[error(
        "the manifest's \"schema\" is \"{}\", expected \"{SCHEMA}\"; it is a manifest of another program",
        Quoted(found)
    )]
    Schema { found: String },
    /// Of a version that is not known here.
    #[error(
        "the manifest is of version {found}, and this floodtide knows version {VERSION}; use the floodtide that wrote it, or write it again"
    )]
    Version { found: u64 },
    /// Longer than [`MAX_BYTES`].
    #[error("the manifest has {bytes} bytes, and none is longer than {}; name another file", MAX_BYTES)]
    TooLarge { bytes: u64 },
    /// A dtype that no format has.
    #[error("the manifest gives tensor \"{}\" the dtype \"{}\", which is not known", Quoted(name), Quoted(found))]
    DType { name: String, found: String },
    /// Dtype, shape and bytes do not belong together.
    #[error(
        "the manifest gives tensor \"{}\" {bytes} bytes, but dtype {dtype} and shape {} are not so many; it is damaged or was \
         written wrongly",
        Quoted(name),
        Shape(shape)
    )]
    WrongBytes { name: String, dtype: ElementType, shape: Vec<u64>, bytes: u64 },
    /// Not a hash.
    #[error(
        "the manifest's {field} of \"{}\" is \"{}\", expected 64 digits of lower-case hexadecimal",
        Quoted(name),
        Quoted(found)
    )]
    NotHex { name: String, field: &'static str, found: String },
    /// Two tensors of one name.
    #[error("tensor \"{}\" is twice in the manifest; names must be unique", Quoted(name))]
    DuplicateTensor { name: String },
    /// Two files of one name.
    #[error("file \"{}\" is twice in the manifest; names must be unique", Quoted(name))]
    DuplicateFile { name: String },
    /// A file's name that could lead out of the checkpoint's folder.
    #[error(
        "the manifest names the file \"{}\", expected the plain name of a file in the checkpoint's folder (no \"/\", \"\\\", \"..\"); \
         make the manifest again",
        Quoted(name)
    )]
    NotPlainName { name: String },
}
