//! Checkpoints from draws, and what is in them, known without any parser.

use crate::draw::Draw;
use crate::files::SimFile;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use floodtide_core::DType;

/// A tensor as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// The file that it is in.
    pub file: usize,
    /// Its first byte there.
    pub start: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// The files of a checkpoint with what is in them.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The files.
    pub files: Rc<[SimFile]>,
    /// The tensors, in the order of file and offset.
    pub tensors: Vec<KnownTensor>,
}

/// What checkpoints are like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Files, at most.
    pub files: u64,
    /// Tensors in a file, at most.
    pub tensors: u64,
    /// Bytes of a tensor, at most.
    pub tensor_bytes: u64,
    /// Bytes of the checkpoint, about, at most.
    pub total: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { files: 5, tensors: 12, tensor_bytes: 400_000, total: 600_000 }
    }
}

impl Checkpoint {
    /// A checkpoint of every oddity: all dtypes, empty tensors, data at odd offsets, empty files, hostile names.
    #[must_use]
    pub fn draw(draw: &mut Draw, shape: &Shape) -> Self {
        let count = draw.magnitude(1..=shape.files);
        let (mut files, mut tensors, mut total) = (Vec::new(), Vec::new(), 0);
        for number in 0..count as usize {
            let wanted = if draw.chance(100_000) { 0 } else { draw.number(0..=shape.tensors) };
            let mut entries = Vec::new();
            let mut end = 0_u64;
            for i in 0..wanted {
                let dtype = *draw.of(DType::ALL);
                // What whole elements fill, whatever their width; often in numbers that can be divided into many shapes.
                let unit = dtype.whole_bytes() * *draw.of(&[1, 12, 12, 240]);
                let bytes = match draw.number(0..=9) {
                    0 | 1 => 0,
                    2..=4 => draw.number(0..=64),
                    5..=7 => draw.magnitude(1..=shape.tensor_bytes / 20),
                    // Long enough to be worth direct reads, often of many of them.
                    _ if total < shape.total => draw.number(shape.tensor_bytes / 6..=shape.tensor_bytes),
                    _ => 1,
                } / unit
                    * unit;
                total += bytes;
                let elements = bytes * 8 / dtype.bits();
                let name = name(draw, number, i);
                let shape = shape_of(draw, elements);
                entries.push((name, dtype, shape, end, end + bytes));
                end += bytes;
            }
            let (head, data_start) = header(draw, &entries);
            let path = format!("model-{number:05}.safetensors");
            files.push(SimFile::new(path, head, data_start + end, number as u64, draw.number(0..=u64::MAX)));
            tensors.extend(entries.into_iter().map(|(name, dtype, shape, begin, end)| KnownTensor {
                name,
                dtype,
                shape,
                file: number,
                start: data_start + begin,
                bytes: end - begin,
            }));
        }
        Self { files: files.into(), tensors }
    }

    /// A plain one: in each file so many U8 tensors of so many bytes.
    #[must_use]
    pub fn uniform(files: usize, tensors: u64, bytes: u64) -> Self {
        // No draw decides anything here but how the header is padded.
        let mut draw = Draw::new(0);
        let (mut made, mut known) = (Vec::new(), Vec::new());
        for file in 0..files {
            let entry = |i: u64| (format!("{file}.{i:03}"), DType::U8, vec![bytes], i * bytes, (i + 1) * bytes);
            let entries: Vec<_> = (0..tensors).map(entry).collect();
            let (head, start) = header(&mut draw, &entries);
            let path = format!("model-{file:05}.safetensors");
            made.push(SimFile::new(path, head, start + tensors * bytes, file as u64, file as u64));
            known.extend(entries.into_iter().map(|(name, dtype, shape, begin, end)| KnownTensor {
                name,
                dtype,
                shape,
                file,
                start: start + begin,
                bytes: end - begin,
            }));
        }
        Self { files: made.into(), tensors: known }
    }

    /// The tensor of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&KnownTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn name(draw: &mut Draw, file: usize, tensor: u64) -> String {
    match draw.number(0..=9) {
        0 => format!("{file}/{tensor}\n\u{1b}[31m"),
        1 => format!("模型.{file}.{tensor}"),
        _ => format!("model.layers.{file}.{tensor}.weight"),
    }
}

/// Dimensions for so many elements.
fn shape_of(draw: &mut Draw, elements: u64) -> Vec<u64> {
    if elements == 1 && draw.coin() {
        return Vec::new();
    }
    let mut shape = vec![elements];
    for _ in 0..draw.number(0..=3) {
        let at = draw.index(shape.len());
        let inner = common_divisor(shape[at], *draw.of(&[1, 2, 3, 5, 8, 60, 64, 4096, 40_000]));
        shape[at] /= inner;
        shape.insert(at + draw.index(2), inner);
    }
    shape
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
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

/// The header's bytes and where the data starts: at any offset, as writers differ.
fn header(draw: &mut Draw, entries: &[(String, DType, Vec<u64>, u64, u64)]) -> (Vec<u8>, u64) {
    let mut json = String::from("{");
    if draw.coin() {
        json += r#""__metadata__":{"format":"pt"}"#;
    }
    // The header's order need not be that of the data.
    let mut order: Vec<usize> = (0..entries.len()).collect();
    if draw.coin() {
        for i in (1..order.len()).rev() {
            order.swap(i, draw.index(i + 1));
        }
    }
    for &i in &order {
        let (name, dtype, shape, begin, end) = &entries[i];
        if json.len() > 1 {
            json.push(',');
        }
        json += &quoted(name);
        let _ = write!(json, r#":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#);
    }
    json.push('}');
    let padding = match draw.number(0..=3) {
        0 => draw.number(0..=8),
        1 => 4096 - (8 + json.len() as u64) % 4096,
        _ => (8 - json.len() as u64 % 8) % 8,
    };
    json.extend((0..padding).map(|_| ' '));
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(json.as_bytes());
    let start = head.len() as u64;
    (head, start)
}
