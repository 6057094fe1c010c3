//! The report of a load.

use super::{LoadTask, Provider};
use crate::report::{Report, RouteReport};
use crate::warning::Warning;
use floodtide_core::strategy::Decision;
use floodtide_core::{EngineHandle, Escaped, Event, FileId};

impl<P: Provider> LoadTask<P> {
    /// Returns the report of a finished load.
    pub(crate) fn report(&self, more_warnings: Vec<Warning>, locked_bytes: u64) -> Report {
        let planned = &self.planned;
        let refused: Vec<FileId> = self.with(|engine| {
            let events = std::iter::from_fn(|| engine.poll_event());
            events.filter_map(|event| if let Event::DirectRefused(file) = event { Some(file) } else { None }).collect()
        });
        for file in refused {
            let name = Escaped(planned.files.get(file).name());
            let why = format!("{name} refused direct reads, so it was read through the page cache");
            let route = planned.strategy.route_of[file.index()];
            self.note(Decision::new("fallback", why).of_route(route));
        }
        let decisions = planned.strategy.decisions.iter().chain(&*self.decisions.lock()).cloned().collect();
        let mapped: u64 = planned.plan.mapped().iter().map(|(_, range)| range.len()).sum();
        let report = Report {
            format: planned.catalog.format(),
            files: planned.files.len(),
            tensors: planned.plan.placements().len(),
            bytes: planned.plan.selected_bytes(),
            read_bytes: planned.plan.read_bytes() + mapped,
            elapsed: planned.started.elapsed(),
            backend: planned.strategy.main_route().backend,
            routes: RouteReport::all(&planned.strategy, planned.files.iter().map(|file| file.name())),
            decisions,
            warnings: planned.warnings.iter().cloned().chain(more_warnings).collect(),
            locked_bytes,
            verified: planned.verification.is_some(),
            memory_limit: None,
        };
        tracing::debug!(bytes = report.bytes, elapsed = ?report.elapsed, backend = %report.backend, "loaded");
        report
    }
}
