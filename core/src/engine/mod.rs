//! The engine: a load as a state machine without I/O.
//!
//! [`Engine::next_read`] hands out the plan's reads. [`Engine::complete`] takes their outcomes and
//! decides what happens to each buffer. [`Engine::poll_event`] reports each tensor as soon as its
//! last byte has arrived. The engine knows no file descriptor and no clock.
//!
//! A load always ends. Every retry is counted. After a failure or a cancellation the engine hands
//! out no read and waits only for the reads in flight.

mod events;
mod recovery;
mod worker;

pub use events::{Disposition, Event, Progress, Readiness, RetryStats};
pub use worker::{BufferProvider, EngineHandle, Worker, WorkerState, complete_chunk, next_read};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::plan::{Method, Plan};
use crate::seeded_bug::seeded_bug;
use crate::source::{Outcome, ReadId, ReadOp};
use crate::units::{ChunkId, ExtentId, RouteId};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use recovery::Attempts;

/// A read in flight.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    chunk: ChunkId,
    route: RouteId,
    /// The number of the chunk's bytes that have arrived, which is where the current read starts.
    ///
    /// It decreases when a direct read is re-aligned, because the new read may overwrite those
    /// bytes.
    filled: usize,
    /// The maximum of `filled` so far.
    furthest: usize,
    len: usize,
    direct: bool,
    attempts: Attempts,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    read: Option<InFlight>,
}

/// The progress of one route.
#[derive(Debug)]
struct RouteState {
    /// The first chunk of the route that was not handed out, or the number of chunks if all were.
    next_chunk: u32,
    in_flight: usize,
    in_flight_bytes: u64,
    max_in_flight_bytes: u64,
    /// See [`Engine::set_window`].
    reads_per_worker: usize,
    /// See [`Engine::set_buffered`].
    buffered: bool,
}

/// The state of a load.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    /// The route, by file.
    route_of: Vec<RouteId>,
    routes: Vec<RouteState>,
    /// The number of extents that have a buffer and may be read.
    admitted: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Whether direct reads were disabled, by file.
    direct_disabled: Vec<bool>,
    /// The number of missing bytes, by placement.
    missing: Vec<u64>,
    events: VecDeque<Event>,
    progress: Progress,
    retry_stats: RetryStats,
    failure: Option<Error>,
}

