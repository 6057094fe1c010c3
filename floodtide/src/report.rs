//! How a load or a stream went.

use floodtide_core::FormatId;
use floodtide_core::strategy::{Backend, Decision};
use std::time::Duration;

/// How a load went.
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
    /// The checkpoint's format.
    pub format: FormatId,
    /// The number of its files.
    pub files: usize,
    /// The number of tensors loaded.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes that were read for that, or are viewed in mapped files.
    pub read_bytes: u64,
    /// From the call to the last byte, headers included.
    pub elapsed: Duration,
    /// What read.
    pub backend: Backend,
    /// What was decided, and why, with everything that was refused on the way.
    pub decisions: Vec<Decision>,
    /// What a user should know although the load is complete.
    pub warnings: Vec<String>,
    /// The bytes locked in memory; 0 unless that was asked for and granted.
    pub locked_bytes: u64,
    /// Whether every byte was checked against a manifest.
    pub verified: bool,
    /// Of a stream: the bytes that all its buffers together might have.
    pub memory_limit: Option<u64>,
}

impl Report {
    /// Returns the reasons of all [decisions](Self::decisions) as one text.
    #[must_use]
    pub fn reason(&self) -> String {
        Decision::join(&self.decisions)
    }
}
