//! The beginning of a stream: the size of its memory and of its buffers, its pool and its plan.

use super::TensorStream;
use super::running::{OwnMemory, Running};
use crate::error::Error;
use crate::prepare::{BufferMemory, DecidedLoad};
use crate::runtime::PlannedLoad;
use crate::trace::Phase;
use floodtide_core::pool::SizeClass;
use floodtide_core::{Access, Alignment, Buffers, Order, Planner, TensorSlice, tensor_alignment};
use floodtide_memory::pool::{LockPolicy, MappedMemory, Pool};
use std::sync::Arc;
use std::time::Duration;

/// The default memory limit, if twice as much is available.
const DEFAULT_LIMIT: u64 = 1 << 30;
/// The minimum memory limit of a stream.
const MIN_LIMIT: u64 = 1 << 20;
/// A shared buffer has this share of the limit, so that some buffers are filled while others are
/// consumed.
const BUFFERS: u64 = 8;
/// The maximum size of a shared buffer by default; larger ones are not faster.
const MAX_COALESCED_BYTES: u64 = 64 << 20;
/// The default time that a consumer may hold all memory before the stream reports a stall.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

impl TensorStream {
    pub(super) fn begin(&self, checkpoint: DecidedLoad, split: bool) -> Result<Running, Error> {
        checkpoint.phases.enter(Some(Phase::Plan));
        let settings = &self.settings;
        let options = &settings.stream;
        let pool = match &options.memory {
            Some(BufferMemory::Pool(pool)) => pool.clone(),
            memory => {
                let limit = match memory {
                    Some(BufferMemory::Limit(limit)) => *limit,
                    _ => default_limit(&checkpoint, split),
                };
                self.pool(&checkpoint, usize::try_from(limit).unwrap_or(usize::MAX))
            }
        };
        let limit = pool.stats().limit as u64;
        let tensors = checkpoint.selected.iter().map(|slice| checkpoint.catalog.tensor(slice.tensor()));
        let alignments = tensors.map(|tensor| tensor_alignment(&tensor, settings.min_alignment()).as_u64());
        let required_alignment = alignments.max().unwrap_or(1);
        if (pool.alignment() as u64) < required_alignment {
            return Err(Error::TensorAlignment { bytes: required_alignment, max: pool.alignment() as u64 });
        }
        let buffer_bytes = options.buffer_bytes.unwrap_or_else(|| coalesced_bytes(limit));
        let buffers = Buffers { buffer_bytes, limit, split, order: options.order };
        let plan_options = checkpoint.options(Access::Stream(buffers), settings);
        let listed = match options.order {
            Order::Selection => Some(settings.selection.resolve_in_order(&checkpoint.catalog)?),
            Order::Completion | Order::File => None,
        };
        let selected = listed.as_ref().unwrap_or(&checkpoint.selected);
        let plan = Arc::new(Planner::new(plan_options).plan(&checkpoint.catalog, selected)?);
        let verification = settings.verification(&checkpoint.catalog, &plan)?;
        let DecidedLoad { files, catalog, strategy, warnings, phases, .. } = checkpoint;
        let planned = PlannedLoad {
            started: self.started,
            catalog,
            plan,
            strategy,
            strict: settings.backend.is_some(),
            files,
            warnings,
            verification,
            on_progress: settings.on_progress.clone(),
            phases,
        };
        let owned = !matches!(options.memory, Some(BufferMemory::Pool(_)));
        let memory = OwnMemory { owned, locked: owned && settings.mlock };
        Running::start(planned, buffers, pool, memory, options.stall_timeout.unwrap_or(STALL_TIMEOUT))
    }

    /// Returns a pool for this stream alone.
    fn pool(&self, checkpoint: &DecidedLoad, limit: usize) -> Pool {
        let direct = checkpoint.files.iter().filter_map(|file| file.direct_limits()).map(|limits| limits.memory);
        let alignment = direct.fold(self.settings.min_alignment(), Alignment::max);
        let memory =
            if self.settings.mlock { MappedMemory::locked(LockPolicy::BestEffort) } else { MappedMemory::new() };
        Pool::builder().limit(limit).memory(memory.aligned(alignment)).build()
    }
}

/// Fails if the limit is too small for `streams` streams together.
pub(crate) fn check_limit(limit: u64, streams: u64) -> Result<(), Error> {
    let min = streams * MIN_LIMIT;
    if limit < min { Err(Error::StreamLimit { limit, min }) } else { Ok(()) }
}

/// Returns the default memory limit: [`DEFAULT_LIMIT`], or the size of the largest tensor if
/// tensors must be whole and that is more, but at most half of the available memory.
fn default_limit(checkpoint: &DecidedLoad, split: bool) -> u64 {
    let mut limit = DEFAULT_LIMIT;
    if !split {
        let catalog = &checkpoint.catalog;
        let bytes = |slice: &TensorSlice| slice.byte_len(&catalog.tensor(slice.tensor()));
        let longest = checkpoint.selected.iter().map(bytes).max().unwrap_or(0);
        // A size class is at most a quarter larger, and alignment adds less than that.
        limit = limit.max(longest.saturating_add(longest / 4).saturating_add(MIN_LIMIT));
    }
    limit.min(checkpoint.memory.available / 2).max(MIN_LIMIT)
}

/// Returns the size of shared buffers: a size class, so that rounding wastes no memory.
fn coalesced_bytes(limit: u64) -> u64 {
    let share = usize::try_from((limit / BUFFERS).min(MAX_COALESCED_BYTES)).unwrap_or(usize::MAX);
    SizeClass::within(share).map_or(limit, |class| class.size() as u64)
}
