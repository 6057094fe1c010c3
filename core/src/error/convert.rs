//! Why a checkpoint cannot be written as it was asked for. All of it is known before a byte is written.

use crate::escape::Quoted;
use crate::format_id::FormatId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use thiserror::Error;

/// What a conversion is refused for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum ConvertError {
    /// Tensors of types that the target does not have.
    #[error("{} cannot hold {tensors}; {advice}, or leave them out", target.title())]
    Inexpressible { target: FormatId, advice: &'static str, tensors: Offending },
    /// A rule to rename that says nothing.
    #[error(transparent)]
    Rename(#[from] RenameError),
    /// A rule that matches no tensor, as it was most likely mistyped.
    #[error("the rule to rename {rule} matches no tensor that is selected")]
    RenameUnused { rule: String },
    /// Two tensors would have one name.
    #[error(
        "tensors \"{}\" and \"{}\" would both be named \"{}\"; names must be unique: change the rules to rename",
        Quoted(first),
        Quoted(second),
        Quoted(name)
    )]
    SameName { name: String, first: String, second: String },
    /// A name that means something else in the format.
    #[error(
        "tensor \"{}\" cannot be named \"{}\" in a {} file, where that is the metadata's name; rename it",
        Quoted(tensor),
        Quoted(name),
        target.title()
    )]
    ReservedName { target: FormatId, tensor: String, name: String },
    /// More files than tensors.
    #[error("the tensors are to be in {files} files, but only {tensors} of them have bytes; ask for fewer files")]
    TooFewTensors { files: u32, tensors: u32 },
    /// A part of a tensor is selected.
    #[error("a slice of tensor \"{}\" is selected, but a conversion takes whole tensors", Quoted(tensor))]
    Slice { tensor: String },
    /// A file that would break the format's rules.
    #[error("{file} cannot be written: {source}")]
    File { file: String, source: WriteError },
    /// More bytes than can be counted.
    #[error("the tensors together have more bytes than {} can count", target.title())]
    TooLarge { target: FormatId },
    /// A format that is only read.
    #[error("{} is read but not written; choose another format", target.title())]
    NotWritable { target: FormatId },
}

/// A rule that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum RenameError {
    /// No name on one side.
    #[error(
        "a rule to rename needs a name on both sides, as in old.*=new.*; found \"{}\" to \"{}\"",
        Quoted(from),
        Quoted(to)
    )]
    Empty { from: String, to: String },
    /// A star on one side only, or several.
    #[error(
        "a rule to rename has one \"*\" on both sides or none on either, as in old.*=new.*; found \"{}\" to \"{}\"",
        Quoted(from),
        Quoted(to)
    )]
    Stars { from: String, to: String },
}

/// Why a file of a format cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the message shows")]
pub enum WriteError {
    /// A header or an index that readers would refuse.
    #[error(
        "its header or index would have {needed} bytes, but readers accept at most {limit}; select fewer tensors (--select), or write more files \
         (--partitions)"
    )]
    HeaderTooLarge { needed: u64, limit: u64 },
    /// More bytes than a file can have.
    #[error("the file would have more bytes than 64 bits count")]
    FileTooLarge,
}

/// Tensors with their types, of which the first are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offending {
    shown: Vec<(String, &'static str)>,
    count: usize,
}

impl Offending {
    /// How many are named in a message.
    pub const SHOWN: usize = 10;

    /// Those of the iterator; `None` when there is none.
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

    /// How many there are, shown or not.
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
