//! Gives up direct I/O during a load if the device is far slower than its profile.
//!
//! A profile may be outdated: other programs may use the device, or the storage under it may have
//! changed. If direct reads stay below [`MIN_RATE_PERCENT`] of their measured rate, the load tries
//! buffered reads for a while and keeps the faster of the two. It does so at most once. Without a
//! profile there is no expectation, and nothing is tried.
//!
//! Like the [`tune`](crate::tune) module, it knows no clock. Times are nanoseconds from an
//! arbitrary point.

use crate::tune::{percent, rate};

/// The rate below which buffered reads are tried, in percent of the measured rate.
pub const MIN_RATE_PERCENT: u64 = 70;
/// The minimum gain of buffered reads in percent. They cost a copy and evict other files from the
/// page cache.
const MIN_GAIN_PERCENT: u64 = 25;

/// The number of bytes over which rates are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeWindow {
    /// The window for direct reads.
    ///
    /// The first half is ignored, because the number of reads in flight is still being tuned. Then
    /// each quarter is measured. Two in a row must be slow, so that the second is slow from its
    /// start.
    pub direct_bytes: u64,
    /// The window for buffered reads.
    pub buffered_bytes: u64,
}

/// 256 MiB of direct reads, 64 MiB of buffered ones.
impl Default for ProbeWindow {
    fn default() -> Self {
        Self { direct_bytes: 256 << 20, buffered_bytes: 64 << 20 }
    }
}

/// The measured rates in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComparedRates {
    /// The rate of direct reads.
    pub direct: u64,
    /// The rate of buffered reads.
    pub buffered: u64,
}

/// How to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackDecision {
    /// Try buffered reads and measure them.
    Try,
    /// Keep the buffered reads.
    Keep(ComparedRates),
    /// Return to direct reads.
    Back(ComparedRates),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Measuring direct reads. `since` is set after the first half of a window. `slow` is the
    /// result of the previous quarter.
    Watching {
        bytes: u64,
        since: Option<u64>,
        slow: bool,
    },
    /// Waiting for the reads that were started before the switch.
    Draining {
        direct: u64,
        bytes: u64,
    },
    /// Measuring buffered reads.
    Trying {
        direct: u64,
        bytes: u64,
        since: u64,
    },
    Over,
}

/// Watches the direct reads of a load.
#[derive(Debug, Clone)]
pub struct DirectIoFallback {
    /// The rate of direct reads in the profile.
    profiled_direct_rate: u64,
    window: ProbeWindow,
    phase: Phase,
}

impl DirectIoFallback {
    /// Creates a watcher. `None` for the rate means that nothing is expected or tried.
    #[must_use]
    pub fn new(profiled_direct_rate: Option<u64>, window: ProbeWindow) -> Self {
        let phase = if profiled_direct_rate.is_some() {
            Phase::Watching { bytes: 0, since: None, slow: false }
        } else {
            Phase::Over
        };
        Self { profiled_direct_rate: profiled_direct_rate.unwrap_or(0), window, phase }
    }

    /// Returns true if nothing is left to decide.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Records a read of `bytes` bytes that completed at `now`, in nanoseconds, with at most
    /// `in_flight` bytes in flight.
    pub fn on_completion(&mut self, now: u64, bytes: u64, in_flight: u64) -> Option<FallbackDecision> {
        match &mut self.phase {
            Phase::Watching { bytes: sum, since, slow } => {
                *sum = sum.saturating_add(bytes);
                let Some(began) = *since else {
                    if *sum >= self.window.direct_bytes / 2 {
                        (*since, *sum) = (Some(now), 0);
                    }
                    return None;
                };
                if *sum >= self.window.direct_bytes / 4 {
                    let direct = rate(*sum, now.saturating_sub(began));
                    let was_slow =
                        core::mem::replace(slow, direct < percent(self.profiled_direct_rate, MIN_RATE_PERCENT));
                    (*since, *sum) = (Some(now), 0);
                    if was_slow && *slow {
                        self.phase = Phase::Draining { direct, bytes: in_flight };
                        return Some(FallbackDecision::Try);
                    }
                }
            }
            Phase::Draining { direct, bytes: left } => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    self.phase = Phase::Trying { direct: *direct, bytes: 0, since: now };
                }
            }
            Phase::Trying { direct, bytes: sum, since } => {
                *sum = sum.saturating_add(bytes);
                if *sum >= self.window.buffered_bytes {
                    let compared = ComparedRates { direct: *direct, buffered: rate(*sum, now.saturating_sub(*since)) };
                    self.phase = Phase::Over;
                    let clearly = compared.buffered >= percent(compared.direct, 100 + MIN_GAIN_PERCENT);
                    return Some(if clearly {
                        FallbackDecision::Keep(compared)
                    } else {
                        FallbackDecision::Back(compared)
                    });
                }
            }
            Phase::Over => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const IN_FLIGHT: u64 = 16 * MIB;

