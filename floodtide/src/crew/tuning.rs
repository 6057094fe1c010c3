//! What a load learns while it runs: how many reads it keeps in flight, and whether to go on past the page cache. Core decides, from what
//! lands and when; this carries it out and tells the trace.

use super::{Crew, Supply, as_reads, gathers};
use floodtide_core::detour::{Detour, Detoured, Spans};
use floodtide_core::strategy::{Backend, Strategy};
use floodtide_core::tune::Tuner;
use floodtide_core::{Engine, EngineHandle, HumanBytes, Plan};
use floodtide_linux::probe;
use floodtide_memory::sync::Ordering;

/// What decides while a load runs.
#[derive(Debug)]
pub(super) struct Tuning {
    tuner: Tuner,
    detour: Detour,
}

impl Tuning {
    /// Begins with what the strategy says.
    pub(super) fn new(strategy: &Strategy, plan: &Plan) -> Self {
        let (start, most) = strategy.in_flight(gathers(plan));
        let least = if most > start { strategy.workers.max(1).min(probe::cpus()) } else { start };
        let tuner = Tuner::new(as_reads(start), as_reads(least), as_reads(most));
        Self { tuner, detour: Detour::new(strategy.expected, Spans::default()) }
    }

    /// Gives an engine the first number of reads in flight.
    pub(super) fn begin(&self, strategy: &Strategy, engine: &mut Engine) {
        let window = self.window();
        let share = window.div_ceil(as_reads(strategy.workers.max(1)));
        engine.set_window(window_bytes(strategy, window), share as usize);
    }

    pub(super) fn window(&self) -> u32 {
        self.tuner.window()
    }
}

/// The bytes that so many reads may have in flight. A direct read is up to one alignment longer than a chunk; a page each is more
/// than enough.
fn window_bytes(strategy: &Strategy, reads: u32) -> u64 {
    u64::from(reads).saturating_mul(strategy.chunk_bytes.saturating_add(4096))
}

impl<S: Supply> Crew<S> {
    /// Tells what decides that so much has landed, and does as it says.
    pub(super) fn tune(&self, bytes: u64) {
        let now = u64::try_from(self.prepared.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Locked until the engine has it, so that two answers do not overtake one another.
        let mut tuning = self.tuning.lock();
        if !tuning.detour.is_over() {
            let in_flight = self.with(|engine| engine.in_flight_bytes());
            if let Some(turn) = tuning.detour.landed(now, bytes, in_flight) {
                self.turn(turn);
            }
        }
        let Some(window) = tuning.tuner.landed(now, bytes) else { return };
        let strategy = &self.prepared.strategy;
        let share = match strategy.backend {
            Backend::Uring => window.div_ceil(as_reads(strategy.workers.max(1))) as usize,
            _ => {
                self.wanted.fetch_max(window as usize, Ordering::Relaxed);
                1
            }
        };
        self.with(|engine| engine.set_window(window_bytes(strategy, window), share));
        tracing::debug!(window, "other reads in flight");
        if let Some(trace) = self.prepared.phases.trace() {
            trace.tuned(window, tuning.tuner.bytes_per_second());
        }
    }

    fn turn(&self, turn: Detoured) {
        let rate = HumanBytes;
        let expected = self.prepared.strategy.expected.unwrap_or(0);
        let through_cache = !matches!(turn, Detoured::Back(_));
        self.with(|engine| engine.set_through_cache(through_cache));
        if let Detoured::Keep(compared) | Detoured::Back(compared) = turn {
            let then = if through_cache { "so the rest was read so" } else { "so the rest was read past it again" };
            let why = format!(
                "direct reads brought {}/s, where the profile has {}/s; through the page cache it was {}/s, {then}",
                rate(compared.direct),
                rate(expected),
                rate(compared.buffered)
            );
            self.note("reads", why);
        }
        tracing::debug!(?turn, "another way to read");
        if let Some(trace) = self.prepared.phases.trace() {
            trace.turned(turn);
        }
    }
}
