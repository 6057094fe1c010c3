//! Random checkpoints whose contents are known without a parser.

use crate::draw::Draw;
use crate::files::SimFile;
use crate::shard::{NewTensor, Padding, Shard, elements, quoted};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use floodtide_core::DType;

/// A tensor as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTensor {
    /// The name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The dimensions.
    pub shape: Vec<u64>,
    /// The index of its file.
    pub file: usize,
    /// The offset in the file.
    pub start: u64,
    /// The length in bytes.
    pub bytes: u64,
}

/// The files of a checkpoint and their contents.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The shards as they were to be written.
    pub shards: Vec<Shard>,
    /// Returns the files.
    pub files: Rc<[SimFile]>,
    /// The tensors in the order of file and offset.
    pub tensors: Vec<KnownTensor>,
    /// Whether it is a ServerlessLLM checkpoint: the files are partitions with an index beside
    /// them.
    pub is_serverlessllm: bool,
}

/// The limits of a random checkpoint.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The maximum number of files.
    pub files: u64,
    /// The maximum number of tensors per file.
    pub tensors: u64,
    /// The maximum size of a tensor in bytes.
    pub tensor_bytes: u64,
    /// The approximate maximum size of the checkpoint in bytes, without the additional tensors.
    pub total: u64,
    /// The additional tensors.
    pub extra: Vec<Extra>,
}

/// A tensor in addition to the random ones.
#[derive(Debug, Clone)]
pub struct Extra {
    /// Its file, modulo the number of files.
    pub file: u64,
    /// Its index among the file's tensors, or the end if there are fewer.
    pub index: usize,
    /// Returns the tensor.
    pub tensor: NewTensor,
}

impl Default for Shape {
    fn default() -> Self {
        Self { files: 5, tensors: 12, tensor_bytes: 400_000, total: 600_000, extra: Vec::new() }
    }
}

impl Checkpoint {
    /// Creates the files of these shards. Each checkpoint has its own files, because a run may
    /// change them.
    #[must_use]
    pub fn new(shards: Vec<Shard>) -> Self {
        Self::of(shards, false)
    }

    /// A ServerlessLLM checkpoint of these partitions; what is said of their headers is of no
    /// meaning.
    #[must_use]
    pub fn serverlessllm(shards: Vec<Shard>) -> Self {
        Self::of(shards, true)
    }

    fn of(shards: Vec<Shard>, is_serverlessllm: bool) -> Self {
        let (mut files, mut tensors) = (Vec::new(), Vec::new());
        for (number, shard) in shards.iter().enumerate() {
            let head = if is_serverlessllm { Vec::new() } else { shard.head() };
            let mut end = head.len() as u64;
            for NewTensor { name, dtype, bytes, shape, tied } in &shard.tensors {
                let (name, dtype, bytes, shape) = (name.clone(), *dtype, *bytes, shape.clone());
                let start = if *tied { end - bytes } else { end };
                tensors.push(KnownTensor { name, dtype, shape, file: number, start, bytes });
                end = start + bytes;
            }
            let path = if is_serverlessllm {
                format!("tensor.data_{number}")
            } else {
                format!("model-{number:05}.safetensors")
            };
            files.push(SimFile::new(path, head, end, number as u64, shard.contents));
        }
        Self { shards, files: files.into(), tensors, is_serverlessllm }
    }

    /// Converts it to a ServerlessLLM checkpoint with the same tensors, some of them tied to
    /// others.
    #[must_use]
    pub(crate) fn into_serverlessllm(self, draw: &mut Draw) -> Self {
        let shards = self.shards.into_iter().map(|shard| {
            let mut tensors = Vec::with_capacity(shard.tensors.len());
            for tensor in shard.tensors {
                let ties = if tensor.bytes > 0 && draw.chance(300_000) { draw.number(1..=2) } else { 0 };
                tensors.push(tensor.clone());
                for tie in 0..ties {
                    let name = format!("tied.{tie}.{}", tensor.name);
                    // With the same type, or as bytes.
                    let other = NewTensor::flat(name.clone(), DType::U8, tensor.bytes);
                    let same = NewTensor { name, ..tensor.clone() };
                    tensors.push(NewTensor { tied: true, ..if draw.coin() { same } else { other } });
                }
            }
            Shard { tensors, ..shard }
        });
        Self::serverlessllm(shards.collect())
    }

