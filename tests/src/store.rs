//! A ServerlessLLM store of one partition, laid out byte by byte.

use std::fs;
use std::path::Path;

/// A tensor to be written: name, dtype as PyTorch has it, shape, bytes.
pub type StoreTensor<'a> = (&'a str, &'a str, &'a [u64], &'a [u8]);

/// Writes the index and the partition; records are padded to 8 bytes, with bytes that are not zero.
pub fn write(folder: &Path, tensors: &[StoreTensor<'_>]) {
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
