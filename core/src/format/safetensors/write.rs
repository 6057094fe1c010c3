//! Creates the start of a safetensors file: the header's length and the header, identical to the
//! output of the reference (crate `safetensors`, `serialize`).
//!
//! Tensors are sorted by dtype, the widest first, then by name. Spaces pad the JSON to a multiple
//! of 8 bytes. No tensor is followed by one with a stricter alignment, so each is aligned.

use super::{MAX_HEADER_BYTES, PREFIX_LEN};
use crate::convert::WriteError;
use crate::dtype::DType;
use crate::names::sorted_by_name;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt::{self, Write as _};
use serde_json::Value;

/// The key of the metadata in a header. No tensor can have this name.
pub const METADATA_KEY: &str = "__metadata__";

/// The alignment of the JSON's end in bytes, so that the data is aligned for every dtype.
const HEADER_ALIGNMENT: usize = 8;

/// A tensor to write.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// The name, unique within the file.
    pub name: &'a str,
    /// The element type.
    pub dtype: DType,
    /// The dimensions, slowest first.
    pub shape: &'a [u64],
    /// The length in bytes.
    pub bytes: u64,
}

/// The start of a new file, and the offsets of its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The first bytes of the file: the header's length and the header.
    pub start: Vec<u8>,
    /// The offset of each tensor, from the start of the file.
    pub offsets: Vec<u64>,
    /// The length of the file in bytes.
    pub bytes: u64,
}

/// Lays out a file with these tensors and metadata pairs, in the given order of the pairs.
///
/// # Errors
/// Fails if the header or the file would be too large.
pub fn lay_out(tensors: &[NewTensor<'_>], metadata: &[(&str, &str)]) -> Result<NewFile, WriteError> {
    let mut order = sorted_by_name(tensors.iter().map(|tensor| tensor.name));
    // The sort is stable, so names stay sorted within a dtype.
    order.sort_by_key(|&number| Reverse(tensors[number as usize].dtype));

    let mut json = String::from("{");
    if !metadata.is_empty() {
        write_metadata(&mut json, metadata);
    }
    let mut offsets = vec![0; tensors.len()];
    let mut end = 0_u64;
    for number in order {
        let tensor = &tensors[number as usize];
        let begin = end;
        end = begin.checked_add(tensor.bytes).ok_or(WriteError::FileTooLarge)?;
        offsets[number as usize] = begin;
        if json.len() > 1 {
            json.push(',');
        }
        write_entry(&mut json, tensor, begin, end);
    }
    json.push('}');
    let padded = padded(json.len())?;
    let mut start = Vec::with_capacity(PREFIX_LEN + padded);
    start.extend_from_slice(&(padded as u64).to_le_bytes());
    start.extend_from_slice(json.as_bytes());
    start.resize(PREFIX_LEN + padded, b' ');

    let data_start = start.len() as u64;
    let bytes = data_start.checked_add(end).ok_or(WriteError::FileTooLarge)?;
    offsets.iter_mut().for_each(|offset| *offset += data_start);
    Ok(NewFile { start, offsets, bytes })
}

/// Returns the padded length of a header with `json` bytes of JSON.
fn padded(json: usize) -> Result<usize, WriteError> {
    let padded = json.next_multiple_of(HEADER_ALIGNMENT);
    match padded as u64 {
        0..=MAX_HEADER_BYTES => Ok(padded),
        needed => Err(WriteError::HeaderTooLarge { needed, limit: MAX_HEADER_BYTES }),
    }
}

fn write_metadata(json: &mut String, metadata: &[(&str, &str)]) {
    let _ = write!(json, "\"{METADATA_KEY}\":{{");
    for (i, (key, value)) in metadata.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(json, "{comma}{}:{}", JsonText(key), JsonText(value));
    }
    json.push('}');
}

fn write_entry(json: &mut String, tensor: &NewTensor<'_>, begin: u64, end: u64) {
    let NewTensor { name, dtype, shape, .. } = tensor;
    // Writing to a string never fails.
    let _ = write!(json, "{}:{{\"dtype\":\"{dtype}\",\"shape\":{}", JsonText(name), JsonList(shape));
    let _ = write!(json, ",\"data_offsets\":[{begin},{end}]}}");
}

/// Displays a text as a JSON string.
pub(crate) struct JsonText<'a>(pub(crate) &'a str);

impl fmt::Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Value::from(self.0).fmt(f)
    }
}

/// Displays numbers as a JSON array.
pub(crate) struct JsonList<'a>(pub(crate) &'a [u64]);

