//! `Loader`: what production code links. Options first (`options`), then one call (`calls`). The steps that every call takes are in `prepare`.

mod calls;
mod options;
#[cfg(feature = "unstable-testing")]
mod testing;

use crate::error::Error;
use crate::prepare::{BufferMemory, Settings, StreamOptions};
use crate::stream;
use floodtide_core::{Catalog, MetadataValue, Order, Selection};
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
    pub(crate) settings: Settings,
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
        let limit = match self.settings.stream.memory {
            Some(BufferMemory::Limit(limit)) => limit,
            _ => limit,
        };
        stream::check_limit(limit, streams)?;
        let limit = limit / streams;
        let mut settings =
            Settings { selection: Selection::All, manifest: None, mlock: false, ..self.settings.clone() };
        settings.backend = settings.backend.filter(|backend| !backend.is_mapped());
        settings.tensor_alignment = None;
        let (memory, buffer_bytes) = (Some(BufferMemory::Limit(limit)), Some(part.min(limit / 8)));
        settings.stream = StreamOptions { memory, buffer_bytes, ..StreamOptions::default() };
        Ok(Self { settings })
    }

    /// Returns this loader with another order of its streams.
    pub(crate) fn ordered(mut self, order: Order) -> Self {
        self.settings.stream.order = order;
        self
    }
}
