//! Runs a case: opens, plans and executes it, interleaves all actors by draws, and judges the
//! result.

use crate::actors::{Competitor, ConsumerActor};
use crate::case::{Case, HUGE, SECOND};
use crate::checkpoint::KnownTensor;
use crate::device::{SimSource, SimStorage};
use crate::draw::Draw;
use crate::faults::{FaultCounts, FaultKind, FaultState, SimFaults};
use crate::files::Change;
use crate::history::History;
use crate::prepare::prepare;
use crate::refusal::Refusals;
use crate::verdict::judge;
use crate::world::{Watch, World};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use floodtide_core::middleware::{Faulty, Traced};
use floodtide_core::pool::Stats;
use floodtide_core::{
    Chunk, EngineHandle, Error, ErrorKind, FileId, Method, Placement, Readiness, RetryStats, RouteId, Verification,
    Worker, WorkerState,
};

/// The maximum number of turns of a run that ends.
const MAX_TURNS: u64 = 3_000_000;

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The result for the caller.
    pub result: Result<(), Error>,
    /// The violated rules.
    pub violations: Vec<String>,
    /// The duration in nanoseconds of virtual time.
    pub elapsed: u64,
    /// The history.
    pub history: History,
    /// The injected faults.
    pub faults: FaultCounts,
    /// How often core recovered.
    pub retry_stats: RetryStats,
    /// The number of files whose change was detected.
    pub changes_detected: u64,
    /// The number of reads.
    pub reads: u64,
    /// The number of bytes that arrived.
    pub bytes: u64,
    /// Reads that went over blocks of slices, which were gathered.
    pub gathered: u64,
    /// The pool's counters at the end.
    pub pool: Stats,
    /// The counts of large things.
    pub sizes: SizeCounts,
    /// How often the number of reads in flight changed.
    pub retuned: u64,
    /// How often the load switched between direct and buffered reads because of their rate.
    pub fallbacks: u64,
    /// The number of reads of cached parts beside direct reads of the same run.
    pub cached_reads: u64,
    /// Those of them that go over blocks of slices.
    pub cached_gathered: u64,
    /// The number of tensors that are tied to the previous one.
    pub tied: u64,
}

/// How often a run met large sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SizeCounts {
    /// Reads with an offset beyond 32 bits.
    pub far_reads: u64,
    /// Tensors that took sixteen reads or more.
    pub many_reads: u64,
    /// Parts of tensors that a stream did not deliver whole.
    pub parts: u64,
    /// Tensors that a stream delivered in their own buffers.
    pub own_buffers: u64,
}

type SimWorker = Worker<Traced<Faulty<SimSource, SimFaults>, Watch>>;

/// A worker and its state.
struct WorkerActor {
    worker: SimWorker,
    waits: Option<WorkerState>,
}

impl WorkerActor {
    fn next_due(&self, now: u64) -> Option<u64> {
        if self.waits != Some(WorkerState::AwaitingCompletion) {
            return None;
        }
        let faulty = self.worker.source().inner();
        if faulty.has_held() { Some(now) } else { faulty.inner().next_due() }
    }

    fn can_act(&self, world: &World) -> bool {
        match self.waits {
            None => true,
            Some(WorkerState::AwaitingCompletion) => self.next_due(world.now()).is_some_and(|due| due <= world.now()),
            // Like a platform's condition variable, this checks the engine and whether memory was
            // returned.
            Some(WorkerState::AwaitingCapacity) => match world.engine.borrow().readiness(RouteId(0)) {
                Readiness::Full => false,
                Readiness::NeedsBuffer(_) => world.stream_buffers().is_some_and(|stream| stream.came_back.is_up()),
                Readiness::Ready | Readiness::Exhausted => true,
            },
            Some(WorkerState::Done) => false,
        }
    }

    fn act(&mut self, world: &World) {
        if self.waits == Some(WorkerState::AwaitingCompletion) {
            self.worker.collect(world, world).expect("a simulated device always goes on");
        }
        if let Some(stream) = world.stream_buffers().filter(|_| self.waits == Some(WorkerState::AwaitingCapacity)) {
            stream.came_back.take();
        }
        self.waits = Some(self.worker.fill(world, world));
    }
}

/// A timed event.
#[derive(Debug, Clone, Copy)]
enum Event {
    Change(usize, Change),
    Cancel,
}

