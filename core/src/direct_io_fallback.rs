//! Gives direct reads up in the middle of a load, where the device brings far less by them than a profile says it can.
//!
//! A profile is of the past: the device may be another's too by now, or what is under it may answer differently. Where direct reads stay below
//! [`EXPECTED`] percent of what they brought when they were measured, the load reads through the page cache for a while, and goes on with
//! whichever was faster. It does so once. Without a profile there is nothing to be below of, and nothing is tried.
//!
//! As the [`tune`](crate::tune) module, it knows no clock: times are nanoseconds since anything.

use crate::tune::{percent, rate};

/// Below this share of what was measured, in percent, the other way is tried.
pub const MIN_RATE_PERCENT: u64 = 70;
/// How much more reads through the page cache must bring to be kept to, in percent: the processor copies them, and they push other files
/// out of the cache.
const MIN_GAIN_PERCENT: u64 = 25;

/// Over how many bytes rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeWindow {
    /// Of direct reads. The first half is not looked at: the number of reads in flight is still being tuned. From then on each quarter is
    /// looked at; two in a row must be slow, so that the second is slow as a whole.
    pub direct_bytes: u64,
    /// Of reads through the page cache.
    pub buffered_bytes: u64,
}

/// 256 MiB watched, 64 MiB tried.
impl Default for ProbeWindow {
    fn default() -> Self {
        Self { direct_bytes: 256 << 20, buffered_bytes: 64 << 20 }
    }
}

/// What a try has shown, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComparedRates {
    /// By direct reads.
    pub direct: u64,
    /// Through the page cache.
    pub buffered: u64,
}

/// What is to be done from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackDecision {
    /// Read through the page cache, to see what that brings.
    Try,
    /// Go on through the page cache.
    Keep(ComparedRates),
    /// Go back to direct reads.
    Back(ComparedRates),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// So many bytes have landed, `since` then if the first half of a span is over; and whether the quarter before was `slow`.
    Watching {
        bytes: u64,
        since: Option<u64>,
        slow: bool,
    },
    /// Reads of so many bytes that were begun before are still to land.
    Draining {
        direct: u64,
        bytes: u64,
    },
    /// So many bytes have landed since.
    Trying {
        direct: u64,
        bytes: u64,
        since: u64,
    },
    Over,
}

/// Watches a load's direct reads.
#[derive(Debug, Clone)]
pub struct DirectIoFallback {
    /// What they bring, by the profile.
    profiled_direct_rate: u64,
    window: ProbeWindow,
    phase: Phase,
}

impl DirectIoFallback {
    /// Expects so many bytes per second of direct reads; `None` where nobody knows, or nothing is to be tried.
    #[must_use]
    pub fn new(profiled_direct_rate: Option<u64>, window: ProbeWindow) -> Self {
        let phase = if profiled_direct_rate.is_some() {
            Phase::Watching { bytes: 0, since: None, slow: false }
        } else {
            Phase::Over
        };
        Self { profiled_direct_rate: profiled_direct_rate.unwrap_or(0), window, phase }
    }

    /// Whether there is nothing more to decide.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// A read of so many bytes has landed at `now`, in nanoseconds, and up to so many bytes are in flight.
    pub fn landed(&mut self, now: u64, bytes: u64, in_flight: u64) -> Option<FallbackDecision> {
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

    /// Reads so many MiB at rates in MiB per second, directly and through the page cache, and answers what was done after how many MiB.
    fn load(
        mib: u64,
        profiled_direct_rate: Option<u64>,
        direct: impl Fn(u64) -> u64,
        buffered: u64,
    ) -> Vec<(u64, FallbackDecision)> {
        let mut fallback = DirectIoFallback::new(profiled_direct_rate.map(|rate| rate * MIB), ProbeWindow::default());
        let (mut now, mut through, mut under_way, mut decisions) = (0, false, 0_u64, Vec::new());
        for landed in (0..mib).step_by(2) {
            // What was begun directly lands so.
            let rate = if through && under_way == 0 { buffered } else { direct(landed) };
            under_way = under_way.saturating_sub(2 * MIB);
            now += 2 * 1_000_000_000 / rate;
            if let Some(decision) = fallback.landed(now, 2 * MIB, IN_FLIGHT) {
                (through, under_way) = (!matches!(decision, FallbackDecision::Back(_)), IN_FLIGHT);
                decisions.push((landed + 2, decision));
            }
        }
        assert_eq!(fallback.is_over(), profiled_direct_rate.is_none() || decisions.len() == 2);
        decisions
    }

    /// Rounded to the nearest.
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
                decisions.extend(fallback.landed(now, bytes, in_flight));
            }
            let as_ordered =
                matches!(decisions[..], [] | [FallbackDecision::Try] | [FallbackDecision::Try, FallbackDecision::Keep(_)] | [FallbackDecision::Try, FallbackDecision::Back(_)]);
            prop_assert!(as_ordered, "{:?}", decisions);
            prop_assert_eq!(fallback.is_over(), decisions.len() == 2);
        }
    }
}
