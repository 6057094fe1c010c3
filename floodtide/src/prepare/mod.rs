//! Prepares loads and streams: the settings of a loader, and the steps that find, open, measure and
//! plan a checkpoint (`steps`).

mod steps;
mod stream_options;

pub(crate) use steps::DecidedLoad;
pub(crate) use stream_options::BufferMemory;
pub use stream_options::StreamOptions;

use crate::error::Error;
use crate::report::RouteReport;
use crate::runtime::ProgressCallback;
use crate::trace::SharedTrace;
use crate::uri::Storages;
use crate::warning::Warning;
use floodtide_core::manifest::Manifest;
use floodtide_core::strategy::{Backend, Signals, Strategy};
use floodtide_core::{Access, Alignment, Catalog, MemoryLimit, Plan, Selection, Verification};
use floodtide_memory::ArenaCache;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The options of a [`Loader`](crate::Loader), which its streams share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) backend: Option<Backend>,
    pub(crate) selection: Selection,
    pub(crate) threads: Option<NonZeroUsize>,
    pub(crate) tensor_alignment: Option<Alignment>,
    pub(crate) mlock: bool,
    pub(crate) ignore_device_profile: bool,
    pub(crate) populate_page_cache: bool,
    pub(crate) manifest: Option<Arc<Manifest>>,
    pub(crate) on_progress: Option<ProgressCallback>,
    pub(crate) stream: StreamOptions,
    pub(crate) trace: Option<SharedTrace>,
    pub(crate) arena_cache: Arc<ArenaCache>,
    pub(crate) storages: Storages,
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

/// What a load would do, as returned by [`Loader::plan`](crate::Loader::plan).
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
    pub warnings: Vec<Warning>,
}

impl Planned {
    /// Returns the routes, as the [`Report`](crate::Report) of the load would list them.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteReport> {
        RouteReport::all(&self.strategy, self.catalog.files().iter().map(|file| &*file.path))
    }
}

impl Settings {
    pub(crate) fn min_alignment(&self) -> Alignment {
        self.tensor_alignment.unwrap_or(Alignment::ONE)
    }

    /// Returns the checks of a plan, if the load is verified.
    pub(crate) fn verification(&self, catalog: &Arc<Catalog>, plan: &Arc<Plan>) -> Result<Option<Verification>, Error> {
        let Some(manifest) = &self.manifest else { return Ok(None) };
        Ok(Some(Verification::new(Arc::clone(catalog), Arc::clone(plan), manifest)?))
    }

    pub(crate) fn access(&self, resident: bool) -> Access {
        if self.backend.is_some_and(Backend::is_mapped) { Access::Map { resident } } else { Access::Copy }
    }
}
