//! The measured profile of a device.

use alloc::string::String;
use alloc::vec::Vec;

/// The measured profile of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The device in words, for reasons.
    pub device: String,
    /// The best reads by kind. Kinds that could not be measured are missing.
    pub best: Vec<BestReads>,
}

/// The fastest reads of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BestReads {
    /// Whether they went through a ring. If not, threads made them.
    pub ring: bool,
    /// Whether they were direct. If not, they were buffered reads of uncached files.
    pub direct: bool,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The total number of reads in flight.
    pub in_flight: usize,
    /// The rate in bytes per second.
    pub bytes_per_second: u64,
}

/// The relative rate from which two measurements count as equal.
const RATE_TOLERANCE: f64 = 0.95;
/// The size below which a smaller read no longer costs less bookkeeping.
const MIN_READ_COST_BYTES: u64 = 1 << 20;
impl BestReads {
    /// Chooses the best of several measurements: of the fastest, the one with the fewest bytes in
    /// flight.
    #[must_use]
    pub fn choose(measured: impl IntoIterator<Item = Self> + Clone) -> Option<Self> {
        let fastest = measured.clone().into_iter().map(|reads| reads.bytes_per_second).max()?;
        let as_fast = |reads: &Self| reads.bytes_per_second as f64 >= fastest as f64 * RATE_TOLERANCE;
        let cost = |reads: &Self| {
            let bytes = reads.chunk_bytes.max(MIN_READ_COST_BYTES).saturating_mul(reads.in_flight as u64);
            (bytes, u64::MAX - reads.bytes_per_second)
        };
        measured.into_iter().filter(as_fast).min_by_key(cost)
    }
}

impl Profile {
    /// Returns the best reads of this kind, or those of the other engine if this one was not
    /// measured.
    #[must_use]
    pub fn reads(&self, ring: bool, direct: bool) -> Option<&BestReads> {
        let way = || self.best.iter().filter(|reads| reads.direct == direct);
        way().find(|reads| reads.ring == ring).or_else(|| way().next())
    }

    pub(crate) fn fastest(&self, direct: bool) -> Option<u64> {
        self.best.iter().filter(|reads| reads.direct == direct).map(|reads| reads.bytes_per_second).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn reads(ring: bool, direct: bool, mib: u64, in_flight: usize, mib_per_second: u64) -> BestReads {
        BestReads { ring, direct, chunk_bytes: mib * MIB, in_flight, bytes_per_second: mib_per_second * MIB }
    }

    #[test]
    fn of_those_that_are_as_fast_the_cheapest_is_chosen() {
        let measured = [
            reads(true, true, 1, 1, 500),
            reads(true, true, 1, 8, 960),
            reads(true, true, 1, 32, 1000),
            reads(true, true, 16, 8, 990),
        ];
        assert_eq!(BestReads::choose(measured), Some(measured[1]));
        let tiny = BestReads { chunk_bytes: 64 << 10, in_flight: 8, ..measured[1] };
        let faster = BestReads { bytes_per_second: 970 * MIB, ..measured[1] };
        assert_eq!(BestReads::choose([tiny, faster]), Some(faster), "a tiny read is not cheaper");
        assert_eq!(BestReads::choose([]), None);
    }
}