    /// Reads MiB at these rates in MiB per second, direct and buffered. Returns the decisions and
    /// after how many MiB they came.
    fn load(
        mib: u64,
        profiled_direct_rate: Option<u64>,
        direct: impl Fn(u64) -> u64,
        buffered: u64,
    ) -> Vec<(u64, FallbackDecision)> {
        let mut fallback = DirectIoFallback::new(profiled_direct_rate.map(|rate| rate * MIB), ProbeWindow::default());
        let (mut now, mut through, mut under_way, mut decisions) = (0, false, 0_u64, Vec::new());
        for landed in (0..mib).step_by(2) {
            // Reads that were started directly complete at the direct rate.
            let rate = if through && under_way == 0 { buffered } else { direct(landed) };
            under_way = under_way.saturating_sub(2 * MIB);
            now += 2 * 1_000_000_000 / rate;
            if let Some(decision) = fallback.on_completion(now, 2 * MIB, IN_FLIGHT) {
                (through, under_way) = (!matches!(decision, FallbackDecision::Back(_)), IN_FLIGHT);
                decisions.push((landed + 2, decision));
            }
        }
        assert_eq!(fallback.is_over(), profiled_direct_rate.is_none() || decisions.len() == 2);
        decisions
    }

    /// Rounds to the nearest MiB.
    fn mib_of(ComparedRates { direct, buffered }: ComparedRates) -> (u64, u64) {
        ((direct + MIB / 2) / MIB, (buffered + MIB / 2) / MIB)
    }

    #[test]
    fn a_device_that_is_as_it_was_measured_is_left_alone() {
        assert_eq!(load(4096, Some(1000), |_| 1000, 5000), []);
        assert_eq!(load(4096, Some(1000), |_| 701, 5000), []);
        assert_eq!(load(4096, None, |_| 10, 5000), [], "nobody knows what it should bring");
        assert_eq!(load(254, Some(1000), |_| 10, 5000), [], "a load is over before it is known");
    }

    #[test]
    fn what_is_slow_directly_goes_through_the_page_cache_if_that_is_clearly_faster() {
        let decisions = load(1024, Some(1000), |_| 500, 700);
        let [(256, FallbackDecision::Try), (336, FallbackDecision::Keep(compared))] = decisions[..] else {
            panic!("{decisions:?}")
        };
        assert_eq!(mib_of(compared), (500, 700));
        let decisions = load(1024, Some(1000), |_| 500, 600);
        let [(256, FallbackDecision::Try), (336, FallbackDecision::Back(compared))] = decisions[..] else {
            panic!("{decisions:?}")
        };
        assert_eq!(mib_of(compared), (500, 600));
    }

    #[test]
    fn a_device_that_becomes_slow_is_noticed_and_one_that_is_slow_to_begin_is_not() {
        let decisions = load(2048, Some(1000), |landed| if landed < 1000 { 900 } else { 300 }, 700);
        let [(1088, FallbackDecision::Try), (1168, FallbackDecision::Keep(_))] = decisions[..] else {
            panic!("{decisions:?}")
        };
        assert_eq!(load(2048, Some(1000), |landed| if landed < 128 { 100 } else { 900 }, 5000), []);
    }

    proptest! {
        #[test]
        fn it_tries_once_and_ends(
            profiled_direct_rate: u64,
            landed in prop::collection::vec((0_u64..10_000_000, any::<u64>(), any::<u64>()), 0..500),
        ) {
            let mut fallback = DirectIoFallback::new(Some(profiled_direct_rate), ProbeWindow { direct_bytes: 1000, buffered_bytes: 100 });
            let (mut now, mut decisions) = (0, Vec::new());
            for (time, bytes, in_flight) in landed {
                now += time;
                decisions.extend(fallback.on_completion(now, bytes, in_flight));
            }
            let as_ordered =
                matches!(decisions[..], [] | [FallbackDecision::Try] | [FallbackDecision::Try, FallbackDecision::Keep(_)] | [FallbackDecision::Try, FallbackDecision::Back(_)]);
            prop_assert!(as_ordered, "{:?}", decisions);
            prop_assert_eq!(fallback.is_over(), decisions.len() == 2);
        }
    }
}
