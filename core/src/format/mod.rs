//! The checkpoint formats: one module a format, from untrusted bytes to what a [`Catalog`](crate::Catalog) is built of.
//!
//! To add a format: one module here with a parser that allocates nothing on a claim, a `CatalogBuilder::add_…` for what it
//! parses to, a variant of [`Format`], and in [`content`] what tells its files from others.

mod dims;
pub mod file_kind;
pub mod gguf;
mod numbers;
pub mod safetensors;
pub mod serverlessllm;
pub mod shard_index;
mod text;

pub(crate) use shard_index::is_plain_name;
pub(crate) use text::Text;

use core::fmt;

/// A checkpoint format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One or several safetensors files, with or without an index.
    Safetensors,
    /// One or several GGUF files.
    Gguf,
    /// A ServerlessLLM checkpoint: an index, and the partitions beside it.
    ServerlessLlm,
}

impl Format {
    /// The name that people and JSON output use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::ServerlessLlm => "serverlessllm",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_format_is_shown_by_its_name() {
        let shown = [Format::Safetensors, Format::Gguf, Format::ServerlessLlm].map(|format| format.to_string());
        assert_eq!(shown, ["safetensors", "gguf", "serverlessllm"]);
    }
}