impl fmt::Display for JsonList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        for (i, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if i == 0 { "" } else { "," })?;
        }
        f.write_char(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::safetensors::{Header, header_range};
    use alloc::collections::BTreeMap;
    use alloc::string::ToString;
    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    fn reference_dtype(dtype: DType) -> safetensors::Dtype {
        serde_json::from_value(Value::from(dtype.name())).expect("a dtype of the reference")
    }

    proptest! {
        #[test]
        fn a_file_is_byte_for_byte_what_the_reference_writes(
            tensors in prop::collection::btree_map(
                "[a-c.\"\\\\\n模]{0,6}",
                (prop::sample::select(DType::ALL), prop::collection::vec(0_u64..5, 0..4)),
                0..12,
            ),
            metadata in prop::option::of(("[a-z\"]{0,5}", "[a-z\n\u{1b}é]{0,5}")),
        ) {
            // Packed types need a last dimension of whole bytes.
            let tensors: BTreeMap<_, _> = tensors.into_iter().map(|(name, (dtype, mut shape))| {
                if dtype.bits() < 8 {
                    shape.push(4);
                }
                (name, (dtype, shape))
            }).collect();
            let bytes = |dtype: DType, shape: &[u64]| shape.iter().product::<u64>() * dtype.bits() / 8;
            let new: Vec<NewTensor<'_>> = tensors.iter().map(|(name, (dtype, shape))| NewTensor {
                name, dtype: *dtype, shape, bytes: bytes(*dtype, shape),
            }).collect();
            let pairs: Vec<(&str, &str)> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let file = lay_out(&new, &pairs).expect("small");

            let data: Vec<Vec<u8>> = new.iter().enumerate().map(|(i, tensor)| vec![i as u8; tensor.bytes as usize]).collect();
            let views = new.iter().zip(&data).map(|(tensor, data)| {
                let shape = tensor.shape.iter().map(|&dim| dim as usize).collect();
                (tensor.name, TensorView::new(reference_dtype(tensor.dtype), shape, data).expect("fits"))
            });
            let pairs = metadata.clone().map(|pair| [pair].into_iter().collect());
            let reference = safetensors::serialize(views, pairs).expect("valid");
            let mut ours = file.start.clone();
            ours.resize(file.bytes as usize, 0xee);
            for (tensor, (offset, data)) in new.iter().zip(file.offsets.iter().zip(&data)) {
                prop_assert!(offset.is_multiple_of(tensor.dtype.alignment()), "{} at {offset}", tensor.name);
                ours[*offset as usize..][..data.len()].copy_from_slice(data);
            }
            prop_assert_eq!(ours, reference);
        }
    }

    #[test]
    fn what_is_written_is_read_with_all_of_its_metadata() {
        let tensors = [
            NewTensor { name: "a", dtype: DType::F8_E4M3, shape: &[3], bytes: 3 },
            NewTensor { name: "b", dtype: DType::F64, shape: &[], bytes: 8 },
        ];
        let file = lay_out(&tensors, &[("format", "pt"), ("a", "\"")]).expect("small");
        let range = header_range(&file.start, file.bytes).expect("valid");
        let header = Header::parse(&file.start[range.start() as usize..], file.bytes).expect("valid");
        assert_eq!(header.metadata(), [("format".into(), "pt".into()), ("a".into(), "\"".into())]);
        let found: Vec<(&str, u64)> = header.entries().iter().map(|e| (e.name.as_ref(), e.range.start())).collect();
        assert_eq!(found, [("b", file.offsets[1]), ("a", file.offsets[0])], "the wider dtype first");
        assert!(header.data_start().is_multiple_of(8));
    }

    #[test]
    fn what_would_be_too_large_is_refused() {
        let huge = NewTensor { name: "a", dtype: DType::U8, shape: &[u64::MAX], bytes: u64::MAX };
        assert_eq!(lay_out(&[huge, NewTensor { name: "b", ..huge }], &[]), Err(WriteError::FileTooLarge));
        assert_eq!(lay_out(&[huge], &[]), Err(WriteError::FileTooLarge), "with its header");
        let max = MAX_HEADER_BYTES as usize;
        assert_eq!((padded(max), padded(max - 7)), (Ok(max), Ok(max)));
        let error = padded(max + 1).expect_err("too long");
        assert_eq!(error, WriteError::HeaderTooLarge { needed: MAX_HEADER_BYTES + 8, limit: MAX_HEADER_BYTES });
        assert!(error.to_string().contains("100000000"), "{error}");
    }
}
