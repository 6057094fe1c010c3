//! What was measured of a device: its best reads of each way.

use alloc::string::String;
use alloc::vec::Vec;

/// A device as it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The device in words, for the reason.
    pub device: String,
    /// The best reads of each way that was measured; a way that could not be is not there.
    pub best: Vec<BestReads>,
}

/// The reads that served one way of reading best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BestReads {
    /// Through a ring, or by threads.
    pub ring: bool,
    /// Past the page cache, or through it from a cold device.
    pub direct: bool,
    /// The size of a read in bytes.
    pub chunk_bytes: u64,
    /// The reads in flight in all.
    pub in_flight: usize,
    /// The rate that they reached.
    pub bytes_per_second: u64,
}

/// Rates that differ by less are the same to a measurement.
const RATE_TOLERANCE: f64 = 0.95;
/// A smaller read costs as much bookkeeping as one of this size, so it is not taken for being small.
const MIN_READ_COST_BYTES: u64 = 1 << 20;
impl BestReads {
    /// Of measurements of one way, the one to read by: of those that are as fast as the fastest, the one with the fewest bytes in flight.
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
    /// The best reads of this way; of the other engine's where this one's were not measured.
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
