//! Compares two checkpoints of any formats.
//!
//! Names, dtypes and shapes come from the headers. Tensors with equal dtype and shape are compared
//! byte by byte. Each checkpoint is streamed through its own buffers, in the order of the tensors
//! in the first one. The reads of the two overlap, and a comparison holds at most two buffers. A
//! stream cannot skip bytes, so a tensor is compared to its end even if its first byte differs. In
//! return, the result counts the bytes that differ.

use crate::error::Error;
use crate::loader::Loader;
use crate::stream::TensorStream;
use crate::warning::Warning;
use floodtide_core::stream::FilledBuffer;
use floodtide_core::{Catalog, ElementType, Error as CoreError, Order, Selection, TensorInfo};
use floodtide_memory::pool::PoolBuffer;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The default limit for the buffers of both sides together, and the size of one buffer.
const LIMIT: u64 = 512 << 20;
const PART: u64 = 8 << 20;

/// The differences between two checkpoints, as returned by [`Loader::diff`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Diff {
    /// The files and tensors of the first checkpoint.
    pub first: Arc<Catalog>,
    /// The files and tensors of the second checkpoint.
    pub second: Arc<Catalog>,
    /// The tensors that differ, by name.
    pub tensors: Vec<TensorDiff>,
    /// The number of equal tensors.
    pub same: usize,
    /// The number of bytes of each checkpoint that were compared.
    pub bytes: u64,
    /// Warnings about valid checkpoints.
    pub warnings: Vec<Warning>,
    /// The time of the comparison.
    pub elapsed: Duration,
}

/// A tensor that differs. Its name is untrusted: print it through [`floodtide_core::Escaped`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorDiff {
    /// The name of the tensor.
    pub name: String,
    /// The difference.
    pub change: Change,
}

/// How a tensor differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is only in the first checkpoint.
    Removed,
    /// It is only in the second checkpoint.
    Added,
    /// Its dtype or its shape differs. The arrays list the first checkpoint, then the second.
    Kind {
        /// The dtypes.
        dtypes: [ElementType; 2],
        /// The shapes, slowest dimension first.
        shapes: [Vec<u64>; 2],
    },
    /// Its bytes differ.
    Content {
        /// The range from the first to the last byte that differs, relative to the start of the
        /// tensor.
        range: Range<u64>,
        /// The number of bytes that differ.
        bytes: u64,
        /// The location of the range in the first and in the second checkpoint.
        locations: [ByteLocation; 2],
    },
}

/// A range of bytes in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteLocation {
    /// The path of the file.
    pub file: String,
    /// The range in the file.
    pub range: Range<u64>,
}

impl Loader {
    /// Compares two checkpoints of any formats.
    ///
    /// Lists the tensors that were removed, added, changed their dtype or shape, or hold different
    /// bytes. A ggml type equals the plain dtype of the same meaning. The buffers of both sides
    /// together take at most [`memory_limit`](crate::StreamOptions::memory_limit), by default 512
    /// MiB.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load), for either checkpoint.
    ///
    /// ```no_run
    /// use floodtide::{Change, Loader};
    ///
    /// let diff = Loader::new().diff("/models/qwen3", "/models/qwen3-tuned")?;
    /// for tensor in diff.tensors.iter().filter(|tensor| matches!(tensor.change, Change::Content { .. })) {
    ///     println!("{} has other values", tensor.name);
    /// }
    /// # Ok::<(), floodtide::Error>(())
    /// ```
    pub fn diff(&self, first: impl AsRef<Path>, second: impl AsRef<Path>) -> Result<Diff, Error> {
        let started = Instant::now();
        let (first, second) = (first.as_ref(), second.as_ref());
        let (a, b) = (self.inspect(first)?, self.inspect(second)?);
        let mut warnings = a.warnings;
        warnings.extend(b.warnings);
        let (mut tensors, common) = kinds(&a.catalog, &b.catalog);
        let compared = Comparison { names: &common, ..Comparison::default() };
        let compared = if common.is_empty() { compared } else { compared.run(self, first, second)? };
        let total = tensors.len() + compared.changed.len();
        tensors.extend(compared.changed);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        debug_assert_eq!(tensors.len(), total);
        Ok(Diff {
            same: a.catalog.len() - tensors.iter().filter(|tensor| tensor.change != Change::Added).count(),
            first: a.catalog,
            second: b.catalog,
            tensors,
            bytes: compared.bytes,
            warnings,
            elapsed: started.elapsed(),
        })
    }
}

/// Compares the headers. Returns the tensors that differ, and the names of those to compare byte by
/// byte, in the order of the first checkpoint.
fn kinds(a: &Catalog, b: &Catalog) -> (Vec<TensorDiff>, Vec<String>) {
    let (mut differ, mut common) = (Vec::new(), Vec::new());
    let name = |tensor: &TensorInfo<'_>| tensor.name.to_owned();
    for tensor in a.tensors() {
        match b.find(tensor.name) {
            None => differ.push(TensorDiff { name: name(&tensor), change: Change::Removed }),
            Some(other) if !tensor.dtype.means_same(other.dtype) || tensor.shape != other.shape => {
                let (dtypes, shapes) = ([tensor.dtype, other.dtype], [tensor.shape.to_owned(), other.shape.to_owned()]);
                differ.push(TensorDiff { name: name(&tensor), change: Change::Kind { dtypes, shapes } });
            }
            Some(_) if tensor.range.is_empty() => {}
            Some(_) => common.push(name(&tensor)),
        }
    }
    let added = b.tensors().filter(|tensor| a.find(tensor.name).is_none());
    differ.extend(added.map(|tensor| TensorDiff { name: name(&tensor), change: Change::Added }));
    (differ, common)
}

