//! Writes GGUF files byte by byte, right or wrong.

use floodtide_core::GgmlType;
use std::fs;
use std::path::{Path, PathBuf};

/// A draft of a file. Tensors added with [`tensor`](Self::tensor) get the right offsets; everything
/// else is written as given.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// The version.
    pub version: u32,
    /// The number of tensors that the header claims, if it is wrong.
    pub tensor_count: Option<i64>,
    /// The number of keys that the header claims, if it is wrong.
    pub key_count: Option<i64>,
    /// The alignment of tensors.
    pub alignment: u64,
    /// The keys, with their values.
    pub keys: Vec<Vec<u8>>,
    /// The descriptions of the tensors.
    pub tensors: Vec<Vec<u8>>,
    /// The data of the tensors; `Some` once there is a tensor, even an empty one.
    pub data: Option<Vec<u8>>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: None,
        }
    }
}

impl Draft {
    /// Returns an empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key with a value of a type, without checking its bytes.
    #[must_use]
    pub fn key(self, key: &str, id: i32, value: &[u8]) -> Self {
        self.raw_key(&[&string(key), &id.to_le_bytes()[..], value].concat())
    }

    /// Adds the raw bytes of a key.
    #[must_use]
    pub fn raw_key(mut self, bytes: &[u8]) -> Self {
        self.keys.push(bytes.to_vec());
        self
    }

    /// Adds `general.alignment`, and aligns the tensors that follow accordingly.
    #[must_use]
    pub fn align(mut self, alignment: u32) -> Self {
        self.alignment = alignment.into();
        self.key("general.alignment", 4, &alignment.to_le_bytes())
    }

    /// Adds the keys of a shard; numbers start at 0.
    #[must_use]
    pub fn shard(self, number: u16, count: u16, tensors: i32) -> Self {
        self.key("split.no", 2, &number.to_le_bytes()).key("split.count", 2, &count.to_le_bytes()).key(
            "split.tensors.count",
            5,
            &tensors.to_le_bytes(),
        )
    }

    /// Adds a tensor whose bytes differ everywhere. Dimensions are in ggml's order.
    #[must_use]
    pub fn tensor(mut self, name: &str, dims: &[u64], ggml: GgmlType) -> Self {
        let data = self.data.get_or_insert_default();
        let offset = (data.len() as u64).next_multiple_of(self.alignment);
        let bytes = dims.iter().product::<u64>() / ggml.block_elements() * ggml.block_bytes();
        // The padding is not zero, so that a reader that takes it for data fails the test.
        data.resize(offset as usize, 0xaa);
        data.extend((0..bytes).map(|at| (at * 7 + at / 255 + offset * 31) as u8));
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        self.raw_tensor(&described(name, &dims, ggml.id(), offset))
    }

    /// Adds the raw description of a tensor.
    #[must_use]
    pub fn raw_tensor(mut self, bytes: &[u8]) -> Self {
        self.tensors.push(bytes.to_vec());
        self
    }

    /// Returns everything before the padding.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as i64);
        let keys = self.key_count.unwrap_or(self.keys.len() as i64);
        let (version, tensors, keys) = (self.version.to_le_bytes(), tensors.to_le_bytes(), keys.to_le_bytes());
        let start = [&self.magic[..], &version, &tensors, &keys].concat();
        [start, self.keys.concat(), self.tensors.concat()].concat()
    }

    /// Returns the whole file, with the padding of the last tensor.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        if let Some(data) = &self.data {
            let pad = |file: &mut Vec<u8>| file.resize(file.len().next_multiple_of(self.alignment as usize), 0xaa);
            pad(&mut file);
            file.extend_from_slice(data);
            pad(&mut file);
        }
        file
    }

    /// Writes it into a folder and returns its path.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, self.to_bytes()).expect("writes");
        path
    }
}

/// Returns a string after its length.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Returns an array's value: the type of its elements, their claimed number, and their bytes.
#[must_use]
pub fn array(element: i32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// Returns a tensor's description.
#[must_use]
pub fn described(name: &str, dims: &[i64], id: i32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let (rank, id, offset) = ((dims.len() as u32).to_le_bytes(), id.to_le_bytes(), offset.to_le_bytes());
    [&string(name)[..], &rank, &dims_bytes, &id, &offset].concat()
}