impl Engine {
    /// Creates an engine for a plan of this catalog, with all files on one route.
    ///
    /// It requests at most `max_in_flight_bytes` at a time, but always at least one read. If the
    /// plan is a stream's, an extent is read only after it is [admitted](Self::admit).
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, max_in_flight_bytes: u64) -> Self {
        let route_of = alloc::vec![RouteId(0); catalog.files().len()];
        Self::with_routes(catalog, plan, route_of, max_in_flight_bytes)
    }

    /// Like [`new`](Self::new), with a route for each file.
    ///
    /// Each worker reads the files of one route. Each route has its own limit of bytes in flight.
    ///
    /// # Panics
    /// Panics if `route_of` does not have one route per file.
    #[must_use]
    pub fn with_routes(
        catalog: Arc<Catalog>,
        plan: Arc<Plan>,
        route_of: Vec<RouteId>,
        max_in_flight_bytes: u64,
    ) -> Self {
        assert_eq!(route_of.len(), catalog.files().len(), "each file has a route");
        let routes = 1 + route_of.iter().map(|route| route.0).max().unwrap_or(0);
        let routes = (0..routes).map(|_| RouteState {
            next_chunk: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            max_in_flight_bytes,
            reads_per_worker: usize::MAX,
            buffered: false,
        });
        let routes = routes.collect();
        let missing: Vec<u64> = plan
            .placements()
            .iter()
            .enumerate()
            .map(|(i, p)| if p.location == crate::plan::Location::Mapped { 0 } else { plan.byte_len(i) })
            .collect();
        let whole = missing.iter().zip(plan.placements()).filter(|(missing, _)| **missing == 0);
        let events: VecDeque<Event> = whole.map(|(_, p)| Event::TensorReady(p.tensor)).collect();
        let progress = Progress {
            bytes_done: 0,
            bytes_total: plan.read_bytes(),
            tensors_done: events.len(),
            tensors_total: missing.len(),
        };
        let mut engine = Self {
            direct_disabled: alloc::vec![false; catalog.files().len()],
            admitted: if plan.is_streamed() { 0 } else { u32::MAX },
            plan,
            catalog,
            route_of,
            routes,
            slots: Vec::new(),
            free: Vec::new(),
            missing,
            events,
            progress,
            retry_stats: RetryStats::default(),
            failure: None,
        };
        (0..engine.routes.len()).for_each(|route| engine.skip_other_routes(RouteId::from_index(route)));
        engine
    }

    /// Limits the reads of a route from now on.
    ///
    /// The route requests at most `max_in_flight_bytes` at a time, and each of its workers has at
    /// most `reads_per_worker` reads in flight, so that one source does not take the share of the
    /// others. Both allow at least one read. Reads in flight are not affected.
    pub fn set_window(&mut self, route: RouteId, max_in_flight_bytes: u64, reads_per_worker: usize) {
        let route = &mut self.routes[route.index()];
        route.max_in_flight_bytes = max_in_flight_bytes;
        route.reads_per_worker = reads_per_worker.max(1);
    }

    /// Sets whether further reads of a route are buffered even if the plan has them direct.
    ///
    /// Reads in flight are not affected.
    pub fn set_buffered(&mut self, route: RouteId, buffered: bool) {
        self.routes[route.index()].buffered = buffered;
    }

    /// Returns the maximum number of reads in flight per worker of a route.
    #[must_use]
    pub fn reads_per_worker(&self, route: RouteId) -> usize {
        self.routes[route.index()].reads_per_worker
    }

    /// Returns the maximum number of bytes in flight of all routes.
    #[must_use]
    pub fn max_in_flight_bytes(&self) -> u64 {
        self.routes.iter().fold(0, |sum, route| sum.saturating_add(route.max_in_flight_bytes))
    }

    /// Returns the route of a file.
    #[must_use]
    pub fn route_of(&self, file: crate::units::FileId) -> RouteId {
        self.route_of[file.index()]
    }

    /// Returns the plan.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the next read of a route, to submit with a new buffer for its chunk.
    ///
    /// Returns `None` if no read can be issued now. [`readiness`](Self::readiness) returns why.
    pub fn next_read(&mut self, route: RouteId) -> Option<ReadOp> {
        if self.readiness(route) != Readiness::Ready {
            return None;
        }
        let state = &mut self.routes[route.index()];
        let id = ChunkId(state.next_chunk);
        let chunk = &self.plan.chunks()[id.index()];
        let bytes = chunk.buffer_range.len() as u64;
        let direct = chunk.method == Method::Direct && !state.buffered && !self.direct_disabled[chunk.file.index()];
        let len = if direct { chunk.buffer_range.len() } else { chunk.payload_len };
        let read = InFlight { chunk: id, route, filled: 0, furthest: 0, len, direct, attempts: Attempts::default() };
        state.next_chunk += 1;
        state.in_flight_bytes += bytes;
        self.skip_other_routes(route);
        let read_id = self.alloc_slot(read);
        Some(self.op(read_id, &read))
    }

    /// Returns what [`next_read`](Self::next_read) would do.
    #[must_use]
    pub fn readiness(&self, route: RouteId) -> Readiness {
        let state = &self.routes[route.index()];
        if self.failure.is_some() || self.is_issued(state) {
            return Readiness::Exhausted;
        }
        let chunk = &self.plan.chunks()[state.next_chunk as usize];
        let bytes = chunk.buffer_range.len() as u64;
        if chunk.extent.0 >= self.admitted {
            // Extents are admitted in order, and the next one may be another route's, which has not
            // reached it yet.
            Readiness::NeedsBuffer(ExtentId(self.admitted))
        } else if state.in_flight > 0 && state.in_flight_bytes.saturating_add(bytes) > state.max_in_flight_bytes {
            Readiness::Full
        } else {
            Readiness::Ready
        }
    }

    /// Returns true if every chunk of a route was handed out.
    fn is_issued(&self, route: &RouteState) -> bool {
        let skipped = usize::from(seeded_bug!(LastChunkSkipped) && self.plan.chunks().len() > 1);
        route.next_chunk as usize + skipped >= self.plan.chunks().len()
    }

    /// Advances a route to its next chunk.
    fn skip_other_routes(&mut self, route: RouteId) {
        if self.routes.len() == 1 {
            return;
        }
        let chunks = self.plan.chunks();
        let next = &mut self.routes[route.index()].next_chunk;
        while chunks.get(*next as usize).is_some_and(|chunk| self.route_of[chunk.file.index()] != route) {
            *next += 1;
        }
    }

    /// Allows an extent of a stream and all extents before it to be read, because they have
    /// buffers.
    pub fn admit(&mut self, extent: ExtentId) {
        self.admitted = self.admitted.max(extent.0.saturating_add(1));
    }

    /// Returns the number of admitted extents.
    #[must_use]
    pub fn admitted(&self) -> u32 {
        self.admitted
    }

    /// Processes the outcome of a read.
    ///
    /// A read that is not in flight fails the load, because the platform has violated the contract.
    pub fn complete(&mut self, id: ReadId, outcome: Outcome) -> Disposition {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        let Some(mut read) = slot.and_then(|slot| slot.read) else {
            self.fail(Error::Contract { what: "a completion arrived for a read that is not in flight" });
            return Disposition::Abandoned;
        };
        self.free_slot(id);
        let bytes = self.plan.chunks()[read.chunk.index()].buffer_range.len() as u64;
        if self.failure.is_some() {
            self.return_bytes(read.route, bytes);
            return Disposition::Abandoned;
        }
        match self.classify(&mut read, outcome) {
            Ok(true) => {
                self.return_bytes(read.route, if seeded_bug!(BudgetLeaked) { 0 } else { bytes });
                self.land(read.chunk);
                Disposition::Complete(read.chunk)
            }
            Ok(false) => {
                let id = self.alloc_slot(read);
                Disposition::Resubmit(self.op(id, &read))
            }
            Err(error) => {
                self.return_bytes(read.route, bytes);
                self.fail(error);
                Disposition::Abandoned
            }
        }
    }

    fn return_bytes(&mut self, route: RouteId, bytes: u64) {
        self.routes[route.index()].in_flight_bytes -= bytes;
    }

    /// Returns the next event, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Cancels the load. It ends as [`Error::Cancelled`] unless it has already failed or finished.
    pub fn cancel(&mut self) {
        if self.progress.bytes_done < self.progress.bytes_total {
            self.fail(Error::Cancelled);
        }
    }

    /// Fails the load. Only the first error counts.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Returns true if the load has failed or was cancelled.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns true if no further read will be issued.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.failure.is_some() || self.routes.iter().all(|route| self.is_issued(route))
    }

    /// Returns true if the load is over: no read to issue and none in flight.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.in_flight() == 0 && self.is_exhausted()
    }

    /// Returns the result of a finished load.
    ///
    /// # Errors
    /// Returns the error that ended the load. Returns [`Error::Contract`] if the load is not
    /// finished or tensors are missing without an error.
    pub fn result(&self) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        // Fail rather than return a partial result as a complete one.
        if !self.is_finished() || self.progress.tensors_done != self.progress.tensors_total {
            return Err(Error::Contract { what: "the load ended before every tensor was complete" });
        }
        Ok(())
    }

    /// Returns the progress.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns how often the engine recovered from a problem.
    #[must_use]
    pub fn retry_stats(&self) -> RetryStats {
        self.retry_stats
    }

    /// Returns the number of bytes of the chunks in flight.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.routes.iter().map(|route| route.in_flight_bytes).sum()
    }

    /// Returns the number of reads in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.routes.iter().map(|route| route.in_flight).sum()
    }

    fn alloc_slot(&mut self, read: InFlight) -> ReadId {
        self.routes[read.route.index()].in_flight += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            #[expect(clippy::cast_possible_truncation, reason = "each slot reads another of at most 2^32 chunks")]
            let slot = (self.slots.len() - 1) as u32;
            slot
        });
        let entry = &mut self.slots[slot as usize];
        entry.read = Some(read);
        ReadId { slot, generation: entry.generation }
    }

    fn free_slot(&mut self, id: ReadId) {
        let entry = &mut self.slots[id.slot as usize];
        let read = entry.read.take();
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        if let Some(read) = read {
            self.routes[read.route.index()].in_flight -= 1;
        }
    }

    fn op(&self, id: ReadId, read: &InFlight) -> ReadOp {
        let chunk = &self.plan.chunks()[read.chunk.index()];
        ReadOp {
            id,
            chunk: read.chunk,
            file: chunk.file,
            offset: chunk.offset + read.filled as u64,
            at: read.filled,
            len: read.len,
            direct: read.direct,
            attempt: read.attempts.without_progress(),
        }
    }

    /// Subtracts the bytes of a complete chunk from what its tensors miss.
    fn land(&mut self, id: ChunkId) {
        let plan = &*self.plan;
        let chunk = &plan.chunks()[id.index()];
        self.progress.bytes_done += chunk.payload_len as u64;
        // Bytes that alignment added before the extent may belong to the same tensor. Another
        // extent counts those.
        let start = chunk.offset + u64::from(chunk.align_prefix);
        let end = chunk.offset + chunk.payload_len as u64;
        for index in chunk.tensors.clone() {
            let placement = &plan.placements()[index];
            let overlap = plan.bytes_within(index, start, end);
            if overlap == 0 || placement.location == crate::plan::Location::Mapped {
                continue;
            }
            self.missing[index] -= overlap;
            if self.missing[index] == 0 {
                self.progress.tensors_done += 1;
                self.events.push_back(Event::TensorReady(placement.tensor));
            }
        }
    }
}

#[cfg(test)]
mod tests;
