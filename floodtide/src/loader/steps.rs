//! The steps of every call, in their order: find and open the files, read the headers, measure, decide how to read, plan, and hand over what a
//! load is made of.

use super::{Loader, Planned};
use crate::discover::{discover, discover_for};
use crate::error::Error;
use crate::load::OwnedLoadTask;
use crate::open::{self, OpenCheckpoint};
use crate::runtime::PlannedLoad;
use crate::trace::{Phase, Phases};
use floodtide_core::strategy::{Backend, Profile, Signals, Strategy, decide};
use floodtide_core::{
    Access, Alignment, Catalog, CatalogBuilder, MemoryLimit, MetadataValue, PlanOptions, Planner, TensorSlice,
};
use floodtide_linux::OpenFile;
use floodtide_linux::SmallFile;
use floodtide_linux::probe;
use floodtide_linux::probe::device::Device;
use floodtide_linux::{LoadMode, ProbeRequest};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A checkpoint whose headers are read and whose way of reading is decided.
#[derive(Debug)]
pub(crate) struct DecidedLoad {
    pub(crate) files: Vec<OpenFile>,
    /// The only file's bytes, where they came along with the header.
    pub(crate) small_file: Option<SmallFile>,
    pub(crate) catalog: Arc<Catalog>,
    /// What is wanted of it, in the order of the files.
    pub(crate) selected: Vec<TensorSlice>,
    pub(crate) strategy: Strategy,
    pub(crate) signals: Signals,
    pub(crate) memory: MemoryLimit,
    /// The index's metadata and the files', each key once.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) phases: Phases,
}

impl DecidedLoad {
    /// What the planner is told.
    pub(crate) fn options(&self, access: Access, loader: &Loader) -> PlanOptions {
        let direct = |(file, direct): (&OpenFile, &bool)| file.direct_limits().filter(|_| *direct);
        PlanOptions {
            access,
            direct: self.files.iter().zip(&self.strategy.direct).map(direct).collect(),
            cached: self.signals.files.iter().map(|file| file.cached.clone()).collect(),
            tensor_alignment: loader.min_alignment(),
            chunk_bytes: self.strategy.chunk_bytes,
            max_gather_reads: self.strategy.in_flight(true).1 as u64,
            memory: Some(self.memory.clone()),
            ..PlanOptions::default()
        }
    }
}

impl Loader {
    pub(super) fn decide(
        &self,
        path: &Path,
        access: Access,
        waits: bool,
    ) -> Result<(Planned, Vec<OpenFile>, Option<SmallFile>, Phases), Error> {
        let opened = self.open_checkpoint(path, LoadMode::Whole { access, waits })?;
        // What is in a small file is used where it lies, as in a mapping.
        let access = if opened.small_file.is_some() { Access::Map { resident: false } } else { access };
        let plan = Arc::new(Planner::new(opened.options(access, self)).plan(&opened.catalog, &opened.selected)?);
        let DecidedLoad { files, small_file, catalog, strategy, signals, memory, warnings, phases, .. } = opened;
        Ok((Planned { catalog, plan, strategy, signals, memory, warnings }, files, small_file, phases))
    }

    /// Reads the headers, measures, and decides how to read.
    pub(crate) fn open_checkpoint(&self, path: &Path, mode: LoadMode) -> Result<DecidedLoad, Error> {
        if let Some(alignment) = self.tensor_alignment.filter(|&alignment| alignment > Alignment::HUGE_PAGE) {
            let max = Alignment::HUGE_PAGE.as_u64();
            return Err(Error::TensorAlignment { bytes: alignment.as_u64(), max });
        }
        let _span = tracing::debug_span!("plan", path = %path.display()).entered();
        // What was asked for is done, and what is watched is done read by read.
        let watched = self.trace.is_some() || self.faults.is_some();
        let as_usual = watched || self.backend.is_some() || self.threads.is_some() || self.mlock;
        let waits = matches!(mode, LoadMode::Whole { waits: true, .. });
        let arena_cache = (waits && !as_usual).then_some(&self.arena_cache);
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let opened = open::open(discover_for(path, arena_cache)?, arena_cache)?;
        self.decide_how(opened, mode, phases)
    }

