//! How a load or a stream went.

use crate::warning::Warning;
use floodtide_core::FormatId;
use floodtide_core::strategy::{Backend, Decision, Strategy};
use std::time::Duration;

/// The report of a load or stream.
///
/// ```no_run
/// use floodtide::Loader;
///
/// let tensors = Loader::new().load("/models/qwen3")?;
/// let report = tensors.report();
/// println!("{} bytes in {:?} by {}", report.bytes, report.elapsed, report.backend);
/// for decision in &report.decisions {
///     println!("{}: {}", decision.what, decision.why);
/// }
/// # Ok::<(), floodtide::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The format of the checkpoint.
    pub format: FormatId,
    /// The number of files.
    pub files: usize,
    /// The number of loaded tensors.
    pub tensors: usize,
    /// The bytes of these tensors.
    pub bytes: u64,
    /// The bytes that were read for them, or that are viewed in mapped files.
    pub read_bytes: u64,
    /// The time from the call to the last byte, headers included.
    pub elapsed: Duration,
    /// The backend that read. If there are several routes, this is the one that read the most
    /// files.
    pub backend: Backend,
    /// The routes: one for each device or storage that holds files of the checkpoint.
    pub routes: Vec<RouteReport>,
    /// The decisions and their reasons, including everything that the system refused.
    pub decisions: Vec<Decision>,
    /// Warnings about a complete load.
    pub warnings: Vec<Warning>,
    /// The bytes locked in memory; 0 unless requested and granted.
    pub locked_bytes: u64,
    /// Whether every byte was checked against a manifest.
    pub verified: bool,
    /// The memory limit of a stream in bytes; `None` for a load.
    pub memory_limit: Option<u64>,
}

/// The files that a load reads in the same way: those on one device or in one storage.
///
/// A [`Decision`] names the route that it concerns by its index.
///
/// ```no_run
/// use floodtide::Loader;
///
/// let tensors = Loader::new().load_files(["/models/a.safetensors", "/mnt/b.safetensors"])?;
/// let report = tensors.report();
/// for decision in &report.decisions {
///     let files = decision.route.map(|route| &report.routes[route.index()].files);
///     println!("{decision} ({files:?})");
/// }
/// # Ok::<(), floodtide::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteReport {
    /// The backend.
    pub backend: Backend,
    /// The names of the files.
    pub files: Vec<String>,
}

impl RouteReport {
    /// Creates the report of a route.
    #[must_use]
    pub fn new(backend: Backend, files: Vec<String>) -> Self {
        Self { backend, files }
    }

    /// Returns the routes of a strategy, given the names of all files.
    pub(crate) fn all<'a>(strategy: &Strategy, names: impl Iterator<Item = &'a str>) -> Vec<Self> {
        let mut routes: Vec<Self> = strategy.routes.iter().map(|route| Self::new(route.backend, Vec::new())).collect();
        for (name, &route) in names.zip(&strategy.route_of) {
            routes[route.index()].files.push(name.to_owned());
        }
        routes
    }
}

impl Report {
    /// Returns the reasons of all [decisions](Self::decisions) as one text.
    #[must_use]
    pub fn reason(&self) -> String {
        Decision::join(&self.decisions)
    }
}
