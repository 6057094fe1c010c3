//! A strict parser of ServerlessLLM indexes.
//!
//! A checkpoint is `tensor_index.json` with the files `tensor.data_0`, `tensor.data_1` and so on
//! beside it. The index has one record per tensor. It has two [dialects](Dialect), which differ in
//! the number of elements of a record:
//!
//! - ServerlessLLM's own, `[offset, size, [shape], [stride], "torch.bfloat16"]`. Offsets count over
//!   all partitions one after another, so the partitions' lengths determine the boundaries. No
//!   record spans two partitions. Bytes between records have no meaning.
//! - Tensora's, `[offset, size, [shape], [stride], "bf16", partition]`. Offsets count within that
//!   partition.
//!
//! Tensors that shared storage when they were saved have the same offset and size. The parser
//! accepts them and gives both the same range. It rejects other overlaps. It also rejects strides
//! that are not row-major: they are rare, and reading them means moving single elements.
//!
//! Names and dtypes are borrowed from the JSON, and all shapes share one vector. Allocations never
//! depend on a number that the index claims.

mod error;
mod format;
mod json;
mod layout;
mod partitions;
pub mod write;

pub use error::ServerlessLlmError;
pub use format::ServerlessLlm;
pub use partitions::{count_partitions, is_partition_name};

use crate::catalog::CatalogBuilder;
use crate::dtype::DType;
use crate::error::Error;
use crate::format_id::FormatId;
use crate::names::sorted_by_name;
use crate::units::{ByteRange, FileId};
use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use json::RawRecord;

/// A ServerlessLLM checkpoint: an index and the partitions beside it.
pub const SERVERLESSLLM: FormatId = FormatId::new("serverlessllm", "ServerlessLLM");

/// The usual name of the index.
pub const INDEX_NAME: &str = "tensor_index.json";

/// The prefix of all partition names.
const PARTITION_PREFIX: &str = "tensor.data_";

/// Returns the name of a partition.
#[must_use]
pub fn partition_name(number: u32) -> String {
    format!("{PARTITION_PREFIX}{number}")
}

/// The dialect of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Records of five elements, with offsets over all partitions.
    Original,
    /// Records of six elements, with offsets in the partition that the sixth names.
    Tensora,
}

/// The dtypes that ServerlessLLM writes, by their PyTorch names.
const TORCH: [(&str, DType); 9] = [
    ("torch.float16", DType::F16),
    ("torch.float32", DType::F32),
    ("torch.float64", DType::F64),
    ("torch.bfloat16", DType::BF16),
    ("torch.int8", DType::I8),
    ("torch.int16", DType::I16),
    ("torch.int32", DType::I32),
    ("torch.int64", DType::I64),
    ("torch.uint8", DType::U8),
];

impl Dialect {
    /// Returns the dtype with this name in the dialect.
    #[must_use]
    pub fn dtype(self, name: &str) -> Option<DType> {
        match self {
            Self::Original => TORCH.iter().find(|(torch, _)| *torch == name).map(|(_, dtype)| *dtype),
            Self::Tensora if name.bytes().any(|byte| byte.is_ascii_uppercase()) => None,
            Self::Tensora => DType::ALL.iter().copied().find(|dtype| dtype.name().eq_ignore_ascii_case(name)),
        }
    }

    /// Returns the dialect's name of a dtype, or `None` if it has none.
    #[must_use]
    pub fn dtype_name(self, dtype: DType) -> Option<Cow<'static, str>> {
        match self {
            Self::Original => TORCH.iter().find(|(_, torch)| *torch == dtype).map(|(name, _)| Cow::Borrowed(*name)),
            Self::Tensora => Some(Cow::Owned(dtype.name().to_ascii_lowercase())),
        }
    }

    /// Returns the names of all dtypes, for messages.
    fn dtypes(self) -> String {
        let names: Vec<_> = DType::ALL.iter().filter_map(|&dtype| self.dtype_name(dtype)).collect();
        names.join(", ")
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "ServerlessLLM's own dialect (5 elements)",
            Self::Tensora => "Tensora's dialect (6 elements)",
        })
    }
}

/// A tensor description of an index.
#[derive(Debug, Clone)]
pub struct IndexedTensor<'a> {
    /// The name, borrowed from the index if it has no escapes.
    pub name: Cow<'a, str>,
    /// The element type.
    pub dtype: DType,
    /// The partition that contains it.
    pub partition: u32,
    /// The range of its bytes in the partition.
    pub range: ByteRange,
    dims: Range<usize>,
}

