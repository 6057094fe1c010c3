//! The load as a state machine without I/O.
//!
//! [`Engine::next_read`] hands out the plan's reads, [`Engine::complete`] takes their outcomes and says what becomes of the
//! buffer, [`Engine::poll_event`] reports each tensor the moment its last byte is in. The engine knows no file descriptor
//! and no clock. It ends whatever happens: every retry is counted, and after a failure or a cancellation it hands out
//! nothing more and waits only for what is in flight.

mod recovery;
mod worker;

pub use worker::{BufferProvider, EngineHandle, Worker, WorkerState, land, next_read};

use crate::catalog::Catalog;
use crate::error::Error;
use crate::plan::{Chunk, Method, Plan};
use crate::seeded_bug::seeded_bug;
use crate::source::{Outcome, ReadId, ReadOp};
use crate::units::{ChunkId, ExtentId, RouteId, TensorId};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use recovery::Attempts;

/// What happened in the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Every byte of this tensor is in its place; of a strided slice, once what has [landed](Disposition::Landed) is gathered.
    TensorReady(TensorId),
    /// Direct reads of this file are refused; it is read through the page cache from here on.
    DirectRefused(crate::units::FileId),
}

/// What becomes of a completed read's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Disposition {
    /// The chunk is whole: its buffer goes to its owner.
    Landed(ChunkId),
    /// The same buffer goes into this read.
    Resubmit(ReadOp),
    /// The load is over; the buffer is of no use any more.
    Abandoned,
}

/// What the engine could do if it were asked for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Hand one out.
    Ready,
    /// Nothing before the next extent of a stream has a buffer: see [`Engine::admit`].
    NeedsBuffer(ExtentId),
    /// Nothing before a read in flight completes, as enough is in flight.
    Full,
    /// Nothing any more: all is issued, or the load is over.
    Exhausted,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes that have landed.
    pub bytes_done: u64,
    /// The bytes that must land.
    pub bytes_total: u64,
    /// The tensors that are whole.
    pub tensors_done: usize,
    /// The tensors that were selected.
    pub tensors_total: usize,
}

/// How often the engine had to make good for what went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetryStats {
    /// Short reads that were read on.
    pub resumed: u64,
    /// Direct reads that went on from an earlier, aligned byte.
    pub realigned: u64,
    /// Reads that were tried again after a fault.
    pub retried: u64,
    /// Reads that went on through the page cache.
    pub buffered: u64,
    /// Files of which direct reads were refused.
    pub direct_disabled: u64,
    /// Files that ended early.
    pub truncated: u64,
}

/// A read in flight.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    chunk: ChunkId,
    /// How many of the chunk's bytes are in, and where the present read starts. What a read in flight may overwrite is not in
    /// any more: when a direct read is re-aligned, this goes back.
    filled: usize,
    /// How far any read of the chunk has come.
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

/// How far the reads of one route are.
#[derive(Debug)]
struct RouteState {
    /// The first of the route's chunks that was not handed out; the plan's length when all were.
    next_chunk: u32,
    in_flight: usize,
    in_flight_bytes: u64,
    max_in_flight_bytes: u64,
    /// See [`Engine::set_window`].
    reads_per_worker: usize,
    /// See [`Engine::set_buffered`].
    buffered: bool,
}

/// The state of one load.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    catalog: Arc<Catalog>,
    /// By file: its route.
    route_of: Vec<RouteId>,
    routes: Vec<RouteState>,
    /// How many extents have a buffer, and so may be read.
    admitted: u32,
    slots: Vec<Slot>,
    free: Vec<u32>,
    in_flight: usize,
    in_flight_bytes: u64,
    /// By file: whether direct reads of it were refused.
    direct_disabled: Vec<bool>,
    /// By placement: the bytes still to come.
    missing: Vec<u64>,
    events: VecDeque<Event>,
    progress: Progress,
    retry_stats: RetryStats,
    failure: Option<Error>,
}

