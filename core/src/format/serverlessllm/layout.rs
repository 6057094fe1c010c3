//! Writes ServerlessLLM checkpoints.

use super::write::{NewIndex, PARTITION_BYTES, Record, Records};
use super::{Dialect, INDEX_NAME, SERVERLESSLLM, partition_name};
use crate::convert::{ConvertError, Destination, Item, Layout, OutputFile, Split, Writer, evenly};
use crate::dtype::DType;
use crate::format_id::FormatId;
use crate::units::FileId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// The writer of [`SERVERLESSLLM`], for the original dialect.
#[derive(Debug)]
pub(super) struct ServerlessLlmWriter;

impl Writer for ServerlessLlmWriter {
    fn format(&self) -> FormatId {
        SERVERLESSLLM
    }

    fn summary(&self) -> &'static str {
        "The checkpoint of ServerlessLLM: tensor_index.json, and partitions tensor.data_0 and so on of at most 10 GiB"
    }

    fn holds(&self, dtype: DType) -> bool {
        Dialect::Original.dtype_name(dtype).is_some()
    }

    fn advice(&self) -> &'static str {
        "its types are F16, BF16, F32, F64, I8, I16, I32, I64 and U8: keep the model as safetensors"
    }

    fn holds_metadata(&self) -> bool {
        false
    }

    fn lay_out(
        &self,
        layout: &mut Layout,
        items: &[Item<'_>],
        _: &[(&str, &str)],
        split: Split,
    ) -> Result<(), ConvertError> {
        let too_large = || ConvertError::TooLarge { target: SERVERLESSLLM };
        let starts = partition_starts(items, split)?;
        let mut records = Records::new(match split {
            Split::Usual => PARTITION_BYTES,
            Split::Bytes(limit) => limit.get(),
            Split::Files(_) => u64::MAX,
        });
        let mut index = NewIndex::default();
        let mut tied: BTreeMap<Source, Record> = BTreeMap::new();
        for (number, item) in items.iter().enumerate() {
            if starts.contains(&number) {
                records.end_partition();
            }
            let bytes = item.source.byte_len();
            let record = match tied.get(&source(item)) {
                Some(record) if bytes > 0 => *record,
                _ => {
                    let record = records.place(bytes).ok_or_else(too_large)?;
                    let destination = Destination { file: record.partition, offset: record.offset };
                    layout.place(&item.source, destination).ok_or_else(too_large)?;
                    tied.insert(source(item), record);
                    record
                }
            };
            if let Some(dtype) = Dialect::Original.dtype_name(item.dtype) {
                index.add(&item.name, record.global, bytes, item.source.shape, &dtype);
            }
        }
        for (number, &bytes) in (0..).zip(records.partitions()) {
            let name = partition_name(number);
            layout.push_file(OutputFile { name, bytes, start: Vec::new() });
        }
        layout.push_index(INDEX_NAME, index.finish())?;
        Ok(())
    }
}

/// The location of a tensor's bytes in the source. Tensors with equal locations are tied.
type Source = (FileId, u64, u64);

fn source(item: &Item<'_>) -> Source {
    (item.source.file, item.source.range.start(), item.source.range.end())
}

/// Returns the items that start a partition, if the number of partitions is given.
fn partition_starts(items: &[Item<'_>], split: Split) -> Result<BTreeSet<usize>, ConvertError> {
    let Split::Files(files) = split else { return Ok(BTreeSet::new()) };
    let mut seen = BTreeSet::new();
    // An item that is tied to an earlier one takes no space.
    let sizes: Vec<u64> =
        items.iter().map(|item| if seen.insert(source(item)) { item.source.byte_len() } else { 0 }).collect();
    Ok(evenly(&sizes, files)?.into_iter().map(|part| part.start).collect())
}
