//! Reads a ServerlessLLM checkpoint by the rules of its layout, independently of the code under
//! test.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor of a ServerlessLLM checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As the index has it.
    pub dtype: String,
    /// As the index has it.
    pub shape: Vec<u64>,
    /// The offset in the concatenation of all partitions.
    pub offset: u64,
    /// The length in bytes.
    pub bytes: Vec<u8>,
}

/// The lengths of the partitions.
pub fn partitions(folder: &Path) -> Vec<u64> {
    let lengths = (0..).map_while(|number| fs::metadata(folder.join(format!("tensor.data_{number}"))).ok());
    lengths.map(|metadata| metadata.len()).collect()
}

/// Returns all tensors of a ServerlessLLM checkpoint in the original dialect.
///
/// # Panics
/// If the checkpoint breaks a rule: a record crosses the end of a partition or is not aligned, or
/// strides are not contiguous.
pub fn read(folder: &Path) -> BTreeMap<String, Stored> {
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("tensor_index.json")).expect("reads")).expect("JSON");
    let lengths = partitions(folder);
    let data: Vec<Vec<u8>> = (0..lengths.len())
        .map(|number| fs::read(folder.join(format!("tensor.data_{number}"))).expect("reads"))
        .collect();
    let data = data.concat();
    let numbers = |value: &Value| -> Vec<u64> {
        value.as_array().expect("a list").iter().map(|number| number.as_u64().expect("a number")).collect()
    };
    let mut tensors = BTreeMap::new();
    for (name, record) in index.as_object().expect("an object") {
        let record = record.as_array().expect("a list");
        assert_eq!(record.len(), 5, "the original dialect");
        let (offset, size) = (record[0].as_u64().expect("a number"), record[1].as_u64().expect("a number"));
        let (shape, strides) = (numbers(&record[2]), numbers(&record[3]));
        assert_eq!(offset % 8, 0, "{name}");
        let mut expected = 1;
        for (dim, stride) in shape.iter().zip(&strides).rev() {
            assert_eq!(*stride, expected, "{name}: {shape:?} {strides:?}");
            expected *= (*dim).max(1);
        }
        assert_eq!(shape.len(), strides.len());
        let mut end = 0;
        let holds = lengths.iter().any(|length| {
            end += length;
            offset >= end - length && offset + size <= end
        });
        assert!(holds, "{name} is in no one of {lengths:?}");
        tensors.insert(
            name.clone(),
            Stored {
                dtype: record[4].as_str().expect("a string").to_owned(),
                shape,
                offset,
                bytes: data[offset as usize..(offset + size) as usize].to_vec(),
            },
        );
    }
    tensors
}
