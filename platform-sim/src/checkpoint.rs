//! Checkpoints from draws, and what is in them, known without any parser.

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
    /// What was to be written.
    pub shards: Vec<Shard>,
    /// The files.
    pub files: Rc<[SimFile]>,
    /// The tensors, in the order of file and offset.
    pub tensors: Vec<KnownTensor>,
    /// Whether it is a ServerlessLLM checkpoint: the files are partitions, and an index beside them says what is in them.
    pub is_serverlessllm: bool,
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
    /// Bytes of the checkpoint, about, at most; what is extra does not count.
    pub total: u64,
    /// What is in it beside.
    pub extra: Vec<Extra>,
}

/// A tensor that a checkpoint has beside those that are drawn.
#[derive(Debug, Clone)]
pub struct Extra {
    /// The file that it is in, modulo their number.
    pub file: u64,
    /// Its place among the file's tensors; the last one if there are fewer.
    pub index: usize,
    /// The tensor.
    pub tensor: NewTensor,
}

impl Default for Shape {
    fn default() -> Self {
        Self { files: 5, tensors: 12, tensor_bytes: 400_000, total: 600_000, extra: Vec::new() }
    }
}

impl Checkpoint {
    /// The files for these shards. Each checkpoint has files of its own, which a run may change.
    #[must_use]
    pub fn new(shards: Vec<Shard>) -> Self {
        Self::of(shards, false)
    }

    /// A ServerlessLLM checkpoint of these partitions; what is said of their headers is of no meaning.
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

    /// The same tensors in a ServerlessLLM checkpoint, some of them with further names.
    #[must_use]
    pub(crate) fn into_serverlessllm(self, draw: &mut Draw) -> Self {
        let shards = self.shards.into_iter().map(|shard| {
            let mut tensors = Vec::with_capacity(shard.tensors.len());
            for tensor in shard.tensors {
                let ties = if tensor.bytes > 0 && draw.chance(300_000) { draw.number(1..=2) } else { 0 };
                tensors.push(tensor.clone());
                for tie in 0..ties {
                    let name = format!("tied.{tie}.{}", tensor.name);
                    // As it is, or as bytes.
                    let other = NewTensor::flat(name.clone(), DType::U8, tensor.bytes);
                    let same = NewTensor { name, ..tensor.clone() };
                    tensors.push(NewTensor { tied: true, ..if draw.coin() { same } else { other } });
                }
            }
            Shard { tensors, ..shard }
        });
        Self::serverlessllm(shards.collect())
    }

    /// A ServerlessLLM checkpoint's index, whose records are in Tensora's dialect, as that has names for all dtypes.
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

    /// A checkpoint of every oddity: all dtypes, empty tensors, data at odd offsets, empty files, hostile names.
    #[must_use]
    pub fn draw(draw: &mut Draw, shape: &Shape) -> Self {
        let count = draw.magnitude(1..=shape.files);
        let (mut shards, mut total) = (Vec::new(), 0);
        for number in 0..count {
            let tensor_count = if draw.chance(100_000) { 0 } else { draw.number(0..=shape.tensors) };
            let mut tensors = Vec::new();
            for i in 0..tensor_count {
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

    /// A plain one: in each file so many U8 tensors of so many bytes.
    #[must_use]
    pub fn uniform(files: usize, tensors: u64, bytes: u64) -> Self {
        let tensor = |file, i| NewTensor::flat(format!("{file}.{i:03}"), DType::U8, bytes);
        let shard = |file| Shard::new((0..tensors).map(|i| tensor(file, i)).collect(), file as u64);
        Self::new((0..files).map(shard).collect())
    }

    /// The same with only those of its tensors, by number, and without the files in which there are none then.
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

    /// The tensor of that name.
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

/// Dimensions for so many elements.
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

/// What a writer makes of these tensors. The data starts at any offset, as writers differ.
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