/// A parsed and checked index.
#[derive(Debug)]
pub struct TensorIndex<'a> {
    dialect: Option<Dialect>,
    /// The tensors, in the order of partition and offset.
    tensors: Vec<IndexedTensor<'a>>,
    dims: Vec<u64>,
}

impl<'a> TensorIndex<'a> {
    /// Parses an index, given the lengths of its partitions.
    ///
    /// # Errors
    /// Returns a [`ServerlessLlmError`], which has one variant per rule of the format.
    pub fn parse(json: &'a [u8], partitions: &[u64]) -> Result<Self, ServerlessLlmError> {
        let raw = json::parse(json)?;
        let partitions = Partitions::new(partitions)?;
        let dialect = raw.records.first().map(dialect_of);
        let mut index = Self { dialect, tensors: Vec::with_capacity(raw.records.len()), dims: raw.dims };
        for record in raw.records {
            let tensor = index.check(record, &raw.strides, &partitions)?;
            index.tensors.push(tensor);
        }
        let names = index.tensors.iter().map(|tensor| tensor.name.as_ref());
        let order = sorted_by_name(names);
        let name = |number: u32| index.tensors[number as usize].name.as_ref();
        if let Some(pair) = order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
            return Err(ServerlessLlmError::DuplicateName { name: name(pair[0]).to_owned() });
        }
        index.tensors.sort_by_key(|tensor| (tensor.partition, tensor.range.start(), tensor.range.end()));
        index.check_bytes(&partitions)?;
        Ok(index)
    }

    /// Returns the dialect, or `None` if there are no records.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// Returns the tensors in the order of partition and offset.
    #[must_use]
    pub fn tensors(&self) -> &[IndexedTensor<'a>] {
        &self.tensors
    }

    /// Returns the shape of a tensor of this index. Empty for a scalar.
    #[must_use]
    pub fn shape(&self, tensor: &IndexedTensor<'_>) -> &[u64] {
        &self.dims[tensor.dims.clone()]
    }

    /// Adds the tensors to a catalog that holds exactly the partitions, in order.
    ///
    /// # Errors
    /// Returns [`Error::TooMany`] if tensors exceed 32-bit numbers.
    pub fn add_tensors_to(&self, catalog: &mut CatalogBuilder) -> Result<(), Error> {
        catalog.reserve(self.tensors.len());
        for tensor in &self.tensors {
            let file = FileId(tensor.partition);
            catalog.add_tensor(file, &tensor.name, tensor.dtype.into(), self.shape(tensor), tensor.range)?;
        }
        Ok(())
    }

    /// Checks a record by itself.
    fn check(
        &self,
        record: RawRecord<'a>,
        strides: &[u64],
        partitions: &Partitions<'_>,
    ) -> Result<IndexedTensor<'a>, ServerlessLlmError> {
        let name = || record.name.as_ref().to_owned();
        let dialect = dialect_of(&record);
        if let Some(expected) = self.dialect.filter(|&expected| expected != dialect) {
            return Err(ServerlessLlmError::MixedDialects { name: name(), expected, found: dialect });
        }
        let dtype = dialect.dtype(&record.dtype).ok_or_else(|| ServerlessLlmError::UnknownDtype {
            name: name(),
            dtype: record.dtype.as_ref().to_owned(),
            dialect,
        })?;
        let (shape, strides) = (&self.dims[record.dims.clone()], &strides[record.strides.clone()]);
        if shape.len() != strides.len() {
            return Err(ServerlessLlmError::StrideCount {
                name: name(),
                shape: shape.to_vec(),
                strides: strides.to_vec(),
            });
        }
        let elements = shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let bits = elements.and_then(|elements| elements.checked_mul(dtype.bits()));
        let bits = bits.ok_or_else(|| ServerlessLlmError::ShapeOverflow { name: name(), shape: shape.to_vec() })?;
        if !bits.is_multiple_of(8) {
            return Err(ServerlessLlmError::PartialByte { name: name(), dtype, shape: shape.to_vec() });
        }
        if !is_row_major(shape, strides) {
            return Err(ServerlessLlmError::NotContiguous {
                name: name(),
                shape: shape.to_vec(),
                strides: strides.to_vec(),
            });
        }
        if bits / 8 != record.size {
            let (expected, found) = (bits / 8, record.size);
            return Err(ServerlessLlmError::SizeMismatch {
                name: name(),
                dtype,
                shape: shape.to_vec(),
                expected,
                found,
            });
        }
        let (partition, range) = partitions.locate(&record)?;
        Ok(IndexedTensor { name: record.name, dtype, partition, range, dims: record.dims })
    }

    /// Checks the sorted records together.
    fn check_bytes(&self, partitions: &Partitions<'_>) -> Result<(), ServerlessLlmError> {
        let filled = || self.tensors.iter().filter(|tensor| !tensor.range.is_empty());
        for (first, second) in filled().zip(filled().skip(1)) {
            if first.partition == second.partition
                && first.range != second.range
                && second.range.start() < first.range.end()
            {
                return Err(ServerlessLlmError::Overlap {
                    first: first.name.as_ref().to_owned(),
                    second: second.name.as_ref().to_owned(),
                    partition: second.partition,
                    offset: second.range.start(),
                });
            }
        }
        let mut filled = filled().peekable();
        for (partition, &bytes) in (0..).zip(partitions.bytes) {
            let mut is_used = false;
            while filled.next_if(|tensor| tensor.partition == partition).is_some() {
                is_used = true;
            }
            if bytes > 0 && !is_used {
                return Err(ServerlessLlmError::UnusedPartition { partition, bytes });
            }
        }
        Ok(())
    }
}

