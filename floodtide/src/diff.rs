//! What two checkpoints differ in, whatever their formats.
//!
//! Names, types and shapes come from the headers. Tensors that are of one kind in both are compared byte by byte: both checkpoints are
//! streamed through buffers of their own, in the order in which the tensors lie in the first, so that reading the two overlaps, and
//! what is looked at is never more than two buffers. A stream cannot skip what turns out not to matter, so a tensor is looked at to its end
//! even when its first byte differs; in return it is known how much of it does.

use crate::error::Error;
use crate::loader::Loader;
use crate::stream::TensorStream;
use floodtide_core::stream::FilledBuffer;
use floodtide_core::{Catalog, ElementType, Error as CoreError, Order, Selection, TensorInfo};
use floodtide_memory::pool::PoolBuffer;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the buffers of both sides together may have unless it is told otherwise, and what one has.
const LIMIT: u64 = 512 << 20;
const PART: u64 = 8 << 20;

/// How one checkpoint differs from another. Made by [`Loader::diff`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Diff {
    /// What the first holds.
    pub first: Arc<Catalog>,
    /// What the second holds.
    pub second: Arc<Catalog>,
    /// The tensors that are not the same in both, by name.
    pub tensors: Vec<TensorDiff>,
    /// How many are the same.
    pub same: usize,
    /// How many bytes of each were compared.
    pub bytes: u64,
    /// What a user should know although both are valid.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// A tensor that is not the same in both. Its name is untrusted: print it through [`floodtide_core::Escaped`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorDiff {
    /// Its name.
    pub name: String,
    /// In what it differs.
    pub change: Change,
}

/// In what a tensor differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is in the first only.
    Removed,
    /// It is in the second only.
    Added,
    /// Its type or its shape is another: of the first, of the second.
    Kind {
        /// Its types.
        dtypes: [ElementType; 2],
        /// Its shapes, slowest dimension first.
        shapes: [Vec<u64>; 2],
    },
    /// Its bytes are others.
    Content {
        /// From the first byte that differs to the last, counted from the tensor's start.
        range: Range<u64>,
        /// How many bytes in it differ.
        bytes: u64,
        /// Where that is in the first, and in the second.
        locations: [ByteLocation; 2],
    },
}

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteLocation {
    /// Its path.
    pub file: String,
    /// From the first byte to the last.
    pub range: Range<u64>,
}

impl Loader {
    /// Compares two checkpoints, of any formats: which tensors were removed, added, changed their type or shape, or hold other bytes. A ggml
    /// type and the plain one that it means are the same. Takes [`memory_limit`](crate::StreamOptions::memory_limit) for both together, by default
    /// 512 MiB.
    ///
    /// # Errors
    /// As [`load`](Self::load), of either.
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

/// What the headers say: the tensors that differ, and the names of those whose bytes are to be compared, in the order of the first.
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

/// What comparing bytes has brought so far.
#[derive(Debug, Default)]
struct Comparison<'a> {
    /// What is compared, in its order.
    names: &'a [String],
    changed: Vec<TensorDiff>,
    bytes: u64,
}

impl Comparison<'_> {
    fn run(mut self, loader: &Loader, first: &Path, second: &Path) -> Result<Self, Error> {
        let loader = loader.passing(LIMIT, 2, PART)?.ordered(Order::Selection);
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
                _ => return Err(CoreError::Contract { what: "one of two equal tensors came to an end first" }.into()),
            }
        }
    }

    fn compare(&mut self, a: &Side, here: &[u8], b: &Side, there: &[u8]) -> Result<(), Error> {
        let (Some((of_a, offset)), Some((of_b, offset_there))) = (a.place(), b.place()) else { return Ok(()) };
        if of_a.name != of_b.name || offset != offset_there {
            return Err(CoreError::Contract { what: "two streams of the same tensors went different ways" }.into());
        }
        self.bytes += here.len() as u64;
        // Nearly always they are equal, which is quickly seen.
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

/// One of the two streams: its tensors' bytes one after another.
struct Side {
    stream: TensorStream,
    filled: Option<FilledBuffer<PoolBuffer>>,
    /// The parts of that buffer that are still to come, the present one last: placement, offset in the tensor, place in the buffer.
    parts: Vec<(usize, u64, Range<usize>)>,
    /// How far the present one has been looked at.
    at: usize,
}

impl Side {
    fn open(loader: &Loader, path: &Path) -> Result<Self, Error> {
        Ok(Self { stream: loader.stream(path)?, filled: None, parts: Vec::new(), at: 0 })
    }

    /// Waits for the next bytes when those that are there have been looked at.
    fn fill(&mut self) -> Result<(), Error> {
        while self.parts.last().is_none_or(|(_, _, bytes)| bytes.len() == self.at) {
            self.at = 0;
            if self.parts.pop().is_some() {
                continue;
            }
            // Before the next is waited for, which may need its memory.
            self.filled = None;
            let Some(filled) = self.stream.next_buffer() else { return Ok(()) };
            let filled = filled?;
            self.parts.extend(filled.placed_parts().map(|part| (part.placement, part.offset, part.bytes)));
            self.parts.reverse();
            self.filled = Some(filled);
        }
        Ok(())
    }

    /// What comes next, as far as it is contiguous; `None` at the end.
    fn remaining_bytes(&self) -> Option<&[u8]> {
        let (_, _, bytes) = self.parts.last()?;
        Some(&self.filled.as_ref()?.buffer()[bytes.clone()][self.at..])
    }

    /// Which tensor that is of, and where in it.
    fn place(&self) -> Option<(TensorInfo<'_>, u64)> {
        let ((placement, offset, _), filled) = (self.parts.last()?, self.filled.as_ref()?);
        Some((filled.plan().tensor(filled.catalog(), *placement), offset + self.at as u64))
    }
}
