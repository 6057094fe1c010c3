//! The tensors of a load: views of memory that never changes and stays valid as long as one of them
//! is held.

mod element;

pub use element::{Element, ViewError};

use crate::report::Report;
use crate::views::Views;
use element::view;
use floodtide_core::stream::FilledBuffer;
use floodtide_core::{Catalog, ElementType, Location, PlacedPart, Plan, TensorInfo, to_usize};
use floodtide_memory::FrozenArena;
use floodtide_memory::pool::PoolBuffer;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The memory of a load.
pub(crate) struct LoadedMemory {
    pub(crate) arena: Option<FrozenArena>,
    pub(crate) views: Views,
}

struct Inner {
    catalog: Arc<Catalog>,
    plan: Arc<Plan>,
    /// Indexes into the placements, sorted by name.
    by_name: Vec<usize>,
    memory: LoadedMemory,
    report: Report,
}

/// The tensors of a load. Cheap to clone, `Send` and `Sync`.
///
/// ```no_run
/// use floodtide::Loader;
///
/// let tensors = Loader::new().load("/models/qwen3")?;
/// let norm = tensors.get("model.norm.weight").expect("a Qwen checkpoint");
/// drop(tensors); // a tensor keeps the memory of its load
/// println!("{:?}", norm.shape());
/// # Ok::<(), floodtide::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensors {
    inner: Arc<Inner>,
}

impl Tensors {
    pub(crate) fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, memory: LoadedMemory, report: Report) -> Self {
        // The catalog has sorted the names already.
        let mut placed = vec![None; catalog.len()];
        for (index, placement) in plan.placements().iter().enumerate() {
            placed[placement.tensor.index()] = Some(index);
        }
        let by_name = catalog.tensors_by_name().filter_map(|tensor| placed[tensor.id.index()]).collect();
        Self { inner: Arc::new(Inner { catalog, plan, by_name, memory, report }) }
    }

    /// Returns the number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.by_name.len()
    }

    /// Returns true if there are no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.by_name.is_empty()
    }

    /// Returns the tensor of that name, if it was loaded.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let tensor = |index| Tensor { memory: TensorMemory::Loaded(Arc::clone(&self.inner)), index };
        let at = self.inner.by_name.binary_search_by(|&index| self.inner.info(index).name.cmp(name)).ok()?;
        Some(tensor(self.inner.by_name[at]))
    }

    /// Returns the tensors, sorted by the bytes of their names.
    pub fn iter(&self) -> TensorsIter<'_> {
        TensorsIter { tensors: self, indices: self.inner.by_name.iter() }
    }

    /// Returns the report of the load.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.inner.report
    }

    /// Returns the catalog of the checkpoint: all tensors of its files, selected or not.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }
}

/// Formats the count and the report. [`Tensors::iter`] lists the tensors.
impl<'a> IntoIterator for &'a Tensors {
    type Item = Tensor;
    type IntoIter = TensorsIter<'a>;

    fn into_iter(self) -> TensorsIter<'a> {
        self.iter()
    }
}

/// An iterator over [`Tensors`], as returned by [`Tensors::iter`].
#[derive(Debug, Clone)]
pub struct TensorsIter<'a> {
    tensors: &'a Tensors,
    indices: std::slice::Iter<'a, usize>,
}

impl Iterator for TensorsIter<'_> {
    type Item = Tensor;

    fn next(&mut self) -> Option<Tensor> {
        let &index = self.indices.next()?;
        Some(Tensor { memory: TensorMemory::Loaded(Arc::clone(&self.tensors.inner)), index })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}

impl ExactSizeIterator for TensorsIter<'_> {}

impl fmt::Debug for Tensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { files, tensors, bytes, backend, .. } = self.report();
        f.debug_struct("Tensors")
            .field("tensors", tensors)
            .field("bytes", bytes)
            .field("files", files)
            .field("backend", backend)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn info(&self, index: usize) -> TensorInfo<'_> {
        self.plan.tensor(&self.catalog, index)
    }

    fn tensor_bytes(&self, index: usize) -> &[u8] {
        let placement = &self.plan.placements()[index];
        let (memory, start) = match (placement.location, &self.memory.arena) {
            (Location::Arena(start), Some(arena)) => (arena.as_bytes(), start),
            // Without an arena, only empty tensors are placed in it.
            (Location::Arena(_), None) => return &[],
            (Location::Mapped, _) if placement.range.is_empty() => return &[],
            (Location::Mapped, _) => {
                (self.memory.views.as_bytes(self.info(index).file), to_usize(placement.range.start()))
            }
            // The plan of a load never places a tensor in a buffer.
            (Location::Streamed, _) => return &[],
        };
        &memory[start..start + to_usize(self.plan.byte_len(index))]
    }
}

/// A tensor, as a view that keeps its memory alive: that of a load, or a buffer of a stream. Cheap
/// to clone, `Send` and `Sync`.
#[derive(Clone)]
pub struct Tensor {
    memory: TensorMemory,
    /// The placement in the plan.
    index: usize,
}

