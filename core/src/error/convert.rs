//! The errors of conversions. All of them occur before a byte is written.

use crate::escape::Quoted;
use crate::format_id::FormatId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// Why a conversion is impossible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum ConvertError {
    /// The target does not support the types of some tensors.
    #[error("{} cannot hold {tensors}; {advice}, or leave them out", target.title())]
    Inexpressible { target: FormatId, advice: &'static str, tensors: Offending },
    /// A renaming rule is malformed.
    #[error(transparent)]
    Rename(#[from] RenameError),
    /// A renaming rule matches no tensor. It is probably mistyped.
    #[error("the renaming rule {rule} matches no selected tensor")]
    RenameUnused { rule: String },
    /// Two tensors would have the same name.
    #[error(
        "tensors \"{}\" and \"{}\" would both be named \"{}\"; names must be unique: change the renaming rules",
        Quoted(first),
        Quoted(second),
        Quoted(name)
    )]
    SameName { name: String, first: String, second: String },
    /// A name is reserved in the target format.
    #[error(
        "tensor \"{}\" cannot be named \"{}\" in a {} file, where the name is reserved for metadata; rename the tensor",
        Quoted(tensor),
        Quoted(name),
        target.title()
    )]
    ReservedName { target: FormatId, tensor: String, name: String },
    /// There are fewer tensors than requested files.
    #[error("expected tensors for {files} files, but only {tensors} have bytes; request fewer files")]
    TooFewTensors { files: u32, tensors: u32 },
    /// A slice is selected.
    #[error("a slice of tensor \"{}\" is selected, but a conversion needs whole tensors", Quoted(tensor))]
    Slice { tensor: String },
    /// A file would violate the format.
    #[error("{file} cannot be written: {source}")]
    File { file: String, source: WriteError },
    /// The sizes overflow.
    #[error("the tensors together exceed the size limit of {}", target.title())]
    TooLarge { target: FormatId },
    /// The format can only be read.
    #[error("{} can be read but not written; choose another format", target.title())]
    NotWritable { target: FormatId },
}

/// The error of a malformed rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum RenameError {
    /// One side is empty.
    #[error(
        "a renaming rule needs a name on both sides, as in old.*=new.*; found \"{}\" to \"{}\"",
        Quoted(from),
        Quoted(to)
    )]
    Empty { from: String, to: String },
    /// Only one side has a `*`, or one has several.
    #[error(
        "a renaming rule needs one \"*\" on both sides or none on either, as in old.*=new.*; found \"{}\" to \"{}\"",
        Quoted(from),
        Quoted(to)
    )]
    Stars { from: String, to: String },
}

/// Why a file of a format cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum WriteError {
    /// A header or an index would exceed the limit of readers.
    #[error(
        "its header or index would have {needed} bytes, but readers accept at most {limit}; select fewer tensors or write more \
         files"
    )]
    HeaderTooLarge { needed: u64, limit: u64 },
    /// The file would be too large.
    #[error("the file would exceed 64-bit sizes")]
    FileTooLarge,
}

/// Tensors with their types. Messages show the first ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offending {
    shown: Vec<(String, &'static str)>,
    count: usize,
}

impl Offending {
    /// The maximum number of tensors in a message.
    pub const SHOWN: usize = 10;

    /// Collects the tensors, or returns `None` if there are none.
    pub(crate) fn collect<'a>(tensors: impl Iterator<Item = (&'a str, &'static str)>) -> Option<Self> {
        let (mut shown, mut count) = (Vec::new(), 0);
        for (name, element) in tensors {
            if count < Self::SHOWN {
                shown.push((name.into(), element));
            }
            count += 1;
        }
        (count > 0).then_some(Self { shown, count })
    }

    /// Returns the number of tensors, shown or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Display for Offending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensor{}: ", self.count, if self.count == 1 { "" } else { "s" })?;
        for (i, (name, element)) in self.shown.iter().enumerate() {
            write!(f, "{}\"{}\" ({element})", if i == 0 { "" } else { ", " }, Quoted(name))?;
        }
        match self.count - self.shown.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn all_offending_tensors_are_counted_and_the_first_are_named() {
        let offending = |count: usize| {
            let names: Vec<String> = (0..count).map(|i| format!("t{i}\u{1b}")).collect();
            Offending::collect(names.iter().map(|name| (name.as_str(), "BOOL")))
        };
        assert_eq!(offending(0), None);
        assert_eq!(offending(1).expect("one").to_string(), "1 tensor: \"t0\\u{1b}\" (BOOL)");
        let many = offending(25).expect("many");
        assert_eq!(many.count(), 25);
        let shown = many.to_string();
        assert!(
            shown.starts_with("25 tensors: \"t0") && shown.ends_with("\"t9\\u{1b}\" (BOOL) and 15 more"),
            "{shown}"
        );
    }
}
