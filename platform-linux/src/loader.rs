//! `Loader`: what production code links. Options, then one call.

use crate::error::Error;
use crate::files::OpenFile;
use crate::headers::{self, Opened};
use crate::load::{Load, Prepared, ProgressCallback, run_here};
use crate::locate::locate;
use crate::mapping::Mappings;
use crate::probe;
use crate::tensors::Tensors;
use floodtide_core::strategy::{Backend, FileSignals, Signals, Strategy, decide};
use floodtide_core::{Access, Alignment, Catalog, MemoryLimit, Plan, PlanOptions, Planner, Progress, Selection};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Loads checkpoints. Options first, then [`load`](Self::load), [`open`](Self::open) or [`start`](Self::start); a loader can be used
/// any number of times, from any thread.
///
/// ```no_run
/// use floodtide_linux::Loader;
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
    on_progress: Option<ProgressCallback>,
}

/// What a checkpoint's headers say.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspected {
    /// Files and tensors.
    pub catalog: Arc<Catalog>,
    /// The index's metadata and the files', each key once.
    pub metadata: Vec<(String, String)>,
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

    /// Reads by this backend and no other; a load fails where it cannot be used.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Loads these tensors only.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Works with so many threads or rings.
    #[must_use]
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Aligns every tensor to at least this, at most 2 MiB. Without it a tensor is aligned as its dtype needs, so that typed
    /// views are always possible. Tensors whose place in the file does not have the alignment are read through the page
    /// cache, each to a place that has; the others are not affected.
    #[must_use]
    pub fn tensor_alignment(mut self, alignment: Alignment) -> Self {
        self.tensor_alignment = Some(alignment);
        self
    }

    /// Locks the tensors in memory. Where the system refuses, the report warns and counts what is locked.
    #[must_use]
    pub fn mlock(mut self, mlock: bool) -> Self {
        self.mlock = mlock;
        self
    }

    /// Does without io_uring, as if the system refused it with this reason.
    #[must_use]
    pub fn forbid_uring(mut self, reason: impl Into<String>) -> Self {
        self.uring_refused = Some(reason.into());
        self
    }

    /// Calls back about 20 times a second from the thread that waits for the load, and once at its end.
    #[must_use]
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(ProgressCallback(Arc::new(callback)));
        self
    }

    /// Loads a checkpoint: afterwards every selected byte is resident. With [`Backend::Mmap`] the tensors are views of the
    /// page cache, else they are owned.
    ///
    /// `path` is a file, an index, a folder of shards, or a Hugging Face cache snapshot. All shards load together.
    ///
    /// # Errors
    /// When the checkpoint cannot be found, breaks a rule of its format, does not fit in memory, changes while it is read, or
    /// cannot be read. Nothing partial is ever returned.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Tensors, Error> {
        let prepared = self.prepare(path.as_ref(), self.access(true))?;
        if prepared.strategy.workers == 0 { run_here(prepared) } else { Load::start(prepared)?.wait() }
    }

    /// Starts a load and returns at once, after the headers are read; dropping what it returns cancels it.
    ///
    /// # Errors
    /// As [`load`](Self::load), as far as the headers and the plan go.
    pub fn start(&self, path: impl AsRef<Path>) -> Result<Load, Error> {
        Load::start(self.prepare(path.as_ref(), self.access(true))?)
    }

    /// Maps a checkpoint and returns at once: tensors come into memory as they are touched. Only those that would not be
    /// aligned where they lie in the file are read now.
    ///
    /// The files must not be changed or cut off while any tensor is held: as with every mapping, touching what is gone ends
    /// the process (SIGBUS).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Tensors, Error> {
        let mapped = Self { backend: Some(Backend::Mmap), ..self.clone() };
        run_here(mapped.prepare(path.as_ref(), Access::Map { resident: false })?)
    }

    /// Loads a checkpoint from within a tokio runtime, without blocking it. Unless another backend was asked for, the reads
    /// run on the runtime's blocking threads. Dropping the future cancels the load.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[cfg(feature = "tokio")]
    pub async fn load_async(&self, path: impl AsRef<Path> + Send) -> Result<Tensors, Error> {
        use crate::load::{Shared, TICK, conclude};
        let loader = Self { backend: Some(self.backend.unwrap_or(Backend::Tokio)), ..self.clone() };
        let path = path.as_ref().to_owned();
        if loader.backend == Some(Backend::Tokio) {
            let prepare = move || Shared::new(loader.prepare(&path, Access::Copy)?);
            let shared = Arc::new(blocking(prepare).await?);
            let mut last = Instant::now();
            let tick = || {
                if last.elapsed() >= TICK {
                    last = Instant::now();
                    shared.report_progress();
                }
            };
            crate::source::tokio::drive(&*shared, shared.files(), shared.depth(), tick).await;
            return blocking(move || conclude(shared)).await;
        }
        let mut load = Some(blocking(move || loader.start(path)).await?);
        while load.as_ref().is_some_and(|load| !load.is_finished()) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        match load.take() {
            Some(load) => blocking(move || load.wait()).await,
            None => Err(floodtide_core::Error::Cancelled.into()),
        }
    }

    /// Reads the headers only.
    ///
    /// # Errors
    /// When the checkpoint cannot be found or breaks a rule of its format.
    pub fn inspect(&self, path: impl AsRef<Path>) -> Result<Inspected, Error> {
        let Opened { catalog, metadata, warnings, .. } = headers::open(&locate(path.as_ref())?)?;
        Ok(Inspected { catalog: Arc::new(catalog), metadata, warnings })
    }

    /// Decides everything that [`load`](Self::load) would do, from the headers and what the system tells.
    ///
    /// # Errors
    /// As [`load`](Self::load), as far as the headers and the plan go.
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Planned, Error> {
        self.decide(path.as_ref(), self.access(true)).map(|(planned, _)| planned)
    }

    fn access(&self, resident: bool) -> Access {
        if self.backend == Some(Backend::Mmap) { Access::Map { resident } } else { Access::Copy }
    }

    fn decide(&self, path: &Path, access: Access) -> Result<(Planned, Vec<OpenFile>), Error> {
        if let Some(alignment) = self.tensor_alignment.filter(|&alignment| alignment > Alignment::HUGE_PAGE) {
            return Err(Error::TensorAlignment { bytes: alignment.bytes() });
        }
        let _span = tracing::debug_span!("plan", path = %path.display()).entered();
        let Opened { mut files, catalog, warnings, .. } = headers::open(&locate(path)?)?;
        let selected = self.selection.resolve(&catalog)?;
        let selected_bytes = selected.iter().map(|&id| catalog.tensor(id).range.len()).sum();
        let signals = self.measure(&mut files, selected_bytes);
        self.check_backend(&signals)?;
        let mut strategy = decide(&signals, self.backend);
        if let Some(threads) = self.threads {
            strategy.workers = threads.get();
        }
        let direct = |(file, direct): (&OpenFile, &bool)| file.direct_limits().filter(|_| *direct);
        let memory = probe::memory_limit();
        let options = PlanOptions {
            access,
            direct: files.iter().zip(&strategy.direct).map(direct).collect(),
            tensor_alignment: self.tensor_alignment.unwrap_or(Alignment::ONE),
            chunk_bytes: strategy.chunk_bytes,
            memory: Some(memory.clone()),
            ..PlanOptions::default()
        };
        let plan = Planner::new(options).plan(&catalog, &selected)?;
        let (catalog, plan) = (Arc::new(catalog), Arc::new(plan));
        Ok((Planned { catalog, plan, strategy, signals, memory, warnings }, files))
    }

    fn prepare(&self, path: &Path, access: Access) -> Result<Prepared, Error> {
        let started = Instant::now();
        let (Planned { catalog, plan, strategy, warnings, .. }, files) = self.decide(path, access)?;
        let mappings = Mappings::new(&files, plan.mapped())?;
        Ok(Prepared {
            started,
            catalog,
            plan,
            strategy,
            strict: self.backend.is_some(),
            files: files.into(),
            mappings,
            populate: access == Access::Map { resident: true },
            mlock: self.mlock,
            warnings,
            on_progress: self.on_progress.clone(),
        })
    }

    fn measure(&self, files: &mut [OpenFile], selected_bytes: u64) -> Signals {
        let mut signals = Signals {
            files: Vec::with_capacity(files.len()),
            selected_bytes,
            file_system: String::new(),
            network: false,
            uring_refused: None,
            cpus: probe::cpus(),
        };
        for file in files {
            file.open_direct();
            signals.files.push(FileSignals {
                bytes: file.bytes(),
                resident: probe::resident_share(file.buffered()),
                direct: file.direct_limits().is_some(),
            });
            if signals.file_system.is_empty() {
                (signals.file_system, signals.network) = probe::file_system(file.buffered());
            }
        }
        if matches!(self.backend, None | Some(Backend::Uring)) {
            signals.uring_refused = self.uring_refused.clone().or_else(probe::uring_refusal);
        }
        signals
    }

    fn check_backend(&self, signals: &Signals) -> Result<(), Error> {
        let refused = match self.backend {
            Some(Backend::Uring) => signals.uring_refused.clone(),
            Some(Backend::Tokio) if cfg!(not(feature = "tokio")) => {
                Some("this build does not have it (feature \"tokio\")".to_owned())
            }
            _ => None,
        };
        match (self.backend, refused) {
            (Some(backend), Some(why)) => Err(Error::BackendUnavailable { backend, why }),
            _ => Ok(()),
        }
    }
}

/// Runs `work` on tokio's blocking threads; a panic in it goes on in the caller.
#[cfg(feature = "tokio")]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => {
            std::panic::resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error.to_string())))
        }
    }
}