    /// Returns the index of a ServerlessLLM checkpoint, in Tensora's dialect, which has names for
    /// all dtypes.
    pub(crate) fn index(&self) -> String {
        let mut json = String::from("{");
        for (number, KnownTensor { name, dtype, shape, file, start, bytes }) in self.tensors.iter().enumerate() {
            let mut strides = vec![1_u64; shape.len()];
            for dim in (1..shape.len()).rev() {
                strides[dim - 1] = strides[dim].saturating_mul(shape[dim]);
            }
            let (comma, dtype) = (if number == 0 { "" } else { "," }, dtype.name().to_ascii_lowercase());
            json += &format!("{comma}{}:[{start},{bytes},{shape:?},{strides:?},\"{dtype}\",{file}]", quoted(name));
        }
        json + "}"
    }

    /// Draws a checkpoint with rare features: all dtypes, empty tensors, odd offsets, empty files,
    /// hostile names.
    #[must_use]
    pub fn draw(draw: &mut Draw, shape: &Shape) -> Self {
        let count = draw.magnitude(1..=shape.files);
        let (mut shards, mut total) = (Vec::new(), 0);
        for number in 0..count {
            let tensor_count = if draw.chance(100_000) { 0 } else { draw.number(0..=shape.tensors) };
            let mut tensors = Vec::new();
            for i in 0..tensor_count {
                let dtype = *draw.of(DType::ALL);
                // A multiple of whole elements of any width, often with many divisors for shapes.
                let unit = dtype.whole_bytes() * *draw.of(&[1, 12, 12, 240]);
                let bytes = match draw.number(0..=9) {
                    0 | 1 => 0,
                    2..=4 => draw.number(0..=64),
                    5..=7 => draw.magnitude(1..=shape.tensor_bytes / 20),
                    // Long enough for direct reads, often for many.
                    _ if total < shape.total => draw.number(shape.tensor_bytes / 6..=shape.tensor_bytes),
                    _ => 1,
                } / unit
                    * unit;
                total += bytes;
                let name = name(draw, number, i);
                let shape = shape_of(draw, elements(dtype, bytes));
                tensors.push(NewTensor { name, dtype, bytes, shape, tied: false });
            }
            for extra in shape.extra.iter().filter(|extra| extra.file % count == number) {
                tensors.insert(extra.index.min(tensors.len()), extra.tensor.clone());
            }
            shards.push(shard(draw, tensors));
        }
        Self::new(shards)
    }

    /// Creates a plain checkpoint: U8 tensors of equal size in each file.
    #[must_use]
    pub fn uniform(files: usize, tensors: u64, bytes: u64) -> Self {
        let tensor = |file, i| NewTensor::flat(format!("{file}.{i:03}"), DType::U8, bytes);
        let shard = |file| Shard::new((0..tensors).map(|i| tensor(file, i)).collect(), file as u64);
        Self::new((0..files).map(shard).collect())
    }

    /// Keeps only these tensors, by index, and drops files without any.
    #[must_use]
    pub(crate) fn only(&self, keeps: impl Fn(usize) -> bool) -> Self {
        let mut first = 0;
        let shards = self.shards.iter().map(|shard| {
            let start = first;
            first += shard.tensors.len();
            shard.only(|i| keeps(start + i))
        });
        Self::of(shards.filter(|shard| !shard.tensors.is_empty()).collect(), self.is_serverlessllm)
    }

    /// Returns the tensor with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&KnownTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn name(draw: &mut Draw, file: u64, tensor: u64) -> String {
    match draw.number(0..=9) {
        0 => format!("{file}/{tensor}\n\u{1b}[31m"),
        1 => format!("模型.{file}.{tensor}"),
        _ => format!("model.layers.{file}.{tensor}.weight"),
    }
}

/// Draws a shape with this number of elements.
pub(crate) fn shape_of(draw: &mut Draw, elements: u64) -> Vec<u64> {
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

/// Creates a shard of these tensors. The data starts at any offset, as different writers do.
fn shard(draw: &mut Draw, tensors: Vec<NewTensor>) -> Shard {
    let metadata = draw.coin();
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    if draw.coin() {
        for i in (1..order.len()).rev() {
            order.swap(i, draw.index(i + 1));
        }
    }
    let padding = match draw.number(0..=3) {
        0 => Padding::Bytes(draw.number(0..=8)),
        1 => Padding::To(4096),
        _ => Padding::To(8),
    };
    Shard { tensors, order, metadata, padding, contents: draw.number(0..=u64::MAX) }
}
