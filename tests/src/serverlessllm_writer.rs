//! Writes ServerlessLLM checkpoints of any layout without floodtide's code, and returns their
//! contents.

use floodtide_core::DType;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The dtypes that ServerlessLLM writes, with its names for them.
const DTYPES: [(&str, &str, DType); 5] = [
    ("torch.uint8", "u8", DType::U8),
    ("torch.bfloat16", "bf16", DType::BF16),
    ("torch.float32", "f32", DType::F32),
    ("torch.float64", "f64", DType::F64),
    ("torch.int16", "i16", DType::I16),
];

/// A ServerlessLLM checkpoint to write.
#[derive(Debug, Clone)]
pub struct ServerlessLlmData {
    /// The index of the dtype, the rows, the columns, and the number of further names for the same
    /// bytes.
    pub tensors: Vec<(usize, u64, u64, usize)>,
    /// The size at which a new partition starts.
    pub limit: u64,
    /// Whether records have six elements, with offsets in the partition and no padding.
    pub tensora: bool,
}

/// Generates any checkpoint.
pub fn checkpoints() -> impl Strategy<Value = ServerlessLlmData> {
    let columns = prop_oneof![4 => 0_u64..50, 2 => 0_u64..3000, 1 => 10_000_u64..40_000];
    let ties = prop_oneof![3 => Just(0_usize), 1 => 1_usize..3];
    let tensors = prop::collection::vec((0..DTYPES.len(), 1_u64..12, columns, ties), 1..10);
    let limit = prop_oneof![Just(1_u64), 10_000_u64..2_000_000, Just(10 << 30)];
    (tensors, limit, any::<bool>()).prop_map(|(tensors, limit, tensora)| ServerlessLlmData { tensors, limit, tensora })
}

/// Writes the checkpoint, and returns its bytes by name. Tensors tied to `t3` are named `t3.1` and
/// so on.
pub fn write(folder: &Path, data: &ServerlessLlmData) -> BTreeMap<String, Vec<u8>> {
    let (mut partitions, mut index, mut all) = (vec![Vec::new()], serde_json::Map::new(), BTreeMap::new());
    for (number, &(dtype, rows, columns, ties)) in data.tensors.iter().enumerate() {
        let (torch, short, dtype) = DTYPES[dtype];
        let size = rows * columns * dtype.bits() / 8;
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + i / 255 + i / 65_000 + number as u64 * 31) as u8).collect();
        let last = partitions.last().expect("there is one");
        if !last.is_empty() && last.len() as u64 + size > data.limit {
            partitions.push(Vec::new());
        }
        let before: usize = partitions[..partitions.len() - 1].iter().map(Vec::len).sum();
        let number_of_partition = partitions.len() - 1;
        let partition = partitions.last_mut().expect("there is one");
        let offset = partition.len();
        partition.extend_from_slice(&bytes);
        if !data.tensora {
            partition.resize(partition.len().next_multiple_of(8), 0xa5);
        }
        let (shape, strides) = ([rows, columns], [columns, 1]);
        let record = match data.tensora {
            true => serde_json::json!([offset, size, shape, strides, short, number_of_partition]),
            false => serde_json::json!([before + offset, size, shape, strides, torch]),
        };
        for tie in 0..=ties {
            let name = if tie == 0 { format!("t{number}") } else { format!("t{number}.{tie}") };
            index.insert(name.clone(), record.clone());
            all.insert(name, bytes.clone());
        }
    }
    for (number, partition) in partitions.iter().enumerate() {
        fs::write(folder.join(format!("tensor.data_{number}")), partition).expect("writes");
    }
    fs::write(folder.join("tensor_index.json"), serde_json::Value::Object(index).to_string()).expect("writes");
    all
}

/// A tensor to write: its name, its PyTorch dtype without `torch.`, its shape, its bytes.
pub type StoreTensor<'a> = (&'a str, &'a str, &'a [u64], &'a [u8]);

/// Writes a checkpoint of these tensors in one partition, with records padded to 8 bytes.
pub fn write_tensors(folder: &Path, tensors: &[StoreTensor<'_>]) {
    let (mut index, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offset = data.len();
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(8), 0xa5);
        let mut strides = vec![1_u64; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim];
        }
        let entry = serde_json::json!([offset, bytes.len(), shape, strides, format!("torch.{dtype}")]);
        index.insert((*name).to_owned(), entry);
    }
    fs::write(folder.join("tensor_index.json"), serde_json::Value::Object(index).to_string()).expect("writes");
    fs::write(folder.join("tensor.data_0"), data).expect("writes");
}
