//! Files built byte by byte, valid or not.

use super::super::MAGIC;
use crate::element::GgmlType;
use alloc::vec::Vec;

/// A file under construction. Parts are written as given, and valid tensors at their right offsets.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
    /// The counts in the header, if they differ from the contents.
    pub(super) tensor_count: Option<i64>,
    pub(super) key_count: Option<i64>,
    pub(super) alignment: u64,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) tensors: Vec<Vec<u8>>,
    pub(super) data: u64,
    /// Whether there is a data section.
    pub(super) padded: bool,
}

/// The maximum size of a tensor with data. Larger ones are rejected before it is read.
const MOST_DATA: u64 = 1 << 20;

impl Draft {
    pub(super) fn new() -> Self {
        Self {
            magic: MAGIC,
            version: 3,
            tensor_count: None,
            key_count: None,
            alignment: 32,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: 0,
            padded: false,
        }
    }

    /// Adds a key with a value of this type and any bytes.
    pub(super) fn key(&mut self, key: &str, id: i32, value: &[u8]) {
        self.raw_key(&[&string(key), &id.to_le_bytes()[..], value].concat());
    }

    pub(super) fn raw_key(&mut self, bytes: &[u8]) {
        self.keys.push(bytes.to_vec());
    }

    /// Adds the key `general.alignment`, and places tensors accordingly.
    pub(super) fn align(&mut self, alignment: u32) {
        self.alignment = alignment.into();
        self.key("general.alignment", 4, &alignment.to_le_bytes());
    }

    /// Adds a tensor with zeros as data.
    pub(super) fn tensor(&mut self, name: &str, dims: &[i64], id: i32) {
        let offset = self.data.next_multiple_of(self.alignment);
        self.raw_tensor(&described(name, dims, id, offset));
        let elements = dims.iter().try_fold(1_i64, |product, dim| product.checked_mul(*dim));
        let elements = elements.map_or(0, |elements| elements.max(0) as u64);
        let bytes = GgmlType::from_id(id)
            .and_then(|ggml| (elements / ggml.block_elements()).checked_mul(ggml.block_bytes()))
            .filter(|&bytes| bytes <= MOST_DATA);
        self.data = offset + bytes.unwrap_or(0);
        self.padded = true;
    }

    pub(super) fn raw_tensor(&mut self, bytes: &[u8]) {
        self.tensors.push(bytes.to_vec());
    }

    /// Returns the bytes before the padding.
    pub(super) fn header(&self) -> Vec<u8> {
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as i64);
        let keys = self.key_count.unwrap_or(self.keys.len() as i64);
        let (version, tensors, keys) = (self.version.to_le_bytes(), tensors.to_le_bytes(), keys.to_le_bytes());
        let start = [&self.magic[..], &version, &tensors, &keys].concat();
        [start, self.keys.concat(), self.tensors.concat()].concat()
    }

    /// Returns all bytes, including the last tensor's padding. Only [`tensor`](Self::tensor) adds
    /// data.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        if !self.padded {
            return file;
        }
        let start = (file.len() as u64).next_multiple_of(self.alignment);
        file.resize((start + self.data.next_multiple_of(self.alignment)) as usize, 0);
        file
    }
}

/// Returns a string with its length before it.
pub(super) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Returns the value of an array.
pub(super) fn array(element: i32, elements: &[Vec<u8>]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes(), &elements.concat()].concat()
}

/// Returns the description of a tensor.
pub(super) fn described(name: &str, dims: &[i64], id: i32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let (rank, id, offset) = ((dims.len() as u32).to_le_bytes(), id.to_le_bytes(), offset.to_le_bytes());
    [&string(name)[..], &rank, &dims_bytes, &id, &offset].concat()
}
