//! Files byte by byte, right or wrong.

use super::super::MAGIC;
use crate::element::GgmlType;
use alloc::vec::Vec;

/// A file to be: what is in it is written as it is given, and tensors that are right lie where they
/// should.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
    /// What the header claims, if that is not what it holds.
    pub(super) tensor_count: Option<i64>,
    pub(super) key_count: Option<i64>,
    pub(super) alignment: u64,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) tensors: Vec<Vec<u8>>,
    pub(super) data: u64,
    /// Whether there is a data section.
    pub(super) padded: bool,
}

/// A tensor that would be longer has no data: it is refused before.
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

    /// A key with a value of that type, whatever its bytes are.
    pub(super) fn key(&mut self, key: &str, id: i32, value: &[u8]) {
        self.raw_key(&[&string(key), &id.to_le_bytes()[..], value].concat());
    }

    pub(super) fn raw_key(&mut self, bytes: &[u8]) {
        self.keys.push(bytes.to_vec());
    }

    /// The key `general.alignment`, and tensors accordingly.
    pub(super) fn align(&mut self, alignment: u32) {
        self.alignment = alignment.into();
        self.key("general.alignment", 4, &alignment.to_le_bytes());
    }

    /// A tensor behind those that are there, with zeros for data.
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

    /// All before the padding.
    pub(super) fn header(&self) -> Vec<u8> {
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as i64);
        let keys = self.key_count.unwrap_or(self.keys.len() as i64);
        let (version, tensors, keys) = (self.version.to_le_bytes(), tensors.to_le_bytes(), keys.to_le_bytes());
        let start = [&self.magic[..], &version, &tensors, &keys].concat();
        [start, self.keys.concat(), self.tensors.concat()].concat()
    }

    /// All of it, the last tensor's padding included. Only [`tensor`](Self::tensor) adds a data
    /// section.
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

/// A string with its length before it.
pub(super) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An array's value.
pub(super) fn array(element: i32, elements: &[Vec<u8>]) -> Vec<u8> {
    [&element.to_le_bytes()[..], &(elements.len() as u64).to_le_bytes(), &elements.concat()].concat()
}

/// A tensor's description.
pub(super) fn described(name: &str, dims: &[i64], id: i32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let (rank, id, offset) = ((dims.len() as u32).to_le_bytes(), id.to_le_bytes(), offset.to_le_bytes());
    [&string(name)[..], &rank, &dims_bytes, &id, &offset].concat()
}
