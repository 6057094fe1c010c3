//! Models split over several files, named `NAME-00001-of-00003.gguf` and so on.
//!
//! The files are found by their names. Each holds its number (`split.no`, from 0), the number of
//! files (`split.count`) and the number of tensors in all files (`split.tensors.count`). These must
//! agree. The first file may hold metadata only.

use super::Header;
use super::value::Value;
use super::value_type::ValueType;
use alloc::format;
use alloc::string::String;
use thiserror::Error;

pub(super) const NUMBER_KEY: &str = "split.no";
pub(super) const COUNT_KEY: &str = "split.count";
pub(super) const TENSORS_KEY: &str = "split.tensors.count";
/// The maximum number of shards: llama.cpp writes `split.count` as 16 bits (`gguf-split`).
const MAX_SHARDS: u32 = u16::MAX as u32;
/// The minimum number of digits of a number in a name.
const DIGITS: usize = 5;

/// The end of a shard's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardName {
    /// The number of the shard, from 1.
    pub number: u32,
    /// The number of shards.
    pub count: u32,
}

impl ShardName {
    /// Parses the end of a file name. Returns `None` if the name is not a shard's, or of more shards
    /// than a model can have.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_suffix(".gguf")?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (_, number) = rest.rsplit_once('-')?;
        let parsed = Self { number: digits(number)?, count: digits(count)? };
        let is_written_so = name.ends_with(&parsed.suffix());
        (is_written_so && parsed.count <= MAX_SHARDS && (1..=parsed.count).contains(&parsed.number)).then_some(parsed)
    }

    /// Returns the end of the name, which is ASCII. Shards share the part before it.
    #[must_use]
    pub fn suffix(&self) -> String {
        format!("-{:0DIGITS$}-of-{:0DIGITS$}.gguf", self.number, self.count)
    }

    /// Returns all shards in order.
    pub fn all(&self) -> impl Iterator<Item = Self> + use<> {
        let count = self.count;
        (1..=count).map(move |number| Self { number, count })
    }
}

fn digits(text: &str) -> Option<u32> {
    // `parse` would accept a sign too.
    if text.len() < DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// The split metadata of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// The number of the shard, from 0.
    pub number: u64,
    /// The number of elements.
    pub count: u64,
    /// The number of tensors in all shards.
    pub tensors: u64,
}

impl Split {
    /// Reads the split metadata of a header. Returns `None` if the file is not a shard.
    ///
    /// Merging shards leaves a `split.count` of 0, which counts as not a shard.
    ///
    /// # Errors
    /// Fails if a key is missing or not a number.
    pub fn of(header: &Header<'_>) -> Result<Option<Self>, SplitError> {
        let number = |key: &'static str| match header.value(key) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| SplitError::NotANumber {
                key,
                found: value.value_type(),
                negative: matches!(value, Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_)),
            }),
        };
        let needed = |key| number(key)?.ok_or(SplitError::MissingKey { key });
        match number(COUNT_KEY)? {
            None | Some(0) => Ok(None),
            Some(count) => Ok(Some(Self { number: needed(NUMBER_KEY)?, count, tensors: needed(TENSORS_KEY)? })),
        }
    }
}

/// A violated rule of split models.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum SplitError {
    /// The value of a key is text, a fraction or negative.
    #[error("\"{key}\" is {} of type {found}, expected a whole number from 0 on; the file was written wrongly", if *negative { "a negative number" } else { "a value" })]
    NotANumber { key: &'static str, found: ValueType, negative: bool },
    /// A shard lacks a key.
    #[error("the file is one of several shards, but lacks the metadata key \"{key}\"; split the model again")]
    MissingKey { key: &'static str },
    /// A file is named as a shard but is not one.
    #[error(
        "the file is named as shard {number} of {count}, but its metadata says otherwise (there is no \"split.count\"); \
         rename it if it is a complete model"
    )]
    NotAShard { number: u64, count: u64 },
    /// A shard is not named as one, so the others cannot be found.
    #[error(
        "the file is shard {number} of {count} by its metadata, but its name does not end in \"-{number:05}-of-{count:05}.gguf\", \
         which is needed to find the others; restore the original names"
    )]
    Unnamed { number: u64, count: u64 },
    /// The number in the metadata differs from the name. Both count from 1.
    #[error(
        "the file is named as shard {expected}, but is shard {found} by its metadata (\"split.no\" is counted from 0); \
         it was renamed, or belongs to another model: fetch it again"
    )]
    Number { expected: u64, found: u64 },
    /// The number of shards in the metadata differs from the name.
    #[error(
        "the file is named as one of {expected} shards, but is one of {found} by its metadata (\"split.count\"); \
         it was renamed, or belongs to another model: fetch it again"
    )]
    Count { expected: u64, found: u64 },
    /// The number of tensors differs from the metadata.
    #[error(
        "the shard says that all shards together have {expected} tensors (\"split.tensors.count\"), but they have {found}; \
         they are of different models, or one of them is damaged: fetch them again"
    )]
    Tensors { expected: u64, found: u64 },
}

/// Checks the split metadata of shards in order, each with the number of tensors that it holds.
///
/// A single file need not be a shard.
///
/// # Errors
/// Returns the index of the first wrong shard and its error.
pub fn check_split(shards: &[(Option<Split>, u64)]) -> Result<(), (usize, SplitError)> {
    let count = shards.len() as u64;
    let total: u64 = shards.iter().map(|(_, tensors)| tensors).sum();
    for (at, (split, _)) in shards.iter().enumerate() {
        let number = at as u64;
        let error = match *split {
            None if count == 1 => continue,
            None => SplitError::NotAShard { number: number + 1, count },
            Some(split) if count == 1 && split.count > 1 => {
                SplitError::Unnamed { number: split.number.saturating_add(1), count: split.count }
            }
            Some(split) if split.count != count => SplitError::Count { expected: count, found: split.count },
            Some(split) if split.number != number => {
                SplitError::Number { expected: number + 1, found: split.number.saturating_add(1) }
            }
            Some(split) if split.tensors != total => SplitError::Tensors { expected: split.tensors, found: total },
            Some(_) => continue,
        };
        return Err((at, error));
    }
    Ok(())
}