impl Engine {
    /// An engine for a plan, which must be of that catalog, all of whose files are on one route. At most `max_in_flight_bytes` are
    /// asked for at a time, but always at least one read.
    ///
    /// When the plan is a stream's, no extent is read before it is [admitted](Self::admit).
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, plan: Arc<Plan>, max_in_flight_bytes: u64) -> Self {
        let route_of = alloc::vec![RouteId(0); catalog.files().len()];
        Self::with_routes(catalog, plan, route_of, max_in_flight_bytes)
    }

    /// As [`new`](Self::new), with a route for each file: each worker reads the files of one route, and each route has a limit of its own of
    /// the bytes in flight.
    ///
    /// # Panics
    /// When there is not a route for each file.
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
            in_flight: 0,
            in_flight_bytes: 0,
            missing,
            events,
            progress,
            retry_stats: RetryStats::default(),
            failure: None,
        };
        (0..engine.routes.len()).for_each(|route| engine.skip_other_routes(route));
        engine
    }

    /// From now on at most so many bytes of a route are asked for at a time, but always at least one read, and each of its workers keeps at
    /// most so many reads in flight, but at least one: so that one source does not take what is to be shared. What is in flight stays.
    pub fn set_window(&mut self, route: RouteId, max_in_flight_bytes: u64, reads_per_worker: usize) {
        let route = &mut self.routes[route.index()];
        route.max_in_flight_bytes = max_in_flight_bytes;
        route.reads_per_worker = reads_per_worker.max(1);
    }

    /// Whether reads of a route that are handed out from now on go through the page cache, also where the plan has direct ones. What is in
    /// flight goes on as it is.
    pub fn set_buffered(&mut self, route: RouteId, buffered: bool) {
        self.routes[route.index()].buffered = buffered;
    }

    /// How many reads a worker of a route keeps in flight at most.
    #[must_use]
    pub fn reads_per_worker(&self, route: RouteId) -> usize {
        self.routes[route.index()].reads_per_worker
    }

    /// How many bytes of all routes are asked for at a time at most.
    #[must_use]
    pub fn max_in_flight_bytes(&self) -> u64 {
        self.routes.iter().fold(0, |sum, route| sum.saturating_add(route.max_in_flight_bytes))
    }

    /// The route that a file is read by.
    #[must_use]
    pub fn route_of(&self, file: crate::units::FileId) -> RouteId {
        self.route_of[file.index()]
    }

    /// The plan that is carried out.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The next read of a route to submit, with a fresh buffer for its chunk. `None` when nothing is to be issued now:
    /// [`readiness`](Self::readiness) says why.
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
        let read = InFlight { chunk: id, filled: 0, furthest: 0, len, direct, attempts: Attempts::default() };
        state.next_chunk += 1;
        state.in_flight_bytes += bytes;
        self.in_flight_bytes += bytes;
        self.skip_other_routes(route.index());
        let read_id = self.alloc_slot(read);
        Some(self.op(read_id, &read))
    }

    /// What [`next_read`](Self::next_read) would do.
    #[must_use]
    pub fn readiness(&self, route: RouteId) -> Readiness {
        let state = &self.routes[route.index()];
        if self.failure.is_some() || self.is_issued(state) {
            return Readiness::Exhausted;
        }
        let chunk = &self.plan.chunks()[state.next_chunk as usize];
        let bytes = chunk.buffer_range.len() as u64;
        if chunk.extent.0 >= self.admitted {
            // Extents are admitted in order, and the next one may be another route's, which may not have come to it yet.
            Readiness::NeedsBuffer(ExtentId(self.admitted))
        } else if state.in_flight > 0 && state.in_flight_bytes.saturating_add(bytes) > state.max_in_flight_bytes {
            Readiness::Full
        } else {
            Readiness::Ready
        }
    }

    /// Whether every chunk of a route was handed out.
    fn is_issued(&self, route: &RouteState) -> bool {
        let skipped = usize::from(seeded_bug!(LastChunkSkipped) && self.plan.chunks().len() > 1);
        route.next_chunk as usize + skipped >= self.plan.chunks().len()
    }

    /// Moves a route on to the next chunk that is its own.
    fn skip_other_routes(&mut self, route: usize) {
        let chunks = self.plan.chunks();
        let next = &mut self.routes[route].next_chunk;
        while chunks.get(*next as usize).is_some_and(|chunk| self.route_of[chunk.file.index()].index() != route) {
            *next += 1;
        }
    }

    /// An extent of a stream, and every one before it, has a buffer: it may be read.
    pub fn admit(&mut self, extent: ExtentId) {
        self.admitted = self.admitted.max(extent.0.saturating_add(1));
    }

    /// How many extents have been admitted.
    #[must_use]
    pub fn admitted(&self) -> u32 {
        self.admitted
    }

    /// Takes the outcome of a read. A read that is not in flight fails the load: the platform has broken the contract.
    pub fn complete(&mut self, id: ReadId, outcome: Outcome) -> Disposition {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation);
        let Some(mut read) = slot.and_then(|slot| slot.read) else {
            self.fail(Error::Contract { what: "a completion came for a read that is not in flight" });
            return Disposition::Abandoned;
        };
        self.free_slot(id);
        let chunk = &self.plan.chunks()[read.chunk.index()];
        let bytes = chunk.buffer_range.len() as u64;
        let route = self.route_of[chunk.file.index()].index();
        if self.failure.is_some() {
            self.return_bytes(route, bytes);
            return Disposition::Abandoned;
        }
        match self.classify(&mut read, outcome) {
            Ok(true) => {
                self.return_bytes(route, if seeded_bug!(BudgetLeaked) { 0 } else { bytes });
                self.land(read.chunk);
                Disposition::Landed(read.chunk)
            }
            Ok(false) => {
                let id = self.alloc_slot(read);
                Disposition::Resubmit(self.op(id, &read))
            }
            Err(error) => {
                self.return_bytes(route, bytes);
                self.fail(error);
                Disposition::Abandoned
            }
        }
    }

    fn return_bytes(&mut self, route: usize, bytes: u64) {
        self.in_flight_bytes -= bytes;
        self.routes[route].in_flight_bytes -= bytes;
    }

    /// The next thing that happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Gives the load up: nothing more is issued, and it ends as [`Error::Cancelled`] unless it had failed or finished.
    pub fn cancel(&mut self) {
        if self.progress.bytes_done < self.progress.bytes_total {
            self.fail(Error::Cancelled);
        }
    }

    /// Ends the load with an error; the first one counts.
    pub fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Whether the load has failed or was given up.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Whether no further read will be issued.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.failure.is_some() || self.routes.iter().all(|route| self.is_issued(route))
    }

    /// Whether the load is over: nothing to issue and nothing in flight.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.in_flight == 0 && self.is_exhausted()
    }

    /// How a finished load ended.
    ///
    /// # Errors
    /// What made it fail; [`Error::Contract`] when it is not finished, or tensors are missing although nothing failed.
    pub fn result(&self) -> Result<(), Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        // Says so rather than handing out a partial result as a whole one.
        if !self.is_finished() || self.progress.tensors_done != self.progress.tensors_total {
            return Err(Error::Contract { what: "the load ended before every tensor was in" });
        }
        Ok(())
    }

    /// How far the load is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// How often it had to make good for what went wrong.
    #[must_use]
    pub fn retry_stats(&self) -> RetryStats {
        self.retry_stats
    }

    /// The bytes of the chunks in flight.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// The number of reads in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn alloc_slot(&mut self, read: InFlight) -> ReadId {
        self.in_flight += 1;
        self.route_state(&read).in_flight += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
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
            self.in_flight -= 1;
            self.route_state(&read).in_flight -= 1;
        }
    }

    fn route_state(&mut self, read: &InFlight) -> &mut RouteState {
        let file = self.plan.chunks()[read.chunk.index()].file;
        &mut self.routes[self.route_of[file.index()].index()]
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

    /// Books a whole chunk: its tensors have so many bytes more.
    fn land(&mut self, id: ChunkId) {
        let plan = Arc::clone(&self.plan);
        let chunk: &Chunk = &plan.chunks()[id.index()];
        self.progress.bytes_done += chunk.payload_len as u64;
        // What alignment brought along before the extent may be of the same tensor, and was booked with another extent.
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
