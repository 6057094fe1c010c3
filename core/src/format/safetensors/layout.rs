//! Writes safetensors files, named and indexed as Hugging Face does (`huggingface_hub`,
//! `split_state_dict_into_shards_factory`).

use super::write::{JsonText, METADATA_KEY, NewTensor, lay_out as lay_out_file};
use super::{INDEX_NAME, SAFETENSORS};
use crate::convert::{ConvertError, Destination, Item, Layout, OutputFile, Split, Writer};
use crate::dtype::DType;
use crate::format_id::FormatId;
use crate::names::sorted_by_name;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// The default maximum size of a shard's tensors in bytes, as in Hugging Face's libraries: 5 GB.
const SHARD_BYTES: u64 = 5_000_000_000;

/// Returns the name of file `number`, from 0, of `count`.
fn file_name(number: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_string(),
        count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    }
}

/// The writer of [`SAFETENSORS`].
#[derive(Debug)]
pub(super) struct SafetensorsWriter;

impl Writer for SafetensorsWriter {
    fn format(&self) -> FormatId {
        SAFETENSORS
    }

    fn summary(&self) -> &'static str {
        "One file, or several of at most 5 GB with an index, as Hugging Face names them"
    }

    fn holds(&self, _: DType) -> bool {
        true
    }

    fn advice(&self) -> &'static str {
        "its types are plain ones, and no blocks of quantised elements: keep such a model as it is"
    }

    fn holds_metadata(&self) -> bool {
        true
    }

    fn lay_out(
        &self,
        layout: &mut Layout,
        items: &[Item<'_>],
        metadata: &[(&str, &str)],
        split: Split,
    ) -> Result<(), ConvertError> {
        if let Some(item) = items.iter().find(|item| item.name == METADATA_KEY) {
            let tensor = item.source.name.to_string();
            return Err(ConvertError::ReservedName { target: SAFETENSORS, tensor, name: METADATA_KEY.to_string() });
        }
        let sizes: Vec<u64> = items.iter().map(|item| item.source.byte_len()).collect();
        let shards = split.divide(&sizes, SHARD_BYTES)?;
        let mut shard_of = vec![0; items.len()];
        let count = shards.len();
        for (destination, (number, shard)) in (0..).zip(shards.into_iter().enumerate()) {
            shard_of[shard.clone()].fill(number);
            let items = &items[shard];
            let tensors: Vec<NewTensor<'_>> = items
                .iter()
                .map(|item| NewTensor {
                    name: &item.name,
                    dtype: item.dtype,
                    shape: item.source.shape,
                    bytes: item.source.byte_len(),
                })
                .collect();
            let name = file_name(number, count);
            let file =
                lay_out_file(&tensors, metadata).map_err(|source| ConvertError::File { file: name.clone(), source })?;
            for (item, &offset) in items.iter().zip(&file.offsets) {
                layout
                    .place(&item.source, Destination { file: destination, offset })
                    .ok_or(ConvertError::TooLarge { target: SAFETENSORS })?;
            }
            layout.push_file(OutputFile { name, bytes: file.bytes, start: file.start });
        }
        if count > 1 {
            let index = index(layout, items, &shard_of);
            layout.push_index(INDEX_NAME, index.into_bytes())?;
        }
        Ok(())
    }
}

/// Returns the index, indented and sorted as Hugging Face writes it.
fn index(layout: &Layout, items: &[Item<'_>], shard_of: &[usize]) -> String {
    let total = layout.tensor_bytes();
    let mut json = format!("{{\n  \"metadata\": {{\n    \"total_size\": {total}\n  }},\n  \"weight_map\": {{");
    for (i, number) in sorted_by_name(items.iter().map(|item| item.name.as_ref())).into_iter().enumerate() {
        let (item, shard) = (&items[number as usize], &layout.files()[shard_of[number as usize]]);
        let comma = if i == 0 { "" } else { "," };
        // Writing to a string never fails.
        let _ = write!(json, "{comma}\n    {}: {}", JsonText(&item.name), JsonText(&shard.name));
    }
    json.push_str("\n  }\n}\n");
    json
}