    /// The files of a checkpoint, its index among them, each to be taken as one tensor of all its bytes; and the catalog of the tensors that
    /// are in them, in which the files have the same numbers.
    pub(crate) fn open_whole_files(&self, path: &Path) -> Result<(Arc<Catalog>, DecidedLoad), Error> {
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let discovered = discover(path)?;
        let index = discovered.index.as_ref().map(|index| index.path().to_owned());
        let mut opened = open::open(discovered, None)?;
        if let Some(index) = index {
            opened.files.push(OpenFile::open(&index)?);
        }
        let mut builder = CatalogBuilder::new(opened.catalog.format());
        for file in &opened.files {
            builder.add_whole_file(&file.path().display().to_string(), file.byte_len())?;
        }
        let catalog = std::mem::replace(&mut opened.catalog, builder.finish()?);
        let checkpoint = self.decide_how(opened, LoadMode::Stream { memory_alignment: None }, phases)?;
        Ok((Arc::new(catalog), checkpoint))
    }

    /// Measures, and decides how to read.
    fn decide_how(&self, opened: OpenCheckpoint, mode: LoadMode, phases: Phases) -> Result<DecidedLoad, Error> {
        let OpenCheckpoint { mut files, small_file, catalog, metadata, mut warnings, .. } = opened;
        phases.enter(Some(Phase::Plan));
        let selected = self.selection.resolve(&catalog)?;
        warnings.extend(self.selection.warning(&catalog));
        let request = ProbeRequest { mode, backend: self.backend, alignment: self.min_alignment() };
        let (mut signals, is_small) = request.measure(&mut files, small_file.is_some(), &catalog, &selected);
        if let Some(why) = &self.uring_refused {
            signals.uring_refused = Some(why.clone());
        }
        if !is_small {
            signals.profile = self.profile(&files, &mut warnings);
        }
        // So little fits, or the system says so when it is mapped.
        let mut memory = if is_small { floodtide_memory::no_limit() } else { probe::memory_limit() };
        if matches!(mode, LoadMode::Whole { .. }) {
            // What is kept makes room for this load's arena; a stream's buffers are of another kind.
            memory.available = memory.available.saturating_add(self.arena_cache.byte_len());
        }
        signals.verified = self.manifest.is_some();
        (signals.populate_page_cache, signals.memory) = (self.populate_page_cache && !is_small, memory.available);
        self.check_backend(&signals)?;
        let mut strategy = decide(&signals, self.backend);
        if let Some(threads) = self.threads {
            strategy.workers = threads.get();
            // So many may be fewer than the device asks for.
            strategy.profiled_direct_rate = None;
            if strategy.backend != Backend::Uring {
                // Each reads one thing at a time, and there are to be no more.
                strategy.max_in_flight = threads.get();
            }
        }
        let catalog = Arc::new(catalog);
        Ok(DecidedLoad { files, small_file, catalog, selected, strategy, signals, memory, metadata, warnings, phases })
    }

    pub(super) fn prepare(&self, path: &Path, access: Access, waits: bool) -> Result<OwnedLoadTask, Error> {
        let started = Instant::now();
        let (Planned { catalog, plan, strategy, warnings, .. }, files, small_file, phases) =
            self.decide(path, access, waits)?;
        let verification = self.verification(&catalog, &plan)?;
        let strict = self.backend.is_some();
        let on_progress = self.progress_callback();
        let planned = PlannedLoad {
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
        OwnedLoadTask::allocate(
            planned,
            &self.arena_cache,
            small_file,
            access == Access::Map { resident: true },
            self.mlock,
        )
    }

    /// The stored profile of the device, if all files lie on one and it has one; one that cannot be used is a warning.
    fn profile(&self, files: &[OpenFile], warnings: &mut Vec<String>) -> Option<Profile> {
        let (first, rest) = files.split_first()?;
        if self.ignore_device_profile || rest.iter().any(|file| file.device() != first.device()) {
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
        let loader = Loader::new().arena_cache_limit(u64::MAX);
        // Mapped, but never touched.
        drop(loader.arena_cache.take(KEPT as usize).expect("maps"));
        assert_eq!(loader.arena_cache_len(), KEPT);
        let available = |mode, consumer| {
            let opened = loader.open_checkpoint(&path, mode).expect("opens");
            assert_eq!(opened.signals.consumer, consumer);
            opened.memory.available
        };
        let whole = LoadMode::Whole { access: Access::Copy, waits: false };
        assert!(available(whole, Consumer::Whole) > KEPT);
        assert!(available(LoadMode::Stream { memory_alignment: None }, Consumer::Stream) < KEPT);
    }
}
