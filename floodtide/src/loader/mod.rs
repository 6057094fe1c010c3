//! `Loader`: what production code links. Options first (`options`), then one call (`calls`), which takes its steps in their order (`steps`).

mod calls;
mod options;
mod steps;
#[cfg(feature = "unstable-testing")]
mod testing;

pub(crate) use steps::DecidedLoad;

use crate::error::Error;
use crate::runtime::{MakeFaults, ProgressCallback};
use crate::stream::{self, BufferMemory, StreamOptions};
use crate::trace::Traces;
use crate::uri::Storages;
use floodtide_core::manifest::Manifest;
use floodtide_core::strategy::{Backend, Signals, Strategy};
use floodtide_core::{Access, Alignment, Catalog, MemoryLimit, MetadataValue, Order, Plan, Selection, Verification};
use floodtide_memory::ArenaCache;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Loads checkpoints. Options first, then [`load`](Self::load), [`map`](Self::map), [`start`](Self::start) or
/// [`stream`](Self::stream); a loader can be used any number of times, from any thread.
///
/// ```no_run
/// use floodtide::Loader;
///
/// let tensors = Loader::new().load("model.safetensors")?;
/// let weight = tensors.get("h.0.attn.c_attn.weight").expect("a GPT-2 checkpoint");
/// let values: &[f32] = weight.elements()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Loader {
    backend: Option<Backend>,
    selection: Selection,
    threads: Option<NonZeroUsize>,
    tensor_alignment: Option<Alignment>,
    mlock: bool,
    uring_refused: Option<String>,
    ignore_device_profile: bool,
    populate_page_cache: bool,
    manifest: Option<Arc<Manifest>>,
    on_progress: Option<ProgressCallback>,
    stream: StreamOptions,
    trace: Option<Traces>,
    faults: Option<MakeFaults>,
    arena_cache: Arc<ArenaCache>,
    storages: Storages,
}

/// What is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// What a path or URI leads to.
    Path(&'a Path),
    /// Files that are one checkpoint.
    Files(&'a [PathBuf]),
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Files(paths) => write!(f, "{} files", paths.len()),
        }
    }
}

/// What a checkpoint's headers say.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspected {
    /// Files and tensors.
    pub catalog: Arc<Catalog>,
    /// The index's metadata and the files', each key once.
    pub metadata: Vec<(String, MetadataValue)>,
    /// What a user should know although the checkpoint is valid.
    pub warnings: Vec<String>,
}

/// What a load would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Planned {
    /// Files and tensors.
    pub catalog: Arc<Catalog>,
    /// Every read and the place of every byte.
    pub plan: Arc<Plan>,
    /// How it would be carried out, and why.
    pub strategy: Strategy,
    /// What was measured.
    pub signals: Signals,
    /// The memory a load may take.
    pub memory: MemoryLimit,
    /// What a user should know although the checkpoint is valid.
    pub warnings: Vec<String>,
}

impl Loader {
    /// A loader that loads all tensors and chooses everything by itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This loader for one of so many streams of what only passes through, in buffers of up to `part` bytes: everything, unchecked, all streams
    /// together in `limit` bytes unless another limit was set.
    ///
    /// # Errors
    /// [`Error::StreamLimit`] when that is less than they need.
    pub(crate) fn passing(&self, limit: u64, streams: u64, part: u64) -> Result<Self, Error> {
        let limit = match self.stream.memory {
            Some(BufferMemory::Limit(limit)) => limit,
            _ => limit,
        };
        stream::check_limit(limit, streams)?;
        let limit = limit / streams;
        let mut loader = Self { selection: Selection::All, manifest: None, mlock: false, ..self.clone() };
        loader.backend = self.backend.filter(|backend| !backend.is_mapped());
        loader.tensor_alignment = None;
        let (memory, buffer_bytes) = (Some(BufferMemory::Limit(limit)), Some(part.min(limit / 8)));
        loader.stream = StreamOptions { memory, buffer_bytes, ..StreamOptions::default() };
        Ok(loader)
    }

    /// Returns this loader with another order of its streams.
    pub(crate) fn ordered(mut self, order: Order) -> Self {
        self.stream.order = order;
        self
    }

    pub(crate) fn backend_choice(&self) -> Option<Backend> {
        self.backend
    }

    pub(crate) fn selection_choice(&self) -> &Selection {
        &self.selection
    }

    pub(crate) fn min_alignment(&self) -> Alignment {
        self.tensor_alignment.unwrap_or(Alignment::ONE)
    }

    pub(crate) fn locks_memory(&self) -> bool {
        self.mlock
    }

    pub(crate) fn stream_choice(&self) -> &StreamOptions {
        &self.stream
    }

    pub(crate) fn injected_faults(&self) -> Option<MakeFaults> {
        self.faults.clone()
    }

    pub(crate) fn progress_callback(&self) -> Option<ProgressCallback> {
        self.on_progress.clone()
    }

    /// The checks of a plan, if there are to be any.
    pub(crate) fn verification(&self, catalog: &Arc<Catalog>, plan: &Arc<Plan>) -> Result<Option<Verification>, Error> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        Ok(Some(Verification::new(Arc::clone(catalog), Arc::clone(plan), manifest)?))
    }

    /// Returns the path of what a path or URI names, `None` when that is in a storage of its own.
    pub(crate) fn local_path(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        self.storages.local_path(path)
    }

    fn access(&self, resident: bool) -> Access {
        if self.backend.is_some_and(Backend::is_mapped) { Access::Map { resident } } else { Access::Copy }
    }
}
