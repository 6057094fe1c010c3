//! A file of a checkpoint as its writer means it: which tensors are in it, and what its header looks like.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use floodtide_core::DType;

/// A tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// Its name, which no other has.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// How many bytes it has: what whole elements fill.
    pub bytes: u64,
    /// Its dimensions, slowest first: of as many elements as it has bytes for.
    pub shape: Vec<u64>,
    /// Whether it is the same bytes as the one before it, of which it has as many; only in a ServerlessLLM checkpoint.
    pub tied: bool,
}

impl NewTensor {
    /// One of a single dimension.
    #[must_use]
    pub fn flat(name: String, dtype: DType, bytes: u64) -> Self {
        Self { name, dtype, bytes, shape: vec![elements(dtype, bytes)], tied: false }
    }
}

/// How many elements fill so many bytes, which are whole ones'.
#[must_use]
pub fn elements(dtype: DType, bytes: u64) -> u64 {
    // Not by way of bits, of which 64 bits number fewer bytes than there may be.
    bytes / dtype.whole_bytes() * (dtype.whole_bytes() * 8 / dtype.bits())
}

/// How many bytes so many elements have.
pub(crate) fn bytes_of(dtype: DType, shape: &[u64]) -> u64 {
    let bits = shape.iter().fold(u128::from(dtype.bits()), |bits, &size| bits * u128::from(size));
    (bits / 8) as u64
}

/// How many spaces follow a header, which decides where the data starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// So many.
    Bytes(u64),
    /// As many as bring the data to a multiple of that.
    To(u64),
}

/// A file with tensors one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The tensors, in the order of the data.
    pub tensors: Vec<NewTensor>,
    /// Where each tensor stands in the header, which need not have the order of the data.
    pub order: Vec<usize>,
    /// Whether the header has metadata.
    pub metadata: bool,
    /// What follows it.
    pub padding: Padding,
    /// What the data is made from.
    pub contents: u64,
}

impl Shard {
    /// As most writers make it.
    #[must_use]
    pub fn new(tensors: Vec<NewTensor>, contents: u64) -> Self {
        let order = (0..tensors.len()).collect();
        Self { tensors, order, metadata: false, padding: Padding::To(8), contents }
    }

    /// The same with only those of its tensors.
    #[must_use]
    pub(crate) fn only(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.tensors.len()).filter(|&i| keeps(i)).collect();
        let order = self.order.iter().filter_map(|i| kept.iter().position(|k| k == i));
        // The first that is left of those that are the same bytes is tied to none.
        let owner = |i: usize| (0..=i).rev().find(|&i| !self.tensors[i].tied);
        let tied = |at: usize| at > 0 && owner(kept[at - 1]) == owner(kept[at]);
        let tensor = |at: usize| NewTensor { tied: tied(at), ..self.tensors[kept[at]].clone() };
        Self {
            tensors: (0..kept.len()).map(tensor).collect(),
            order: order.collect(),
            metadata: self.metadata,
            padding: self.padding,
            contents: self.contents,
        }
    }

    /// The file's first bytes, behind which the data starts.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut json = String::from("{");
        if self.metadata {
            json += r#""__metadata__":{"format":"pt"}"#;
        }
        let mut end = 0;
        let ranges: Vec<(u64, u64)> = self
            .tensors
            .iter()
            .map(|tensor| {
                let begin = end;
                end += tensor.bytes;
                (begin, end)
            })
            .collect();
        for &i in &self.order {
            let NewTensor { name, dtype, shape, .. } = &self.tensors[i];
            if json.len() > 1 {
                json.push(',');
            }
            json += &quoted(name);
            let (begin, end) = ranges[i];
            let _ = write!(json, r#":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#);
        }
        json.push('}');
        let padding = match self.padding {
            Padding::Bytes(bytes) => bytes,
            Padding::To(multiple) => (8 + json.len() as u64).next_multiple_of(multiple) - (8 + json.len() as u64),
        };
        json.extend((0..padding).map(|_| ' '));
        let mut head = (json.len() as u64).to_le_bytes().to_vec();
        head.extend_from_slice(json.as_bytes());
        head
    }
}

/// A name as a string of JSON.
pub(crate) fn quoted(name: &str) -> String {
    let mut json = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if (c as u32) < 0x20 => _ = write!(json, "\\u{:04x}", c as u32),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
