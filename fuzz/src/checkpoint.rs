//! Arbitrary checkpoints: files with tensors of any dtype and length, data at any offset, and some
//! tied tensors.

use arbitrary::{Arbitrary, Result, Unstructured};
use floodtide_core::format::{SAFETENSORS, safetensors::Header};
use floodtide_core::{Catalog, CatalogBuilder, DType, TensorSlice};
use std::fmt::Write;

const MAX_FILES: usize = 4;
const MAX_TENSORS: usize = 12;

/// The maximum length of tensors.
#[derive(Debug, Clone, Copy)]
pub enum Lengths {
    /// Up to 2^40 elements, for targets that read nothing.
    Any,
    /// Up to 200,000 elements, for targets that hold them in memory.
    Small,
}

/// The header of a file, and the file's length.
#[derive(Debug)]
struct File {
    json: String,
    bytes: u64,
}

/// Creates a catalog of one to four files.
///
/// # Errors
/// Fails like [`Unstructured`].
pub fn catalog(u: &mut Unstructured<'_>, lengths: Lengths) -> Result<Catalog> {
    let mut builder = CatalogBuilder::new(SAFETENSORS);
    for number in 0..u.int_in_range(1..=MAX_FILES)? {
        let file = file(u, number, lengths)?;
        let header = Header::parse(file.json.as_bytes(), file.bytes).expect("it follows the format's rules");
        if number % 2 == 0 {
            header.add_to(&mut builder, &format!("file{number}"), file.bytes).expect("a few tensors");
        } else {
            add_tied(&mut builder, number, file.bytes, &header);
        }
    }
    Ok(builder.finish().expect("no name occurs twice"))
}

/// Adds a file as in a ServerlessLLM checkpoint with tied tensors, of the same type and shape or as
/// bytes.
///
/// This uses no input, and neither do shapes.
fn add_tied(builder: &mut CatalogBuilder, number: usize, bytes: u64, header: &Header<'_>) {
    let id = builder.add_file(&format!("file{number}"), bytes).expect("a few files");
    for (index, entry) in header.entries().iter().enumerate() {
        let (dtype, shape) = (entry.dtype.into(), header.shape(entry));
        let mut add = |suffix: &str, dtype, shape: &[u64]| {
            let name = format!("{}{suffix}", entry.name);
            builder.add_tensor(id, &name, dtype, shape, entry.range).expect("a few tensors");
        };
        add("", dtype, shape);
        if index % 3 != 0 {
            add(".tied", dtype, shape);
        }
        if index % 3 == 2 {
            add(".bytes", DType::U8.into(), &[entry.range.len()]);
        }
    }
}

fn file(u: &mut Unstructured<'_>, number: usize, lengths: Lengths) -> Result<File> {
    let mut json = "{".to_owned();
    let mut at = 0;
    for index in 0..u.int_in_range(0..=MAX_TENSORS)? {
        let dtype = *u.choose(DType::ALL)?;
        // Packed elements come in groups of whole bytes.
        let group = if dtype.bits() < 8 { 8 * dtype.whole_bytes() / dtype.bits() } else { 1 };
        let elements = elements(u, lengths)? / group * group;
        let end = at + elements * dtype.bits() / 8;
        let comma = if index == 0 { "" } else { "," };
        write!(
            json,
            r#"{comma}"{number}.{index}":{{"dtype":"{dtype}","shape":{:?},"data_offsets":[{at},{end}]}}"#,
            shape(elements, index)
        )
        .expect("strings take all");
        at = end;
    }
    json.push('}');
    // Spaces move the data to any offset.
    json.extend(std::iter::repeat_n(' ', u.int_in_range(0..=64)?));
    let bytes = 8 + json.len() as u64 + at;
    Ok(File { json, bytes })
}

/// Returns a shape of up to three dimensions from divisors of the number of elements. Uses no
/// input, so inputs keep their meaning.
fn shape(elements: u64, index: usize) -> Vec<u64> {
    let divisor = |n: u64, max: u32| 1 << n.trailing_zeros().min(max);
    let (inner, middle) = match index % 3 {
        0 => (1, 1),
        1 => (divisor(elements, 10), 1),
        _ => {
            let inner = divisor(elements, 16);
            (inner, divisor(elements / inner, 63) * if elements % 3 == 0 && elements > 0 { 3 } else { 1 })
        }
    };
    vec![elements / inner / middle, middle, inner]
}

fn elements(u: &mut Unstructured<'_>, lengths: Lengths) -> Result<u64> {
    match (u.int_in_range(0_u8..=7)?, lengths) {
        (0, _) => Ok(0),
        (1 | 2, _) => u.int_in_range(0..=64),
        (3 | 4, Lengths::Any) => u.int_in_range(0..=1 << 24),
        (5, Lengths::Any) => u.int_in_range(0..=1 << 40),
        // Near a multiple of a page, where alignments start and end.
        (6, _) => Ok((u.int_in_range(1..=32_u64)? * 4096).saturating_add_signed(u.int_in_range(-9..=9)?)),
        _ => u.int_in_range(0..=200_000),
    }
}

/// Selects some of the tensors, ascending or, if they may be listed, in any order.
///
/// # Errors
/// Fails like [`Unstructured`].
pub fn selection(u: &mut Unstructured<'_>, catalog: &Catalog, listed: bool) -> Result<Vec<TensorSlice>> {
    let left_out = u64::arbitrary(u)? & u64::arbitrary(u)?;
    let slice = catalog.tensors().map(|tensor| tensor.id).filter(|id| left_out >> (id.0 % 64) & 1 == 0);
    let mut selected: Vec<TensorSlice> = slice.map(TensorSlice::whole).collect();
    if listed {
        for last in (1..selected.len()).rev() {
            selected.swap(last, u.int_in_range(0..=last)?);
        }
    }
    Ok(selected)
}

/// Replaces some of the tensors by slices.
///
/// # Errors
/// Fails like [`Unstructured`].
pub fn cut(u: &mut Unstructured<'_>, catalog: &Catalog, selected: &mut [TensorSlice]) -> Result<()> {
    for slice in selected {
        let tensor = catalog.tensor(slice.tensor());
        // The default of an exhausted input means the whole tensor.
        let Some(dim) = u.int_in_range(0..=tensor.shape.len())?.checked_sub(1) else { continue };
        let end = u.int_in_range(0..=tensor.shape[dim])?;
        let start = u.int_in_range(0..=end)?;
        // Packed elements cannot be cut everywhere.
        *slice = TensorSlice::slice(&tensor, dim as u32, start..end).unwrap_or(*slice);
    }
    Ok(())
}
