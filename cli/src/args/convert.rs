//! The options of a conversion: what to write, in how many files, under which names.

use super::numbers::{count, shard_size, size};
use bytesize::ByteSize;
use clap::Args as ClapArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use floodtide::FormatId;
use floodtide::convert::{Rename, Split};
use floodtide::format::FORMATS;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, ClapArgs)]
pub(crate) struct ConvertArgs {
    /// The checkpoint to convert
    #[arg(value_name = "IN")]
    pub(crate) path: PathBuf,
    /// The folder to create; it appears only after every file is synced. Configuration, tokenizer
    /// and chat templates are copied too
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// The format to write
    #[arg(long, value_name = "FORMAT", value_parser = writable_format())]
    pub(crate) to: FormatId,
    /// Limit for the tensors of one file, for example 5GB or 2GiB; the default depends on the
    /// format
    #[arg(long, value_name = "SIZE", value_parser = shard_size)]
    pub(crate) shard_size: Option<NonZeroU64>,
    /// Write N files (or partitions) of about the same size
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU32>, conflicts_with = "shard_size")]
    pub(crate) partitions: Option<NonZeroU32>,
    /// Convert only tensors whose whole name matches this pattern (*, ?, [a-z]); can be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) select: Vec<String>,
    /// Rename a tensor, or several with one "*" on both sides, as in model.*=*; can be repeated,
    /// the first match counts
    #[arg(long, value_name = "FROM=TO")]
    pub(crate) rename: Vec<RenameArg>,
    /// Limit for all buffers together, for example 512MiB; at least 1MiB [default: 1GiB, or half of
    /// the available memory if that is less]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<ByteSize>,
    /// Replace OUT if it is a folder that holds a checkpoint and no subfolders; it stays until the
    /// new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConvertArgs {
    /// Returns how many files to write.
    pub(crate) fn split(&self) -> Split {
        match (self.partitions, self.shard_size) {
            (Some(files), _) => Split::Files(files),
            (None, Some(bytes)) => Split::Bytes(bytes),
            (None, None) => Split::Usual,
        }
    }
}

/// Accepts the names of the formats that can be written.
fn writable_format() -> impl TypedValueParser<Value = FormatId> {
    let writers = || FORMATS.iter().filter_map(|format| format.writer());
    let named = writers().map(|writer| PossibleValue::new(writer.format().name()).help(writer.summary()));
    let find = move |name: String| {
        let found = writers().map(|writer| writer.format()).find(|format| format.name() == name);
        found.ok_or("no such format")
    };
    PossibleValuesParser::new(named).try_map(find)
}

/// A rename rule
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RenameArg(pub(crate) Rename);

impl FromStr for RenameArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').ok_or("expected FROM=TO, for example model.*=*")?;
        if to.contains('=') {
            return Err("expected one \"=\", found several".to_owned());
        }
        Rename::new(from, to).map(Self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_are_read() {
        let rename = |text: &str| text.parse::<RenameArg>().map(|rule| rule.0.to_string());
        assert_eq!(rename("model.*=*"), Ok("model.*=*".to_owned()));
        for bad in ["", "a", "a=", "=a", "a=b=c", "a*=b"] {
            assert!(rename(bad).is_err(), "{bad}");
        }
    }
}
