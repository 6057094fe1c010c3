//! The steps of every call, in their order: find and open the files, read the headers, measure, decide how to read, plan, and hand over what a
//! load is made of.

use super::{Loader, Planned};
use crate::crew::Prepared;
use crate::error::Error;
use crate::headers::{self, Opened};
use crate::load::Shared;
use crate::locate::{locate, locate_for};
use crate::trace::{Phase, Phases};
use floodtide_core::strategy::{Backend, Profile, Signals, Strategy, decide};
use floodtide_core::{
    Access, Alignment, Catalog, CatalogBuilder, MemoryLimit, MetadataValue, PlanOptions, Planner, Wanted,
};
use floodtide_linux::Image;
use floodtide_linux::OpenFile;
use floodtide_linux::probe;
use floodtide_linux::probe::device::Device;
use floodtide_linux::{Asked, Purpose};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

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
            gathered_reads: self.strategy.in_flight(true).1 as u64,
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
        warnings.extend(self.selection.warning(&catalog));
        let asked = Asked { purpose, backend: self.backend, alignment: self.least_alignment() };
        let (mut signals, little) = asked.measure(&mut files, image.is_some(), &catalog, &selected);
        if let Some(why) = &self.uring_refused {
            signals.uring_refused = Some(why.clone());
        }
        if !little {
            signals.profile = self.profile(&files, &mut warnings);
        }
        // So little fits, or the system says so when it is mapped.
        let mut memory = if little { floodtide_memory::no_limit() } else { probe::memory_limit() };
        if matches!(purpose, Purpose::Whole { .. }) {
            // What is kept makes room for this load's arena; a stream's buffers are of another kind.
            memory.available = memory.available.saturating_add(self.arenas.bytes());
        }
        signals.verified = self.manifest.is_some();
        (signals.leave_cached, signals.memory) = (self.leave_cached && !little, memory.available);
        self.check_backend(&signals)?;
        let mut strategy = decide(&signals, self.backend);
        if let Some(threads) = self.threads {
            strategy.workers = threads.get();
            // So many may be fewer than the device asks for.
            strategy.expected = None;
            if strategy.backend != Backend::Uring {
                // Each reads one thing at a time, and there are to be no more.
                strategy.most_in_flight = threads.get();
            }
        }
        let catalog = Arc::new(catalog);
        Ok(Checkpoint { files, image, catalog, selected, strategy, signals, memory, metadata, warnings, phases })
    }

    pub(super) fn prepare(&self, path: &Path, access: Access, waits: bool) -> Result<Shared, Error> {
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
            decisions: strategy.decisions(),
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
