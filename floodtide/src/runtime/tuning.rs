//! What a load learns while it runs: how many reads it keeps in flight, and whether to go on past the page cache. Core decides, from what
//! lands and when; this carries it out and tells the trace.

use super::{LoadBuffers, LoadTask, as_reads, gathers};
use floodtide_core::direct_io_fallback::{DirectIoFallback, FallbackDecision, ProbeWindow};
use floodtide_core::strategy::{Backend, Strategy};
use floodtide_core::tune::Tuner;
use floodtide_core::{Engine, EngineHandle, HumanBytes, Plan};
use floodtide_linux::probe;
use floodtide_memory::sync::Ordering;

/// What decides while a load runs.
#[derive(Debug)]
pub(super) struct Tuning {
    tuner: Tuner,
    fallback: DirectIoFallback,
}

impl Tuning {
    /// Begins with what the strategy says.
    pub(super) fn new(strategy: &Strategy, plan: &Plan) -> Self {
        let (start, max) = strategy.in_flight(gathers(plan));
        let min = if max > start { strategy.workers.max(1).min(probe::cpus()) } else { start };
        let tuner = Tuner::new(as_reads(start), as_reads(min), as_reads(max));
        Self { tuner, fallback: DirectIoFallback::new(strategy.profiled_direct_rate, ProbeWindow::default()) }
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

impl<S: LoadBuffers> LoadTask<S> {
    /// Tells what decides that so much has landed, and does as it says.
    pub(super) fn tune(&self, bytes: u64) {
        let now = u64::try_from(self.planned.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Locked until the engine has it, so that two answers do not overtake one another.
        let mut tuning = self.tuning.lock();
        if !tuning.fallback.is_over() {
            let in_flight = self.with(|engine| engine.in_flight_bytes());
            if let Some(decision) = tuning.fallback.landed(now, bytes, in_flight) {
                self.follow(decision);
            }
        }
        let Some(window) = tuning.tuner.landed(now, bytes) else { return };
        let strategy = &self.planned.strategy;
        let share = match strategy.backend {
            Backend::Uring => window.div_ceil(as_reads(strategy.workers.max(1))) as usize,
            _ => {
                self.target_threads.fetch_max(window as usize, Ordering::Relaxed);
                1
            }
        };
        self.with(|engine| engine.set_window(window_bytes(strategy, window), share));
        tracing::debug!(window, "other reads in flight");
        if let Some(trace) = self.planned.phases.trace() {
            trace.tuned(window, tuning.tuner.bytes_per_second());
        }
    }

    fn follow(&self, decision: FallbackDecision) {
        let rate = HumanBytes;
        let expected = self.planned.strategy.profiled_direct_rate.unwrap_or(0);
        let buffered = !matches!(decision, FallbackDecision::Back(_));
        self.with(|engine| engine.set_buffered(buffered));
        if let FallbackDecision::Keep(compared) | FallbackDecision::Back(compared) = decision {
            let then = if buffered { "so the rest was read so" } else { "so the rest was read past it again" };
            self.note(format!(
                "direct reads brought {}/s, where the profile has {}/s; through the page cache it was {}/s, {then}",
                rate(compared.direct),
                rate(expected),
                rate(compared.buffered)
            ));
        }
        tracing::debug!(?decision, "another way to read");
        if let Some(trace) = self.planned.phases.trace() {
            trace.fell_back(decision);
        }
    }
}