/// The result of comparing bytes so far.
#[derive(Debug, Default)]
struct Comparison<'a> {
    /// The tensors to compare, in order.
    names: &'a [String],
    changed: Vec<TensorDiff>,
    bytes: u64,
}

impl Comparison<'_> {
    fn run(mut self, loader: &Loader, first: &Path, second: &Path) -> Result<Self, Error> {
        let loader = loader.for_whole_stream(LIMIT, 2, PART)?.ordered(Order::Selection);
        let loader = loader.selection(Selection::names(self.names));
        let (mut a, mut b) = (Side::open(&loader, first)?, Side::open(&loader, second)?);
        loop {
            a.fill()?;
            b.fill()?;
            match (a.remaining_bytes(), b.remaining_bytes()) {
                (None, None) => return Ok(self),
                (Some(here), Some(there)) => {
                    let of_both = here.len().min(there.len());
                    self.compare(&a, &here[..of_both], &b, &there[..of_both])?;
                    a.at += of_both;
                    b.at += of_both;
                }
                _ => return Err(CoreError::Contract { what: "one of two tensors of equal length ended first" }.into()),
            }
        }
    }

    fn compare(&mut self, a: &Side, here: &[u8], b: &Side, there: &[u8]) -> Result<(), Error> {
        let (Some((of_a, offset)), Some((of_b, offset_there))) = (a.place(), b.place()) else { return Ok(()) };
        if of_a.name != of_b.name || offset != offset_there {
            return Err(CoreError::Contract { what: "two streams of the same tensors differ in order" }.into());
        }
        self.bytes += here.len() as u64;
        // They are nearly always equal, which is the fast path.
        if here == there {
            return Ok(());
        }
        let differs = |(a, b): (&u8, &u8)| a != b;
        let first = here.iter().zip(there).position(differs).unwrap_or(0) as u64;
        let last = here.iter().zip(there).rposition(differs).unwrap_or(0) as u64;
        let count = here.iter().zip(there).filter(|&pair| differs(pair)).count() as u64;
        let (start, end) = (offset + first, offset + last + 1);
        match self.changed.last_mut() {
            Some(TensorDiff { name, change: Change::Content { range, bytes, locations } }) if name == of_a.name => {
                range.end = end;
                *bytes += count;
                locations[0].range.end = of_a.range.start() + end;
                locations[1].range.end = of_b.range.start() + end;
            }
            _ => {
                let place = |side: &Side, tensor: &TensorInfo<'_>| ByteLocation {
                    file: side.stream.catalog().file(tensor.file).path.clone(),
                    range: tensor.range.start() + start..tensor.range.start() + end,
                };
                let locations = [place(a, &of_a), place(b, &of_b)];
                let change = Change::Content { range: start..end, bytes: count, locations };
                self.changed.push(TensorDiff { name: of_a.name.to_owned(), change });
            }
        }
        Ok(())
    }
}

/// One of the two streams, as a sequence of the bytes of its tensors.
struct Side {
    stream: TensorStream,
    filled: Option<FilledBuffer<PoolBuffer>>,
    /// The remaining parts of the buffer, the current one last: placement, offset in the tensor,
    /// range in the buffer.
    parts: Vec<(usize, u64, Range<usize>)>,
    /// The number of compared bytes of the current part.
    at: usize,
}

impl Side {
    fn open(loader: &Loader, path: &Path) -> Result<Self, Error> {
        Ok(Self { stream: loader.stream(path)?, filled: None, parts: Vec::new(), at: 0 })
    }

    /// Waits for the next bytes if all bytes of the buffer are compared.
    fn fill(&mut self) -> Result<(), Error> {
        while self.parts.last().is_none_or(|(_, _, bytes)| bytes.len() == self.at) {
            self.at = 0;
            if self.parts.pop().is_some() {
                continue;
            }
            // Drop the buffer first: the next one may need its memory.
            self.filled = None;
            let Some(filled) = self.stream.next_buffer() else { return Ok(()) };
            let filled = filled?;
            self.parts.extend(filled.placed_parts().map(|part| (part.placement, part.offset, part.buffer_range)));
            self.parts.reverse();
            self.filled = Some(filled);
        }
        Ok(())
    }

    /// Returns the next contiguous bytes, or `None` at the end.
    fn remaining_bytes(&self) -> Option<&[u8]> {
        let (_, _, bytes) = self.parts.last()?;
        Some(&self.filled.as_ref()?.buffer()[bytes.clone()][self.at..])
    }

    /// Returns the tensor of the next bytes, and the offset in it.
    fn place(&self) -> Option<(TensorInfo<'_>, u64)> {
        let ((placement, offset, _), filled) = (self.parts.last()?, self.filled.as_ref()?);
        Some((filled.plan().tensor(filled.catalog(), *placement), offset + self.at as u64))
    }
}