/// The memory of a tensor.
#[derive(Clone)]
enum TensorMemory {
    Loaded(Arc<Inner>),
    /// A buffer of a stream, and the range of the tensor in it.
    Buffer(Arc<FilledBuffer<PoolBuffer>>, Range<usize>),
    /// No memory: every tensor of the stream is empty.
    Empty(Arc<Catalog>, Arc<Plan>),
}

impl Tensor {
    /// Returns the tensors of a stream's buffer, which must hold them whole.
    pub(crate) fn streamed(filled: FilledBuffer<PoolBuffer>) -> impl Iterator<Item = Self> {
        let parts: Vec<PlacedPart> = filled.placed_parts().collect();
        let filled = Arc::new(filled);
        parts.into_iter().map(move |part| Self {
            memory: TensorMemory::Buffer(Arc::clone(&filled), part.buffer_range),
            index: part.placement,
        })
    }

    /// Returns the tensors of a stream of empty tensors.
    pub(crate) fn empty(catalog: &Arc<Catalog>, plan: &Arc<Plan>) -> impl Iterator<Item = Self> {
        let memory = TensorMemory::Empty(Arc::clone(catalog), Arc::clone(plan));
        plan.without_extent().map(move |index| Self { memory: memory.clone(), index })
    }

    fn info(&self) -> TensorInfo<'_> {
        let (catalog, plan) = match &self.memory {
            TensorMemory::Loaded(inner) => (&inner.catalog, &inner.plan),
            TensorMemory::Buffer(filled, _) => (filled.catalog(), filled.plan()),
            TensorMemory::Empty(catalog, plan) => (catalog, plan),
        };
        plan.tensor(catalog, self.index)
    }

    /// Returns the name. It is untrusted: print it through [`floodtide_core::Escaped`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.info().name
    }

    /// Returns the type of the elements.
    #[must_use]
    pub fn dtype(&self) -> ElementType {
        self.info().dtype
    }

    /// Returns the dimensions, slowest first; empty for a scalar. For a slice, these are its own.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        self.info().shape
    }

    /// Returns the bytes, little-endian and in row-major order, aligned at least as the dtype
    /// needs. Those of a quantised type are blocks.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.memory {
            TensorMemory::Loaded(inner) => inner.tensor_bytes(self.index),
            TensorMemory::Buffer(filled, bytes) => &filled.buffer()[bytes.clone()],
            TensorMemory::Empty(..) => &[],
        }
    }

    /// Returns the elements. 16-bit floats are viewed as their bits, with `u16`.
    ///
    /// A ggml type is viewed like the plain dtype of the same meaning. A quantised type has blocks,
    /// which cannot be viewed as elements.
    ///
    /// # Errors
    /// Returns an error if `T` does not match the dtype, the dtype is quantised, or the machine is
    /// big-endian; or if the memory is not aligned for `T` because its provider has violated the
    /// alignment that it states.
    ///
    /// ```no_run
    /// use floodtide::{DType, Loader};
    ///
    /// let tensors = Loader::new().load("model.safetensors")?;
    /// for tensor in tensors.iter().filter(|tensor| tensor.dtype() == DType::F32) {
    ///     let values: &[f32] = tensor.elements()?;
    ///     println!("{}: {:?}", tensor.name(), values.first());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn elements<T: Element>(&self) -> Result<&[T], ViewError> {
        view(self.as_bytes(), self.dtype())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {} {:?})", self.name(), self.dtype(), self.shape())
    }
}

#[cfg(test)]
mod tests {
    use crate::Loader;
    use std::path::PathBuf;

    /// Writes a file of `count` tensors of four f32 each.
    fn checkpoint(folder: &tempfile::TempDir, tensors: usize) -> PathBuf {
        let data = [0_u8; 16];
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![4], &data).expect("fits");
        let tensors = (0..tensors).map(|index| (format!("tensor {index}"), view()));
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(tensors, None, &path).expect("writes");
        path
    }

    #[test]
    fn many_tensors_are_printed_in_few_words() {
        let folder = tempfile::tempdir().expect("makes");
        let tensors =
            Loader::new().backend(floodtide_linux::backend::PREAD).load(checkpoint(&folder, 1000)).expect("loads");
        let printed = format!("{tensors:?}");
        assert_eq!(printed, "Tensors { tensors: 1000, bytes: 16000, files: 1, backend: pread, .. }");
    }

    #[test]
    fn a_view_that_cannot_be_had_says_why() {
        let folder = tempfile::tempdir().expect("makes");
        let path = checkpoint(&folder, 1);
        let tensors = Loader::new().load(&path).expect("loads");
        let tensor = tensors.get("tensor 0").expect("is there");
        assert_eq!(tensor.elements::<f32>(), Ok(&[0.0; 4][..]));
        let wrong = tensor.elements::<f64>().expect_err("is f32").to_string();
        assert!(wrong.contains("F32") && wrong.contains("f64") && wrong.contains("the type that fits"), "{wrong}");
    }
}
