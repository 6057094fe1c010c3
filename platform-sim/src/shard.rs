//! A file of a checkpoint as its writer defines it: its tensors and its header.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use floodtide_core::DType;

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTensor {
    /// The unique name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The length in bytes, a multiple of whole elements.
    pub bytes: u64,
    /// The dimensions, slowest first, which match the length.
    pub shape: Vec<u64>,
    /// Whether it is tied to the previous tensor, which has the same length. Only in a
    /// ServerlessLLM checkpoint.
    pub tied: bool,
}

impl NewTensor {
    /// Creates a tensor of one dimension.
    #[must_use]
    pub fn flat(name: String, dtype: DType, bytes: u64) -> Self {
        Self { name, dtype, bytes, shape: vec![elements(dtype, bytes)], tied: false }
    }
}

/// Returns the number of elements in `bytes` bytes, a multiple of whole elements.
#[must_use]
pub fn elements(dtype: DType, bytes: u64) -> u64 {
    // The number of bits could exceed 64 bits.
    bytes / dtype.whole_bytes() * (dtype.whole_bytes() * 8 / dtype.bits())
}

/// Returns the length of a shape in bytes.
pub(crate) fn bytes_of(dtype: DType, shape: &[u64]) -> u64 {
    let bits = shape.iter().fold(u128::from(dtype.bits()), |bits, &size| bits * u128::from(size));
    u64::try_from(bits / 8).expect("a tensor has fewer bytes")
}

/// The spaces after a header, which determine where the data starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// This number of spaces.
    Bytes(u64),
    /// As many as align the data to this.
    To(u64),
}

/// A file whose tensors are contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The tensors, in the order of the data.
    pub tensors: Vec<NewTensor>,
    /// The order of the tensors in the header, which may differ from the data.
    pub order: Vec<usize>,
    /// Whether the header has metadata.
    pub metadata: bool,
    /// The spaces after the header.
    pub padding: Padding,
    /// The seed of the contents.
    pub contents: u64,
}

impl Shard {
    /// Creates a shard as most writers do.
    #[must_use]
    pub fn new(tensors: Vec<NewTensor>, contents: u64) -> Self {
        let order = (0..tensors.len()).collect();
        Self { tensors, order, metadata: false, padding: Padding::To(8), contents }
    }

    /// Keeps only these tensors.
    #[must_use]
    pub(crate) fn only(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let kept: Vec<usize> = (0..self.tensors.len()).filter(|&i| keeps(i)).collect();
        let order = self.order.iter().filter_map(|i| kept.iter().position(|k| k == i));
        // The first remaining one of tied tensors is tied to none.
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

    /// Returns the file's first bytes, up to the data.
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

/// Returns a name as a JSON string.
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
