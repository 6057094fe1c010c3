//! The steps of every call, in order: find and open the files, read the headers, measure, decide
//! how to read, plan, and return a planned load.

use super::{Input, Settings};
use crate::checkpoint_files::OpenFiles;
use crate::discover::discover;
use crate::error::Error;
use crate::load::OwnedLoadTask;
use crate::open::{self, OpenedHeaders};
use crate::runtime::PlannedLoad;
use crate::signals::{LoadMode, ProbeRequest};
use crate::small_file::SmallFile;
use crate::trace::{Phase, Phases};
use crate::warning::Warning;
use floodtide_core::strategy::{Signals, Strategy, decide};
use floodtide_core::{
    Access, Alignment, Catalog, CatalogBuilder, MemoryLimit, MetadataValue, Plan, PlanOptions, Planner, RouteId,
    TensorSlice,
};
use floodtide_linux::probe;
use std::sync::Arc;
use std::time::Instant;

/// A checkpoint with its headers read and its strategy decided.
#[derive(Debug)]
pub(crate) struct DecidedLoad {
    pub(crate) files: OpenFiles,
    /// The bytes of the only file, if they were read with the header.
    pub(crate) small_file: Option<SmallFile>,
    pub(crate) catalog: Arc<Catalog>,
    /// The selected tensors and slices, in the order of the files.
    pub(crate) selected: Vec<TensorSlice>,
    pub(crate) strategy: Strategy,
    pub(crate) signals: Signals,
    pub(crate) memory: MemoryLimit,
    /// The metadata of the index and the files, each key once.
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) phases: Phases,
}

impl DecidedLoad {
    /// Returns the options of the plan.
    pub(crate) fn options(&self, access: Access, settings: &Settings) -> PlanOptions {
        let strategy = &self.strategy;
        let of_file = |route: &RouteId| strategy.routes[route.index()].chunk_bytes;
        let gathered = strategy.routes.iter().map(|route| route.in_flight(true).1 as u64).sum();
        PlanOptions {
            access,
            direct: self
                .files
                .iter()
                .zip(&strategy.direct)
                .map(|(file, &direct)| if direct { file.direct_limits() } else { None })
                .collect(),
            cached: self.signals.files.iter().map(|file| file.cached.clone()).collect(),
            tensor_alignment: settings.min_alignment(),
            chunk_bytes: strategy.main_route().chunk_bytes,
            file_chunk_bytes: strategy.route_of.iter().map(of_file).collect(),
            max_gather_reads: gathered,
            memory: Some(self.memory.clone()),
            ..PlanOptions::default()
        }
    }

    /// Returns the load with its plan. Fails if a manifest does not fit the plan.
    pub(crate) fn into_planned(
        self,
        settings: &Settings,
        plan: Arc<Plan>,
        started: Instant,
    ) -> Result<PlannedLoad, Error> {
        let Self { files, catalog, strategy, warnings, phases, .. } = self;
        Ok(PlannedLoad {
            started,
            verification: settings.verification(&catalog, &plan)?,
            catalog,
            plan,
            strategy,
            strict: settings.backend.is_some(),
            files,
            warnings,
            on_progress: settings.on_progress.clone(),
            phases,
        })
    }
}

impl Settings {
    /// Decides how to load, and plans the reads.
    pub(crate) fn decide(
        &self,
        input: &Input<'_>,
        access: Access,
        waits: bool,
    ) -> Result<(DecidedLoad, Arc<Plan>), Error> {
        let opened = self.open_checkpoint(input, LoadMode::Whole { access, waits })?;
        // The tensors of a small file stay at their offsets, as in a mapping.
        let access = if opened.small_file.is_some() { Access::Map { resident: false } } else { access };
        let plan = Arc::new(Planner::new(opened.options(access, self)).plan(&opened.catalog, &opened.selected)?);
        Ok((opened, plan))
    }

    /// Finds the files of an input, opens them, and reads their headers. `small_files` provides
    /// memory to read a small file whole, if it is the only one.
    pub(crate) fn open_headers(
        &self,
        input: &Input<'_>,
        small_files: Option<&Arc<floodtide_memory::ArenaCache>>,
    ) -> Result<OpenedHeaders, Error> {
        match input {
            Input::Path(path) => {
                let (storage, name) = self.storages.resolve(path)?;
                open::open(storage, discover(&**storage, &name, small_files)?, small_files)
            }
            Input::Files(paths) => {
                let named = paths.iter().map(|path| self.storages.resolve(path));
                open::open_files(&named.collect::<Result<Vec<_>, _>>()?)
            }
        }
    }