/// Runs a case. `keep` keeps the events of the history as text.
#[must_use]
pub fn run(case: &Case, keep: bool) -> Report {
    let mut draw = Draw::new(case.seed ^ 0x5851_f42d_4c95_7f2d);
    let history = Rc::new(RefCell::new(History::new(keep)));
    let faults = FaultState::new(case.swarm.clone(), case.script.clone());
    let storage = Rc::new(SimStorage {
        files: Rc::clone(&case.checkpoint.files),
        devices: case.devices.clone(),
        link: RefCell::new(case.link.clone()),
        tail: case.swarm.chance(FaultKind::HeavyTail),
        clock: crate::clock::Clock::default(),
        flight: RefCell::default(),
        broken_rules: RefCell::default(),
    });
    note_devices(case, &faults);
    let mut report = Report {
        result: Ok(()),
        violations: Vec::new(),
        elapsed: 0,
        history: History::default(),
        faults: FaultCounts::default(),
        retry_stats: RetryStats::default(),
        changes_detected: 0,
        reads: 0,
        bytes: 0,
        gathered: 0,
        pool: Stats::default(),
        sizes: SizeCounts::default(),
        retuned: 0,
        fallbacks: 0,
        cached_reads: 0,
        cached_gathered: 0,
        tied: 0,
    };
    match prepare(case, &storage, &faults, &history, &mut draw) {
        // It would take as long as there are bytes.
        Ok(Some(world)) if Refusals::of(case).are_sure() => {
            report.violations.extend(judge(case, &faults.borrow(), &Ok(()), Some(&world)));
        }
        Ok(Some(world)) => carry_out(case, &world, &mut draw, &mut report),
        Ok(None) => {}
        Err(error) => {
            history.borrow_mut().note(storage.clock.now(), "refused", &[code(&error)]);
            report.violations.extend(judge(case, &faults.borrow(), &Err(error.clone()), None));
            report.result = Err(error);
        }
    }
    report.elapsed = storage.clock.now();
    report.faults = faults.borrow().counts;
    report.history = history.borrow().clone();
    report
}

/// Returns a number for the reason of a refusal. With 32-bit addresses the address space may run
/// out before the memory.
fn code(error: &Error) -> u64 {
    match error {
        Error::NotEnoughMemory { .. } | Error::AddressSpace { .. } | Error::Platform { .. } => 1,
        Error::BufferTooSmall { .. } => 2,
        Error::TooManyBuffers { .. } => 3,
        _ => 4,
    }
}

/// Counts the properties of devices once per run, if they could be noticed.
fn note_devices(case: &Case, faults: &Rc<RefCell<FaultState>>) {
    let mut state = faults.borrow_mut();
    for kind in [FaultKind::MixedAlignment, FaultKind::HeavyTail, FaultKind::SlowDevice] {
        if case.swarm.has(kind) {
            state.counts.count(kind);
        }
    }
    if case.devices.iter().any(|device| device.says.is_some_and(|says| says != device.asks)) {
        state.counts.count(FaultKind::AlignmentLie);
    }
}

/// Creates the workers, with rings where possible.
fn workers(case: &Case, world: &World, draw: &mut Draw) -> Vec<WorkerActor> {
    let mut workers = Vec::new();
    for number in 0..case.workers.min(world.plan.chunks().len()) {
        let refused = world.faults.borrow_mut().strikes(FaultKind::RingRefused, draw);
        if refused && case.strict {
            world.note("ring refused", &[number as u64]);
            let (kind, message) = (ErrorKind::BackendUnavailable, "the ring was refused".to_owned());
            world.with(|engine| engine.fail(Error::Platform { kind, message }));
            continue;
        }
        // Without a ring a thread makes one read at a time.
        let max = case.max_in_flight.map_or(0, |max| (max as usize).div_ceil(case.workers));
        let depth = if refused { 1 } else { case.depth.max(max) };
        let source = SimSource::new(Rc::clone(&world.storage), depth, draw.fork());
        let faulty = Faulty::new(source, SimFaults::new(Rc::clone(&world.faults), draw.fork()));
        let watch =
            Watch { worker: number as u64, storage: Rc::clone(&world.storage), history: Rc::clone(&world.history) };
        workers.push(WorkerActor { worker: Worker::new(Traced::new(faulty, watch), RouteId(0)), waits: None });
    }
    workers
}

/// Draws a byte of a file, among the selected ones if most are not.
fn somewhere(case: &Case, file: usize, draw: &mut Draw) -> u64 {
    let bytes = case.checkpoint.files[file].byte_len();
    let small = |known: &&KnownTensor| known.file == file && (1..HUGE).contains(&known.bytes);
    let small: Vec<_> = case.checkpoint.tensors.iter().filter(small).collect();
    if bytes < HUGE || small.is_empty() {
        return draw.number(0..=bytes.saturating_sub(1));
    }
    let known = *draw.of(&small);
    known.start + draw.number(0..=known.bytes - 1)
}

