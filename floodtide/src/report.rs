//! How a load or a stream went.

use floodtide_core::FormatId;
use floodtide_core::strategy::{Backend, Decision};
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
    /// The backend that read.
    pub backend: Backend,
    /// The decisions and their reasons, including everything that the system refused.
    pub decisions: Vec<Decision>,
    /// Warnings about a complete load.
    pub warnings: Vec<String>,
    /// The bytes locked in memory; 0 unless requested and granted.
    pub locked_bytes: u64,
    /// Whether every byte was checked against a manifest.
    pub verified: bool,
    /// The memory limit of a stream in bytes; `None` for a load.
    pub memory_limit: Option<u64>,
}

impl Report {
    /// Returns the reasons of all [decisions](Self::decisions) as one text.
    #[must_use]
    pub fn reason(&self) -> String {
        Decision::join(&self.decisions)
    }
}