    /// Reads the headers, measures, and decides how to read.
    pub(crate) fn open_checkpoint(&self, input: &Input<'_>, mode: LoadMode) -> Result<DecidedLoad, Error> {
        if let Some(alignment) = self.tensor_alignment.filter(|&alignment| alignment > Alignment::HUGE_PAGE) {
            let max = Alignment::HUGE_PAGE.as_u64();
            return Err(Error::TensorAlignment { bytes: alignment.as_u64(), max });
        }
        let _span = tracing::debug_span!("plan", %input).entered();
        // A requested backend is used even for a small file, and a trace must see every read.
        let as_usual = self.trace.is_some() || self.backend.is_some() || self.threads.is_some() || self.mlock;
        let waits = matches!(mode, LoadMode::Whole { waits: true, .. });
        let small_files = (waits && !as_usual).then_some(&self.arena_cache);
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let opened = self.open_headers(input, small_files)?;
        self.decide_how(opened, mode, phases)
    }

    /// Opens the files of a checkpoint, index included, each as one tensor of all its bytes. Also
    /// returns the catalog of their tensors, in which the files have the same numbers.
    pub(crate) fn open_whole_files(&self, input: &Input<'_>) -> Result<(Arc<Catalog>, DecidedLoad), Error> {
        let phases = Phases::new(self.trace.as_ref());
        phases.enter(Some(Phase::Headers));
        let mut opened = self.open_headers(input, None)?;
        opened.add_index_file()?;
        let mut builder = CatalogBuilder::new(opened.catalog.format());
        for file in opened.files.iter() {
            builder.add_whole_file(file.name(), file.len())?;
        }
        let catalog = std::mem::replace(&mut opened.catalog, builder.finish()?);
        let checkpoint = self.decide_how(opened, LoadMode::Stream { memory_alignment: None }, phases)?;
        Ok((Arc::new(catalog), checkpoint))
    }

    /// Measures and decides how to read.
    fn decide_how(&self, opened: OpenedHeaders, mode: LoadMode, phases: Phases) -> Result<DecidedLoad, Error> {
        let OpenedHeaders { files, small_file, catalog, metadata, mut warnings, .. } = opened;
        phases.enter(Some(Phase::Plan));
        let selected = self.selection.resolve(&catalog)?;
        warnings.extend(self.selection.warning(&catalog).map(Warning::from));
        let request = ProbeRequest {
            mode,
            backend: self.backend,
            alignment: self.min_alignment(),
            use_device_profile: !self.ignore_device_profile,
        };
        let (mut signals, is_small) = request.measure(&files, &catalog, &selected, &mut warnings)?;
        // A small load fits; if it does not, mapping its memory reports the error.
        let mut memory = if is_small { floodtide_memory::no_limit() } else { probe::memory_limit() };
        if matches!(mode, LoadMode::Whole { .. }) {
            // The memory kept for reuse is available to this load's arena, but not to a stream's
            // buffers.
            memory.available = memory.available.saturating_add(self.arena_cache.byte_len());
        }
        signals.verified = self.manifest.is_some();
        (signals.populate_page_cache, signals.memory) = (self.populate_page_cache && !is_small, memory.available);
        let mut strategy = decide(&signals);
        if let Some(threads) = self.threads {
            for route in &mut strategy.routes {
                route.set_workers(threads.get());
            }
        }
        let catalog = Arc::new(catalog);
        Ok(DecidedLoad { files, small_file, catalog, selected, strategy, signals, memory, metadata, warnings, phases })
    }

    pub(crate) fn prepare(&self, input: &Input<'_>, access: Access, waits: bool) -> Result<Arc<OwnedLoadTask>, Error> {
        let started = Instant::now();
        let (mut decided, plan) = self.decide(input, access, waits)?;
        let small_file = decided.small_file.take();
        let planned = decided.into_planned(self, plan, started)?;
        OwnedLoadTask::load(
            planned,
            &self.arena_cache,
            small_file,
            access == Access::Map { resident: true },
            self.mlock,
        )
    }
}

// Miri does not support mappings that take no memory until they are touched.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use floodtide_core::strategy::Consumer;
    use floodtide_core::to_usize;
    use floodtide_memory::ArenaCache;

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
        let settings = Settings { arena_cache: Arc::new(ArenaCache::with_limit(u64::MAX)), ..Settings::default() };
        // Mapped, but never touched.
        drop(settings.arena_cache.take(to_usize(KEPT)).expect("maps"));
        assert_eq!(settings.arena_cache.byte_len(), KEPT);
        let available = |mode, consumer| {
            let opened = settings.open_checkpoint(&Input::Path(&path), mode).expect("opens");
            assert_eq!(opened.signals.consumer, consumer);
            opened.memory.available
        };
        let whole = LoadMode::Whole { access: Access::Copy, waits: false };
        assert!(available(whole, Consumer::Whole) > KEPT);
        assert!(available(LoadMode::Stream { memory_alignment: None }, Consumer::Stream) < KEPT);
    }
}