/// Draws the timed events of the files and the load.
fn events(case: &Case, world: &World, draw: &mut Draw) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let mut faults = world.faults.borrow_mut();
    // Most runs end within this time.
    let span = draw.magnitude(1000..=SECOND / 5);
    for (number, file) in case.checkpoint.files.iter().enumerate() {
        if faults.strikes(FaultKind::PermanentIo, draw) && file.byte_len() > 0 {
            let start = somewhere(case, number, draw);
            faults.break_at(FileId::from_index(number).0, start, start + draw.magnitude(1..=100_000));
        }
        for kind in [FaultKind::Truncated, FaultKind::Replaced, FaultKind::Written] {
            // These occur once per load, not per read, so they are more frequent.
            if draw.chance(case.swarm.chance(kind).saturating_mul(4)) {
                let change = match kind {
                    FaultKind::Truncated => Change::Truncated(somewhere(case, number, draw)),
                    FaultKind::Replaced => Change::Replaced,
                    _ => Change::Written,
                };
                events.push((draw.number(0..=span), Event::Change(number, change)));
            }
        }
    }
    if draw.chance(case.swarm.chance(FaultKind::Cancelled).saturating_mul(4)) {
        events.push((draw.number(0..=span), Event::Cancel));
    }
    events.sort_by_key(|(time, _)| *time);
    events
}

/// The next actor.
#[derive(Debug, Clone, Copy)]
enum Actor {
    Worker(usize),
    Consumer,
    Competitor(usize),
}

fn carry_out(case: &Case, world: &World, draw: &mut Draw, report: &mut Report) {
    let alignment = case.tensor_alignment.as_u64();
    let mut events = events(case, world, draw);
    let mut workers = workers(case, world, draw);
    let mut consumer = ConsumerActor::new(world, &case.job, alignment, draw.fork());
    let competitors = if consumer.is_some() { case.competitors.count } else { 0 };
    let mut competitors: Vec<Competitor<'_>> = (1..=competitors)
        .map(|who| Competitor::new(world, who, case.competitors.rounds, case.competitors.time, draw.fork()))
        .collect();
    let mut turns = 0_u64;
    let mut actors: Vec<Actor> = Vec::new();
    loop {
        turns += 1;
        while let Some(&(time, event)) = events.first().filter(|(time, _)| *time <= world.now()) {
            events.remove(0);
            happen(case, world, time, event);
        }
        let workers_done = workers.iter().all(|worker| worker.waits == Some(WorkerState::Done));
        if workers_done && consumer.as_ref().is_none_or(ConsumerActor::is_done) {
            break;
        }
        actors.clear();
        actors.extend((0..workers.len()).filter(|&i| workers[i].can_act(world)).map(Actor::Worker));
        actors.extend(consumer.iter().filter(|consumer| consumer.can_act()).map(|_| Actor::Consumer));
        actors.extend((0..competitors.len()).filter(|&i| competitors[i].can_act()).map(Actor::Competitor));
        if actors.is_empty() {
            let now = world.now();
            let next = [
                workers.iter().filter_map(|worker| worker.next_due(now)).min(),
                consumer.as_ref().and_then(ConsumerActor::next_due),
                competitors.iter().filter_map(Competitor::next_due).min(),
                events.first().map(|(time, _)| *time),
            ];
            let Some(next) = next.into_iter().flatten().min() else {
                world.violated("nobody can go on, and the load is not over");
                break;
            };
            world.storage.clock.advance_to(next);
        } else {
            match *draw.of(&actors) {
                Actor::Worker(i) => workers[i].act(world),
                Actor::Consumer => consumer.as_mut().map_or((), ConsumerActor::act),
                Actor::Competitor(i) => competitors[i].act(),
            }
            world.check_rules();
        }
        if turns > MAX_TURNS || world.now() > case.deadline {
            world.violated(format!("the load does not end: {turns} turns, {} ms", world.now() / 1_000_000));
            break;
        }
        if !world.violations.borrow().is_empty() {
            break;
        }
    }
    let ended = conclude(world, consumer.as_ref(), alignment);
    let violations = judge(case, &world.faults.borrow(), &ended, Some(world));
    competitors.iter_mut().for_each(Competitor::end);
    drop((competitors, consumer, workers));
    world.close();
    report.violations = world.violations.take();
    report.violations.extend(violations);
    if report.violations.is_empty() {
        report.violations.extend(left_over(case, world));
    }
    let engine = world.engine.borrow();
    report.changes_detected = u64::from(matches!(&ended, Err(Error::Platform { kind: ErrorKind::Changed, .. })));
    report.retry_stats = engine.retry_stats();
    report.bytes = engine.progress().bytes_done;
    report.gathered = world.gathered.get();
    report.pool = world.stream_buffers().map(|stream| stream.pool.stats(0, 0)).unwrap_or_default();
    let many = |bytes: u64| bytes >= 16 * case.chunk_bytes;
    let delivered = world.delivered.borrow();
    report.sizes = SizeCounts {
        far_reads: world.faults.borrow().far_reads(),
        many_reads: (0..world.plan.placements().len()).filter(|&index| many(world.plan.byte_len(index))).count() as u64,
        parts: delivered.parts_of_tensors,
        own_buffers: delivered.own_buffers,
    };
    report.retuned = world.retuned.get();
    report.fallbacks = world.fallbacks.get();
    let beside = |chunk: &&Chunk| {
        chunk.method == Method::Buffered && world.plan.extents()[chunk.extent.index()].method == Method::Direct
    };
    let beside = || world.plan.chunks().iter().filter(beside);
    report.cached_reads = beside().count() as u64;
    let placements = world.plan.placements();
    let tied =
        |pair: &&[Placement]| pair[0].range == pair[1].range && world.catalog.are_tied(pair[0].tensor, pair[1].tensor);
    report.tied = placements.windows(2).filter(tied).count() as u64;
    report.cached_gathered = beside().filter(|chunk| chunk.gathered).count() as u64;
    report.result = ended;
    report.reads = world.faults.borrow().reads();
    world.note("ended", &[u64::from(report.result.is_ok()), report.bytes]);
}

