//! Gives direct reads up in the middle of a load, where the device brings far less by them than a profile says it can.
//!
//! A profile is of the past: the device may be another's too by now, or what is under it may answer differently. Where direct reads stay below
//! [`EXPECTED`] percent of what they brought when they were measured, the load reads through the page cache for a while, and goes on with
//! whichever was faster. It does so once. Without a profile there is nothing to be below of, and nothing is tried.
//!
//! As the [`tune`](crate::tune) module, it knows no clock: times are nanoseconds since anything.

use crate::tune::{percent, rate};

/// Below this share of what was measured, in percent, the other way is tried.
pub const EXPECTED: u64 = 70;
/// How much more reads through the page cache must bring to be kept to, in percent: the processor copies them, and they push other files
/// out of the cache.
const GAIN: u64 = 25;

/// Over how many bytes rates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// Of direct reads. The first half is not looked at: the number of reads in flight is still being tuned. From then on each quarter is
    /// looked at; two in a row must be slow, so that the second is slow as a whole.
    pub watched: u64,
    /// Of reads through the page cache.
    pub tried: u64,
}

/// 256 MiB watched, 64 MiB tried.
impl Default for Spans {
    fn default() -> Self {
        Self { watched: 256 << 20, tried: 64 << 20 }
    }
}

/// What a try has shown, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// By direct reads.
    pub direct: u64,
    /// Through the page cache.
    pub buffered: u64,
}

/// What is to be done from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detoured {
    /// Read through the page cache, to see what that brings.
    Try,
    /// Go on through the page cache.
    Keep(Compared),
    /// Go back to direct reads.
    Back(Compared),
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
    Turning {
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
pub struct Detour {
    /// What they bring, by the profile.
    expected: u64,
    spans: Spans,
    phase: Phase,
}

impl Detour {
    /// Expects so many bytes per second of direct reads; `None` where nobody knows, or nothing is to be tried.
    #[must_use]
    pub fn new(expected: Option<u64>, spans: Spans) -> Self {
        let phase =
            if expected.is_some() { Phase::Watching { bytes: 0, since: None, slow: false } } else { Phase::Over };
        Self { expected: expected.unwrap_or(0), spans, phase }
    }

    /// Whether there is nothing more to decide.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// A read of so many bytes has landed at `now`, in nanoseconds, and up to so many bytes are in flight.
    pub fn landed(&mut self, now: u64, bytes: u64, in_flight: u64) -> Option<Detoured> {
        match &mut self.phase {
            Phase::Watching { bytes: sum, since, slow } => {
                *sum = sum.saturating_add(bytes);
                let Some(began) = *since else {
                    if *sum >= self.spans.watched / 2 {
                        (*since, *sum) = (Some(now), 0);
                    }
                    return None;
                };
                if *sum >= self.spans.watched / 4 {
                    let direct = rate(*sum, now.saturating_sub(began));
                    let was_slow = core::mem::replace(slow, direct < percent(self.expected, EXPECTED));
                    (*since, *sum) = (Some(now), 0);
                    if was_slow && *slow {
                        self.phase = Phase::Turning { direct, bytes: in_flight };
                        return Some(Detoured::Try);
                    }
                }
            }
            Phase::Turning { direct, bytes: left } => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    self.phase = Phase::Trying { direct: *direct, bytes: 0, since: now };
                }
            }
            Phase::Trying { direct, bytes: sum, since } => {
                *sum = sum.saturating_add(bytes);
                if *sum >= self.spans.tried {
                    let compared = Compared { direct: *direct, buffered: rate(*sum, now.saturating_sub(*since)) };
                    self.phase = Phase::Over;
                    let clearly = compared.buffered >= percent(compared.direct, 100 + GAIN);
                    return Some(if clearly { Detoured::Keep(compared) } else { Detoured::Back(compared) });
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
    fn load(mib: u64, expected: Option<u64>, direct: impl Fn(u64) -> u64, buffered: u64) -> Vec<(u64, Detoured)> {
        let mut detour = Detour::new(expected.map(|rate| rate * MIB), Spans::default());
        let (mut now, mut through, mut under_way, mut turns) = (0, false, 0_u64, Vec::new());
        for landed in (0..mib).step_by(2) {
            // What was begun directly lands so.
            let rate = if through && under_way == 0 { buffered } else { direct(landed) };
            under_way = under_way.saturating_sub(2 * MIB);
            now += 2 * 1_000_000_000 / rate;
            if let Some(turn) = detour.landed(now, 2 * MIB, IN_FLIGHT) {
                (through, under_way) = (!matches!(turn, Detoured::Back(_)), IN_FLIGHT);
                turns.push((landed + 2, turn));
            }
        }
        assert_eq!(detour.is_over(), expected.is_none() || turns.len() == 2);
        turns
    }

    /// Rounded to the nearest.
    fn mib_of(Compared { direct, buffered }: Compared) -> (u64, u64) {
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
        let turns = load(1024, Some(1000), |_| 500, 700);
        let [(256, Detoured::Try), (336, Detoured::Keep(compared))] = turns[..] else { panic!("{turns:?}") };
        assert_eq!(mib_of(compared), (500, 700));
        let turns = load(1024, Some(1000), |_| 500, 600);
        let [(256, Detoured::Try), (336, Detoured::Back(compared))] = turns[..] else { panic!("{turns:?}") };
        assert_eq!(mib_of(compared), (500, 600));
    }

    #[test]
    fn a_device_that_becomes_slow_is_noticed_and_one_that_is_slow_to_begin_is_not() {
        let turns = load(2048, Some(1000), |landed| if landed < 1000 { 900 } else { 300 }, 700);
        let [(1088, Detoured::Try), (1168, Detoured::Keep(_))] = turns[..] else { panic!("{turns:?}") };
        assert_eq!(load(2048, Some(1000), |landed| if landed < 128 { 100 } else { 900 }, 5000), []);
    }

    proptest! {
        #[test]
        fn it_tries_once_and_ends(
            expected: u64,
            landed in prop::collection::vec((0_u64..10_000_000, any::<u64>(), any::<u64>()), 0..500),
        ) {
            let mut detour = Detour::new(Some(expected), Spans { watched: 1000, tried: 100 });
            let (mut now, mut turns) = (0, Vec::new());
            for (time, bytes, in_flight) in landed {
                now += time;
                turns.extend(detour.landed(now, bytes, in_flight));
            }
            let as_ordered =
                matches!(turns[..], [] | [Detoured::Try] | [Detoured::Try, Detoured::Keep(_)] | [Detoured::Try, Detoured::Back(_)]);
            prop_assert!(as_ordered, "{:?}", turns);
            prop_assert_eq!(detour.is_over(), turns.len() == 2);
        }
    }
}
