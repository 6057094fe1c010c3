//! The [`Loader`]: its options (`options`) and its calls (`calls`). The steps of a call are in
//! `prepare`.

mod calls;
mod options;

use crate::error::Error;
use crate::prepare::{BufferMemory, Settings, StreamOptions};
use crate::stream;
use crate::warning::Warning;
use floodtide_core::{Catalog, MetadataValue, Order, Selection};
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
    pub(crate) settings: Settings,
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
    pub warnings: Vec<Warning>,
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
    /// Returns [`Error::StreamLimit`] if the limit is too small for them.
    pub(crate) fn for_whole_stream(&self, limit: u64, streams: u64, part: u64) -> Result<Self, Error> {
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

    /// Returns this loader with another order of streams.
    pub(crate) fn ordered(mut self, order: Order) -> Self {
        self.settings.stream.order = order;
        self
    }
}
