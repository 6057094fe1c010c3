//! The totals of many runs.

use floodtide_core::format::{safetensors::HeaderError, serverlessllm::ServerlessLlmError};
use floodtide_sim::Report;
use floodtide_sim::faults::{FaultCounts, FaultKind};
use std::fmt;

/// The totals of many runs. Adding is commutative, so threads may share the seeds.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    runs: u64,
    succeeded: u64,
    reads: u64,
    bytes: u64,
    events: u64,
    virtual_seconds: u64,
    faults: FaultCounts,
    paths: [u64; PATHS.len()],
    pub(crate) digest: u64,
}

/// The paths of a run: recoveries, sizes and endings.
const PATHS: [&str; 28] = [
    "short read resumed",
    "read retried",
    "buffered fallback",
    "direct reads given up",
    "re-aligned",
    "truncation reported",
    "change detected",
    "cancelled",
    "waiter cancelled",
    "pool waited for",
    "header refused",
    "read beyond 4 GiB",
    "tensor of many reads",
    "tensor in parts",
    "buffer of its own",
    "not enough memory",
    "buffer too small",
    "too many buffers",
    "reads in flight tuned",
    "fallback to buffered reads",
    "cached part copied",
    "chunks gathered",
    "cached chunks gathered",
    "slice refused",
    "wrong bytes found",
    "slice not verified",
    "ServerlessLLM index refused",
    "tied tensor",
];

/// Paths that only verified loads take, and paths that they never take, because slices are not
/// verified.
const VERIFIED: [&str; 2] = ["wrong bytes found", "slice not verified"];
const UNVERIFIED: [&str; 2] = ["chunks gathered", "cached chunks gathered"];

/// Returns true if a run ended with an error of this parser.
fn breaks_rule_of<E: core::error::Error + 'static>(report: &Report) -> bool {
    matches!(&report.result, Err(floodtide_core::Error::Format { source, .. }) if source.downcast_ref::<E>().is_some())
}

impl Totals {
    /// Adds a run.
    pub(crate) fn count(&mut self, seed: u64, report: &Report) {
        use floodtide_core::Error;
        self.runs += 1;
        self.succeeded += u64::from(report.result.is_ok());
        self.reads += report.reads;
        self.bytes += report.bytes;
        self.events += report.history.events();
        self.virtual_seconds += report.elapsed / 1_000_000_000;
        self.faults.add(&report.faults);
        let retry_stats = report.retry_stats;
        let reached = [
            retry_stats.resumed,
            retry_stats.retried,
            retry_stats.buffered,
            retry_stats.direct_disabled,
            retry_stats.realigned,
            retry_stats.truncated,
            report.changes_detected,
            u64::from(report.result == Err(Error::Cancelled)),
            report.faults.of(FaultKind::WaiterCancelled),
            report.pool.waits,
            u64::from(breaks_rule_of::<HeaderError>(report)),
            report.sizes.far_reads,
            report.sizes.many_reads,
            report.sizes.parts,
            report.sizes.own_buffers,
            u64::from(matches!(report.result, Err(Error::NotEnoughMemory { .. }))),
            u64::from(matches!(report.result, Err(Error::BufferTooSmall { .. }))),
            u64::from(matches!(report.result, Err(Error::TooManyBuffers { .. }))),
            report.retuned,
            report.fallbacks,
            report.cached_reads,
            report.gathered,
            report.cached_gathered,
            u64::from(matches!(report.result, Err(Error::SliceDim { .. } | Error::SliceBytes { .. }))),
            u64::from(matches!(report.result, Err(Error::Mismatch { .. }))),
            u64::from(matches!(report.result, Err(Error::SliceUnverifiable { .. }))),
            u64::from(breaks_rule_of::<ServerlessLlmError>(report)),
            report.tied,
        ];
        self.paths.iter_mut().zip(reached).for_each(|(sum, reached)| *sum += reached);
        // Each digest is scrambled with its seed, so that swapping two changes the sum.
        let rotation = (seed % (1 << 32) % 63) as u32;
        self.digest =
            self.digest.wrapping_add(report.history.digest().rotate_left(rotation).wrapping_mul(2 * seed + 1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.succeeded += other.succeeded;
        self.reads += other.reads;
        self.bytes += other.bytes;
        self.events += other.events;
        self.virtual_seconds += other.virtual_seconds;
        self.faults.add(&other.faults);
        self.paths.iter_mut().zip(other.paths).for_each(|(mine, theirs)| *mine += theirs);
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// Returns the faults and paths that should have occurred but did not.
    pub(crate) fn unreached(&self, verify: bool) -> Vec<&'static str> {
        let corrupted = verify.then_some(FaultKind::Corrupted);
        let faults = FaultKind::drawn().chain(corrupted).filter(|&kind| self.faults.of(kind) == 0);
        let faults = faults.map(FaultKind::name);
        let not_taken = if verify { UNVERIFIED } else { VERIFIED };
        let paths = PATHS.iter().zip(self.paths).filter(|(path, count)| *count == 0 && !not_taken.contains(path));
        let paths = paths.map(|(path, _)| *path);
        faults.chain(paths).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "runs         {}, of which {} succeeded", self.runs, self.succeeded)?;
        writeln!(f, "reads        {} of {} bytes that arrived", self.reads, self.bytes)?;
        writeln!(f, "events       {} in {} s of virtual time", self.events, self.virtual_seconds)?;
        writeln!(f, "faults")?;
        for &kind in FaultKind::ALL {
            writeln!(f, "  {:22} {}", kind.name(), self.faults.of(kind))?;
        }
        writeln!(f, "paths")?;
        for (path, count) in PATHS.iter().zip(self.paths) {
            writeln!(f, "  {path:22} {count}")?;
        }
        writeln!(f, "digest       {:016x}", self.digest)
    }
}