fn dialect_of(record: &RawRecord<'_>) -> Dialect {
    if record.partition.is_some() { Dialect::Tensora } else { Dialect::Original }
}

/// Returns true if the elements are contiguous in row-major order.
///
/// A dimension of one element may have any stride. So may all dimensions of a tensor without
/// elements.
fn is_row_major(shape: &[u64], strides: &[u64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = Some(1_u64);
    for (&dim, &stride) in shape.iter().zip(strides).rev() {
        if dim != 1 && Some(stride) != expected {
            return false;
        }
        expected = expected.and_then(|expected| expected.checked_mul(dim));
    }
    true
}

/// The lengths of the partitions, and where each starts among all of them.
struct Partitions<'p> {
    bytes: &'p [u64],
    starts: Vec<u64>,
    total: u64,
}

impl<'p> Partitions<'p> {
    fn new(bytes: &'p [u64]) -> Result<Self, ServerlessLlmError> {
        if bytes.is_empty() {
            return Err(ServerlessLlmError::NoPartition);
        }
        let (mut starts, mut total) = (Vec::with_capacity(bytes.len()), 0_u64);
        for &bytes in bytes {
            starts.push(total);
            total = total.checked_add(bytes).ok_or(ServerlessLlmError::TooLong)?;
        }
        Ok(Self { bytes, starts, total })
    }

    /// Returns the partition of a record and its range there.
    fn locate(&self, record: &RawRecord<'_>) -> Result<(u32, ByteRange), ServerlessLlmError> {
        let name = || record.name.as_ref().to_owned();
        let (offset, size) = (record.offset, record.size);
        let overflow = || ServerlessLlmError::OffsetOverflow { name: name(), offset, size };
        let end = offset.checked_add(size).ok_or_else(overflow)?;
        let count = self.bytes.len();
        if let Some(partition) = record.partition {
            let Some(number) = usize::try_from(partition).ok().filter(|&number| number < count) else {
                return Err(ServerlessLlmError::NoSuchPartition { name: name(), partition, count });
            };
            let (bytes, partition) = (self.bytes[number], FileId::from_index(number).0);
            if end > bytes {
                return Err(ServerlessLlmError::PastPartition { name: name(), partition, offset, end, bytes });
            }
            return Ok((partition, ByteRange::new(offset, end).ok_or_else(overflow)?));
        }
        if end > self.total {
            return Err(ServerlessLlmError::PastEnd { name: name(), offset, end, count, bytes: self.total });
        }
        // The last partition that starts at or before the offset. The first starts at 0.
        let number = self.starts.partition_point(|&start| start <= offset).saturating_sub(1);
        let (start, partition) = (self.starts[number], FileId::from_index(number).0);
        let boundary = start + self.bytes[number];
        if end > boundary {
            return Err(ServerlessLlmError::CrossesPartition { name: name(), partition, offset, end, boundary });
        }
        Ok((partition, ByteRange::new(offset - start, end - start).ok_or_else(overflow)?))
    }
}

#[cfg(test)]
mod tests;
