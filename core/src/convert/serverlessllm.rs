//! ServerlessLLM as a target.

use super::{ConvertError, Destination, Item, Layout, OutputFile, Split, Target, split};
use crate::format::serverlessllm::write::{NewIndex, PARTITION_BYTES, Record, Records};
use crate::format::serverlessllm::{Dialect, INDEX_NAME, partition_name};
use crate::units::FileId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub(super) fn lay_out(layout: &mut Layout, items: &[Item<'_>], split: Split) -> Result<(), ConvertError> {
    const TARGET: Target = Target::ServerlessLlm;
    let too_large = || ConvertError::TooLarge { target: TARGET };
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
        layout.files.push(OutputFile { name, bytes, start: Vec::new() });
    }
    layout.push_index(INDEX_NAME, index.finish())?;
    Ok(())
}

/// Where a tensor's bytes lie in the source. Tensors for which that is the same are tied.
type Source = (FileId, u64, u64);

fn source(item: &Item<'_>) -> Source {
    (item.source.file, item.source.range.start(), item.source.range.end())
}

/// The items that begin a partition, where the number of partitions is given.
fn partition_starts(items: &[Item<'_>], split: Split) -> Result<BTreeSet<usize>, ConvertError> {
    let Split::Files(files) = split else { return Ok(BTreeSet::new()) };
    let mut seen = BTreeSet::new();
    // What is tied to an earlier one takes no room.
    let sizes: Vec<u64> =
        items.iter().map(|item| if seen.insert(source(item)) { item.source.byte_len() } else { 0 }).collect();
    let parts =
        split::evenly(&sizes, files).map_err(|tensors| ConvertError::TooFewTensors { files: files.get(), tensors })?;
    Ok(parts.into_iter().map(|part| part.start).collect())
}
