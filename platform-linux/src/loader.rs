//! `Loader`: what production code links. Options, then one call.

use crate::crew::{MakeFaults, Prepared, ProgressCallback};
use crate::error::Error;
use crate::files::OpenFile;
use crate::headers::{self, Opened};
use crate::image::Image;
use crate::load::{Load, Shared, run_here};
use crate::locate::{locate, locate_for};
use crate::pool::Pool;
use crate::probe;
use crate::probe::device::Device;
use crate::shelf::Shelf;
use crate::signals::{Asked, Purpose};
#[cfg(feature = "tokio")]
use crate::stream::AsyncTensorStream;
use crate::stream::{self, StreamOptions, TensorStream};
use crate::tensors::Tensors;
use crate::trace::{Phase, Phases, Trace, Traces};
use floodtide_core::manifest::Manifest;
use floodtide_core::middleware::Faults;
use floodtide_core::strategy::{Backend, Profile, Signals, Strategy, decide};
use floodtide_core::{
    Access, Alignment, Catalog, CatalogBuilder, MemoryLimit, MetadataValue, Order, Plan, PlanOptions, Planner,
    Progress, Selection, Verification, Wanted,
};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Loads checkpoints. Options first, then [`load`](Self::load), [`open`](Self::open), [`start`](Self::start) or
/// [`stream`](Self::stream); a loader can be used any number of times, from any thread.
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
    without_profile: bool,
    leave_cached: bool,
    manifest: Option<Arc<Manifest>>,
    on_progress: Option<ProgressCallback>,
    stream: StreamOptions,
    trace: Option<Traces>,
    faults: Option<MakeFaults>,
    arenas: Arc<Shelf>,
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

/// A checkpoint whose headers are read and whose way of reading is decided.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) files: Vec<OpenFile>,
    /// The only file's bytes, where they came along with the header.
    pub(crate) image: Option<Image>,
    pub(crate) catalog: Arc<Catalog>,
    /// What is wanted of it, in the order of the files.
    pub(crate) selected: Vec<Wanted>,
    pub(crate) strategy: Strategy,
    pub(crate) signals: Signals,
    pub(crate) memory: MemoryLimit,
    /// The index's metadata and the files', each key once.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) phases: Phases,
}

impl Checkpoint {
    /// What the planner is told.
    pub(crate) fn options(&self, access: Access, loader: &Loader) -> PlanOptions {
        let direct = |(file, direct): (&OpenFile, &bool)| file.direct_limits().filter(|_| *direct);
        PlanOptions {
            access,
            direct: self.files.iter().zip(&self.strategy.direct).map(direct).collect(),
            cached: self.signals.files.iter().map(|file| file.cached.clone()).collect(),
            tensor_alignment: loader.least_alignment(),
            chunk_bytes: self.strategy.chunk_bytes,
            memory: Some(self.memory.clone()),
            ..PlanOptions::default()
        }
    }
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

    /// Loads these tensors, or slices of tensors, only.
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