fn happen(case: &Case, world: &World, time: u64, event: Event) {
    match event {
        Event::Change(number, change) => {
            let (what, kind) = match change {
                Change::Truncated(_) => ("file truncated", FaultKind::Truncated),
                Change::Replaced => ("file replaced", FaultKind::Replaced),
                Change::Written => ("file written", FaultKind::Written),
            };
            world.faults.borrow_mut().counts.count(kind);
            world.note(what, &[number as u64]);
            case.checkpoint.files[number].change(change, time);
        }
        Event::Cancel => {
            world.faults.borrow_mut().counts.count(FaultKind::Cancelled);
            world.note("cancelled", &[]);
            world.with(floodtide_core::Engine::cancel);
        }
    }
}

/// Decides how the load ended for its caller, like a platform's last step.
fn conclude(world: &World, consumer: Option<&ConsumerActor<'_>>, alignment: u64) -> Result<(), Error> {
    if let Some(consumer) = consumer {
        let unended = Err(Error::Contract { what: "the consumer never came to an end" });
        consumer.end.clone().unwrap_or(unended)?;
    }
    world.with(|engine| engine.result())?;
    world.verification.as_ref().map_or(Ok(()), Verification::finish)?;
    world.check_versions()?;
    let whole = world.check_arena(alignment).and_then(|()| match world.stream_buffers() {
        Some(_) => world.check_delivered(),
        None => Ok(()),
    });
    if let Err(difference) = whole {
        world.violated(format!("the load succeeded, but {difference}"));
    }
    Ok(())
}

/// Checks that everything was returned at the end.
fn left_over(case: &Case, world: &World) -> Vec<String> {
    let mut violations = Vec::new();
    let flight = world.storage.flight.borrow();
    if !flight.is_empty() {
        violations.push("reads are in flight after the end".to_owned());
    }
    let engine = world.engine.borrow();
    if engine.in_flight() > 0 || engine.in_flight_bytes() > 0 {
        violations.push(format!("the engine counts {} bytes in flight after the end", engine.in_flight_bytes()));
    }
    let largest = world.plan.chunks().iter().map(|chunk| chunk.buffer_range.len() as u64).max().unwrap_or(0);
    if flight.peak() > case.in_flight_limit.max(largest) {
        violations.push(format!("{} bytes were in flight, over the limit of {}", flight.peak(), case.in_flight_limit));
    }
    if let Some(stream) = world.stream_buffers() {
        let stats = stream.pool.stats(0, 0);
        if stats.lent > 0 || stream.pool.has_waiters() {
            violations.push(format!("{} bytes of the pool are lent after the end", stats.lent));
        }
    }
    violations
}
