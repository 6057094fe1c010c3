//! Applies what a load learns while it runs: how many reads to keep in flight, and whether to
//! continue with direct reads. Core decides, from the completions; this module applies the
//! decisions and reports them to the trace.

use super::{LoadTask, Provider};
use floodtide_core::direct_io_fallback::{DirectIoFallback, FallbackDecision, ProbeWindow};
use floodtide_core::strategy::{Decision, Route};
use floodtide_core::tune::Tuner;
use floodtide_core::{Engine, EngineHandle, HumanBytes, Plan, RouteId};
use floodtide_linux::probe;
use floodtide_memory::sync::Ordering;

fn as_reads(reads: usize) -> u32 {
    u32::try_from(reads).unwrap_or(u32::MAX)
}

fn gathers(plan: &Plan) -> bool {
    plan.chunks().iter().any(|chunk| chunk.gathered)
}

/// The tuner and the fallback of one route.
#[derive(Debug)]
pub(super) struct Tuning {
    tuner: Tuner,
    fallback: DirectIoFallback,
}

impl Tuning {
    /// Creates them with the strategy's values.
    pub(super) fn new(route: &Route, plan: &Plan) -> Self {
        let (start, max) = route.in_flight(gathers(plan));
        let min = if max > start { route.workers.max(1).min(probe::cpus()) } else { start };
        let tuner = Tuner::new(as_reads(start), as_reads(min), as_reads(max));
        Self { tuner, fallback: DirectIoFallback::new(route.profiled_direct_rate, ProbeWindow::default()) }
    }

    /// Sets the engine's initial number of reads in flight.
    pub(super) fn begin(&self, id: RouteId, route: &Route, engine: &mut Engine) {
        let window = self.window();
        let share = window.div_ceil(as_reads(route.workers.max(1)));
        engine.set_window(id, window_bytes(route, window), share as usize);
    }

    pub(super) fn window(&self) -> u32 {
        self.tuner.window()
    }
}

/// Returns the limit of bytes in flight for a number of reads. A direct read is longer than its
/// chunk by less than the alignment, so one page for each suffices.
fn window_bytes(route: &Route, reads: u32) -> u64 {
    u64::from(reads).saturating_mul(route.chunk_bytes.saturating_add(4096))
}

impl<P: Provider> LoadTask<P> {
    /// Reports completed bytes of a route to the tuner and the fallback, and applies their decisions.
    pub(super) fn tune(&self, id: RouteId, bytes: u64) {
        let now = u64::try_from(self.planned.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (route, state) = (&self.planned.strategy.routes[id.index()], &self.routes[id.index()]);
        // Locked until the engine has the decision, so that two decisions keep their order.
        let mut tuning = state.tuning.lock();
        if !tuning.fallback.is_over() {
            let in_flight = self.with(|engine| engine.in_flight_bytes());
            if let Some(decision) = tuning.fallback.on_completion(now, bytes, in_flight) {
                self.apply(id, decision);
            }
        }
        let Some(window) = tuning.tuner.on_completion(now, bytes) else { return };
        let share = if route.queues() {
            window.div_ceil(as_reads(route.workers.max(1))) as usize
        } else {
            state.target_threads.fetch_max(window as usize, Ordering::Relaxed);
            1
        };
        self.with(|engine| engine.set_window(id, window_bytes(route, window), share));
        tracing::debug!(window, "changed the number of reads in flight");
        if let Some(trace) = self.planned.phases.trace() {
            trace.tuned(window, tuning.tuner.bytes_per_second());
        }
    }

    /// Applies a decision about direct reads, and records it if it is final.
    fn apply(&self, id: RouteId, decision: FallbackDecision) {
        let rate = HumanBytes;
        let profiled = self.planned.strategy.routes[id.index()].profiled_direct_rate.unwrap_or(0);
        let buffered = !matches!(decision, FallbackDecision::Back(_));
        self.with(|engine| engine.set_buffered(id, buffered));
        if let FallbackDecision::Keep(compared) | FallbackDecision::Back(compared) = decision {
            let then = if buffered { "so the rest was read through it" } else { "so the rest was read directly again" };
            let why = format!(
                "direct reads reached {}/s, and the profile has {}/s; reads through the page cache reached {}/s, {then}",
                rate(compared.direct),
                rate(profiled),
                rate(compared.buffered)
            );
            self.note(Decision::new("fallback", why).of_route(id));
        }
        tracing::debug!(?decision, "changed the read method");
        if let Some(trace) = self.planned.phases.trace() {
            trace.fell_back(decision);
        }
    }
}