    /// Lets a [stream](Self::stream) have so many bytes: its buffers, those that are being filled and those that the caller
    /// holds together, never pass it. At least 1 MiB, and, where whole tensors are taken, enough for the longest. By default 1 GiB, or
    /// what the longest takes, but half of the memory there is at most. Slices of other dimensions than the slowest take on top of that a
    /// buffer for each read in flight, of 1/32 of the limit (or 64 KiB, if that is more) at most; there are then 32 in flight, or one a
    /// thread, at most.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.stream.memory = Some(stream::Memory::Limit(bytes));
        self
    }

    /// Streams through buffers of this pool, whose limit is then the stream's: for memory that is registered with a device, or to
    /// share one limit. In place of [`memory_limit`](Self::memory_limit); the later of the two counts.
    ///
    /// Memory that is aligned to less than 4096 bytes may be less than direct reads need, which then go through the page cache.
    /// Whether it is locked is up to the pool's provider, not to [`mlock`](Self::mlock). Streams that share a pool read ahead
    /// into a share of it only; each should be consumed by a thread or task of its own.
    #[must_use]
    pub fn stream_pool(mut self, pool: Pool) -> Self {
        self.stream.memory = Some(stream::Memory::Pool(pool));
        self
    }

    /// Lets tensors of a stream share buffers of so many bytes, at least 64 KiB; and cuts tensors into parts of that size where parts
    /// are taken. By default an eighth of the memory limit, 64 MiB at most. Four staging buffers of 64 MiB are
    /// `.memory_limit(256 << 20).stream_buffer(64 << 20)`.
    #[must_use]
    pub fn stream_buffer(mut self, bytes: u64) -> Self {
        self.stream.buffer_bytes = Some(bytes);
        self
    }

    /// Streams in this order; by default as the tensors land, which is fastest.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.stream.order = order;
        self
    }

    /// How long the consumer of a stream may hold all of its memory, without giving anything back, before it is told
    /// ([`Error::StreamStalled`]); 60 seconds by default.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stream.stall_timeout = Some(timeout);
        self
    }

    /// Keeps up to so many bytes of memory of earlier loads, when nothing holds their tensors any more, for the next load of this loader
    /// or of a clone of it: fresh memory must be zeroed and mapped page by page, which can take longer than the reads. 0 keeps
    /// none. By default it keeps what it has while as much is left free beside it. Memory that was locked is not kept.
    /// [`trim`](Self::trim) gives it back, and so does the drop of the last clone.
    #[must_use]
    pub fn keep_memory(self, bytes: u64) -> Self {
        self.arenas.set_limit(bytes);
        self
    }

    /// The bytes of memory that are kept for the next load.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.arenas.bytes()
    }

    /// Gives the memory that is kept for the next load back to the system.
    pub fn trim(&self) {
        self.arenas.trim();
    }

    /// Does without io_uring, as if the system refused it with this reason.
    #[must_use]
    pub fn forbid_uring(mut self, reason: impl Into<String>) -> Self {
        self.uring_refused = Some(reason.into());
        self
    }

    /// Tells `trace` what happens in each load and stream: its phases, and every read with its worker. A
    /// [`TraceFile`](crate::trace::TraceFile) keeps it for Perfetto.
    #[must_use]
    pub fn trace(mut self, trace: impl Trace) -> Self {
        self.trace = Some(Traces(Arc::new(trace)));
        self
    }

    /// Leaves the files in the page cache: cold ones are read through it, not past it, so that the next process that loads them finds them
    /// there. Slower for this one, and worth it where several load the same files and the memory holds them beside the tensors.
    #[must_use]
    pub fn leave_cached(mut self, leave_cached: bool) -> Self {
        self.leave_cached = leave_cached;
        self
    }

    /// Checks every tensor against a manifest while it is loaded, as its bytes land: `floodtide manifest` writes one, and
    /// [`read_manifest`](crate::read_manifest) reads it. A load or stream of anything else fails: with
    /// [`Error::Mismatch`](floodtide_core::Error::Mismatch), which names the tensor, its file and where it is in that; or before the first read, when the manifest does not have
    /// a tensor, has it with another dtype or shape, or a slice is to be loaded, of which a whole tensor's checksum says nothing.
    ///
    /// A load costs a hash of each byte more, by the threads that read. [`open`](Self::open) then reads all of what is mapped before it
    /// returns; what becomes of the files later is not checked.
    #[must_use]
    pub fn verify(mut self, manifest: impl Into<Arc<Manifest>>) -> Self {
        self.manifest = Some(manifest.into());
        self
    }

    /// Does without what `floodtide probe --store` has measured of the device ([`probe::profile`](crate::probe::profile)).
    #[must_use]
    pub fn without_profile(mut self) -> Self {
        self.without_profile = true;
        self
    }

    /// Puts faults around the source of every worker, which makes its own. For tests: the simulator's faults then
    /// strike real reads. Not for the backends mmap and tokio, which read otherwise.
    #[doc(hidden)]
    #[must_use]
    pub fn faults<F: Faults + 'static>(mut self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.faults = Some(MakeFaults(Arc::new(move || Box::new(make()))));
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
        let shared = self.prepare(path.as_ref(), self.access(true), true)?;
        if shared.prepared.strategy.workers == 0 { run_here(shared) } else { Load::start(shared).wait() }
    }

    /// Starts a load and returns at once, after the headers are read; dropping what it returns cancels it.
    ///
    /// # Errors
    /// As [`load`](Self::load), as far as the headers and the plan go.
    pub fn start(&self, path: impl AsRef<Path>) -> Result<Load, Error> {
        Ok(Load::start(self.prepare(path.as_ref(), self.access(true), false)?))
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
        run_here(mapped.prepare(path.as_ref(), Access::Map { resident: false }, true)?)
    }

    /// Streams a checkpoint: its tensors one after another, or parts of them, in memory of a [limit](Self::memory_limit) however large
    /// the checkpoint is. The headers are read now, the tensors from the first call on.
    ///
    /// # Errors
    /// As [`load`](Self::load), as far as the headers go; [`Error::StreamLimit`] when the limit is less than a stream needs.
    pub fn stream(&self, path: impl AsRef<Path>) -> Result<TensorStream, Error> {
        TensorStream::open(self, path.as_ref())
    }

    /// Streams a checkpoint as an async `Stream` of any executor; must be called from within a tokio runtime, on whose blocking
    /// threads the headers are read.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    #[cfg(feature = "tokio")]
    pub async fn stream_async(&self, path: impl AsRef<Path> + Send) -> Result<AsyncTensorStream, Error> {
        let (loader, path) = (self.clone(), path.as_ref().to_owned());
        Ok(AsyncTensorStream::new(blocking(move || loader.stream(path)).await?))
    }

    /// Loads a checkpoint from within a tokio runtime, without blocking it. Unless another backend was asked for, the reads
    /// run on the runtime's blocking threads. Dropping the future cancels the load.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    #[cfg(feature = "tokio")]
    pub async fn load_async(&self, path: impl AsRef<Path> + Send) -> Result<Tensors, Error> {
        use crate::crew::TICK;
        use crate::load::conclude;
        let loader = Self { backend: Some(self.backend.unwrap_or(Backend::Tokio)), ..self.clone() };
        let path = path.as_ref().to_owned();
        if loader.backend == Some(Backend::Tokio) {
            let prepare = move || loader.prepare(&path, Access::Copy, false);
            let shared = Arc::new(blocking(prepare).await?);
            let mut last = Instant::now();
            let tick = || {
                if last.elapsed() >= TICK {
                    last = Instant::now();
                    shared.report_progress();
                }
            };
            let trace = shared.read_trace(crate::trace::Reads::Tasks);
            crate::source::tokio::drive(&shared, shared.files(), shared.depth(), trace, tick).await;
            return blocking(move || conclude(shared)).await;
        }
        let mut load = Some(blocking(move || loader.start(path)).await?);
        while load.as_ref().is_some_and(|load| !load.is_finished()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
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
        let Opened { catalog, metadata, warnings, .. } = headers::open(locate(path.as_ref())?, None)?;
        Ok(Inspected { catalog: Arc::new(catalog), metadata, warnings })
    }

    /// Reads the headers as [`inspect`](Self::inspect) does, but where files are broken, tells of each of them.
    ///
    /// # Errors
    /// All that is wrong, at least one thing.
    pub fn check_structure(&self, path: impl AsRef<Path>) -> Result<Inspected, Vec<Error>> {
        let path = path.as_ref();
        self.inspect(path).map_err(|first| {
            let broken = locate(path).map(|located| headers::broken_files(&located)).unwrap_or_default();
            // What is wrong between files is seen only where each for itself is well.
            if broken.is_empty() { vec![first] } else { broken }
        })
    }

    /// Decides everything that [`load`](Self::load) would do, from the headers and what the system tells.
    ///
    /// # Errors
    /// As [`load`](Self::load), as far as the headers and the plan go.
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Planned, Error> {
        let (planned, ..) = self.decide(path.as_ref(), self.access(true), false)?;
        Ok(Planned { memory: probe::memory_limit(), ..planned })
    }

    /// The same for one of so many streams of what only passes through, in buffers of up to `part` bytes: everything, unchecked, all streams
    /// together in `limit` bytes unless another limit was set.
    ///
    /// # Errors
    /// [`Error::StreamLimit`] when that is less than they need.
    pub(crate) fn passing(&self, limit: u64, streams: u64, part: u64) -> Result<Self, Error> {
        let limit = match self.stream.memory {
            Some(stream::Memory::Limit(limit)) => limit,
            _ => limit,
        };
        stream::check_limit(limit, streams)?;
        let limit = limit / streams;
        let mut loader = Self { selection: Selection::All, manifest: None, mlock: false, ..self.clone() };
        loader.backend = self.backend.filter(|&backend| backend != Backend::Mmap);
        loader.tensor_alignment = None;
        let (memory, buffer_bytes) = (Some(stream::Memory::Limit(limit)), Some(part.min(limit / 8)));
        loader.stream = StreamOptions { memory, buffer_bytes, ..StreamOptions::default() };
        Ok(loader)
    }

    pub(crate) fn backend_choice(&self) -> Option<Backend> {
        self.backend
    }

    pub(crate) fn selection_choice(&self) -> &Selection {
        &self.selection
    }

    pub(crate) fn least_alignment(&self) -> Alignment {
        self.tensor_alignment.unwrap_or(Alignment::ONE)
    }

    pub(crate) fn locks_memory(&self) -> bool {
        self.mlock
    }

    pub(crate) fn stream_options(&self) -> &StreamOptions {
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

    fn access(&self, resident: bool) -> Access {
        if self.backend == Some(Backend::Mmap) { Access::Map { resident } } else { Access::Copy }
    }

    fn decide(
        &self,
        path: &Path,
        access: Access,
        waits: bool,
    ) -> Result<(Planned, Vec<OpenFile>, Option<Image>, Phases), Error> {
        let opened = self.open_checkpoint(path, Purpose::Whole { access, waits })?;
        // What is in an image is used where it lies, as in a mapping.
        let access = if opened.image.is_some() { Access::Map { resident: false } } else { access };
        let plan = Arc::new(Planner::new(opened.options(access, self)).plan(&opened.catalog, &opened.selected)?);
        let Checkpoint { files, image, catalog, strategy, signals, memory, warnings, phases, .. } = opened;
        Ok((Planned { catalog, plan, strategy, signals, memory, warnings }, files, image, phases))
    }

    /// Reads the headers, measures, and decides how to read.
    pub(crate) fn open_checkpoint(&self, path: &Path, purpose: Purpose) -> Result<Checkpoint, Error> {
        if let Some(alignment) = self.tensor_alignment.filter(|&alignment| alignment > Alignment::HUGE_PAGE) {
            let most = Alignment::HUGE_PAGE.bytes();
            return Err(Error::TensorAlignment { bytes: alignment.bytes(), most });
        }
        let _span = tracing::debug_span!("plan", path = %path.display()).entered();
        // What was asked for is done, and what is watched is done read by read.
        let watched = self.trace.is_some() || self.faults.is_some();
        let as_usual = watched || self.backend.is_some() || self.threads.is_some() || self.mlock;
        let waits = matches!(purpose, Purpose::Whole { waits: true, .. });
        let images = (waits && !as_usual).then_some(&self.arenas);
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let opened = headers::open(locate_for(path, images)?, images)?;
        self.decide_how(opened, purpose, phases)
    }

    /// The files of a checkpoint, its index among them, each to be taken as one tensor of all its bytes; and the catalog of the tensors that
    /// are in them, in which the files have the same numbers.
    pub(crate) fn open_whole_files(&self, path: &Path) -> Result<(Arc<Catalog>, Checkpoint), Error> {
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let located = locate(path)?;
        let index = located.index.as_ref().map(|index| index.path().to_owned());
        let mut opened = headers::open(located, None)?;
        if let Some(index) = index {
            opened.files.push(OpenFile::open(&index)?);
        }
        let mut builder = CatalogBuilder::new(opened.catalog.format());
        for file in &opened.files {
            builder.add_whole_file(&file.path().display().to_string(), file.bytes())?;
        }
        let catalog = std::mem::replace(&mut opened.catalog, builder.finish()?);
        let checkpoint = self.decide_how(opened, Purpose::Stream { memory_alignment: None }, phases)?;
        Ok((Arc::new(catalog), checkpoint))
    }

    /// Measures, and decides how to read.
    fn decide_how(&self, opened: Opened, purpose: Purpose, phases: Phases) -> Result<Checkpoint, Error> {
        let Opened { mut files, image, catalog, metadata, mut warnings, .. } = opened;
        phases.enter(Some(Phase::Plan));
        let selected = self.selection.resolve(&catalog)?;
        let asked = Asked { purpose, backend: self.backend, alignment: self.least_alignment() };
        let (mut signals, little) = asked.measure(&mut files, image.is_some(), &catalog, &selected);
        if let Some(why) = &self.uring_refused {
            signals.uring_refused = Some(why.clone());
        }
        if !little {
            signals.profile = self.profile(&files, &mut warnings);
        }
        // So little fits, or the system says so when it is mapped.
        let mut memory = if little { probe::no_limit() } else { probe::memory_limit() };
        if matches!(purpose, Purpose::Whole { .. }) {
            // What is kept makes room for this load's arena; a stream's buffers are of another kind.
            memory.available = memory.available.saturating_add(self.arenas.bytes());
        }
        (signals.leave_cached, signals.memory) = (self.leave_cached && !little, memory.available);
        self.check_backend(&signals)?;
        let mut strategy = decide(&signals, self.backend);
        if let Some(threads) = self.threads {
            strategy.workers = threads.get();
            if strategy.backend != Backend::Uring {
                // Each reads one thing at a time, and there are to be no more.
                strategy.most_in_flight = threads.get();
            }
        }
        let catalog = Arc::new(catalog);
        Ok(Checkpoint { files, image, catalog, selected, strategy, signals, memory, metadata, warnings, phases })
    }

    fn prepare(&self, path: &Path, access: Access, waits: bool) -> Result<Shared, Error> {
        let started = Instant::now();
        let (Planned { catalog, plan, strategy, warnings, .. }, files, image, phases) =
            self.decide(path, access, waits)?;
        let verification = self.verification(&catalog, &plan)?;
        let strict = self.backend.is_some();
        let on_progress = self.progress_callback();
        let prepared = Prepared {
            started,
            catalog,
            plan,
            strategy,
            strict,
            files: files.into(),
            warnings,
            verification,
            on_progress,
            faults: self.injected_faults(),
            phases,
        };
        Shared::whole(prepared, &self.arenas, image, access == Access::Map { resident: true }, self.mlock)
    }

    /// The stored profile of the device, if all files lie on one and it has one; one that cannot be used is a warning.
    fn profile(&self, files: &[OpenFile], warnings: &mut Vec<String>) -> Option<Profile> {
        let (first, rest) = files.split_first()?;
        if self.without_profile || rest.iter().any(|file| file.device() != first.device()) {
            return None;
        }
        match probe::profile::find(&Device::of(first.buffered()).ok()?) {
            Ok(profile) => Some(profile?.signals()),
            Err(warning) => {
                warnings.push(warning);
                None
            }
        }
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

// Miri knows no mapping that takes no memory until it is touched.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use floodtide_core::strategy::Consumer;

    #[test]
    fn memory_that_is_kept_is_room_for_an_arena_and_not_for_a_streams_buffers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let json = r#"{"t":{"dtype":"U8","shape":[8388608],"data_offsets":[0,8388608]}}"#;
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file.resize(file.len() + (8 << 20), 0);
        std::fs::write(&path, file).expect("writes");
        const KEPT: u64 = 1 << 40;
        let loader = Loader::new().keep_memory(u64::MAX);
        // Mapped, but never touched.
        drop(loader.arenas.take(KEPT as usize).expect("maps"));
        assert_eq!(loader.kept_bytes(), KEPT);
        let available = |purpose, consumer| {
            let opened = loader.open_checkpoint(&path, purpose).expect("opens");
            assert_eq!(opened.signals.consumer, consumer);
            opened.memory.available
        };
        let whole = Purpose::Whole { access: Access::Copy, waits: false };
        assert!(available(whole, Consumer::Whole) > KEPT);
        assert!(available(Purpose::Stream { memory_alignment: None }, Consumer::Stream) < KEPT);
    }
}
