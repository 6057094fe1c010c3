//! The [`Loader`]: its options (`options`), its calls (`calls`), and the steps of each call
//! (`steps`).

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

/// Loads checkpoints.
///
/// Set options, then call [`load`](Self::load), [`map`](Self::map), [`start`](Self::start) or
/// [`stream`](Self::stream), any number of times and from any thread.
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

/// The input of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// A path or URI.
    Path(&'a Path),
    /// Files that form one checkpoint.
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

/// The headers of a checkpoint, as returned by [`Loader::inspect`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspected {
    /// The files and tensors.
    pub catalog: Arc<Catalog>,
    /// The metadata of the index and the files, each key once.
    pub metadata: Vec<(String, MetadataValue)>,
    /// Warnings about a valid checkpoint.
    pub warnings: Vec<String>,
}

/// What a load would do, as returned by [`Loader::plan`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Planned {
    /// The files and tensors.
    pub catalog: Arc<Catalog>,
    /// Every read and its destination.
    pub plan: Arc<Plan>,
    /// How the load would read, and why.
    pub strategy: Strategy,
    /// The measured signals.
    pub signals: Signals,
    /// The memory available to a load.
    pub memory: MemoryLimit,
    /// Warnings about a valid checkpoint.
    pub warnings: Vec<String>,
}

impl Loader {
    /// Returns a loader that loads all tensors and chooses how to read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns this loader for one of `streams` streams that pass all tensors through, without
    /// verification.
    ///
    /// Buffers have up to `part` bytes. All streams together take `limit` bytes, unless the loader
    /// sets another limit.
    ///
    /// # Errors
    /// [`Error::StreamLimit`] if the limit is too small for them.
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

    /// Returns this loader with another order of streams.
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

    /// Returns the checks of a plan, if the load is verified.
    pub(crate) fn verification(&self, catalog: &Arc<Catalog>, plan: &Arc<Plan>) -> Result<Option<Verification>, Error> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        Ok(Some(Verification::new(Arc::clone(catalog), Arc::clone(plan), manifest)?))
    }

    fn access(&self, resident: bool) -> Access {
        if self.backend.is_some_and(Backend::is_mapped) { Access::Map { resident } } else { Access::Copy }
    }
}
