//! Finds the best number of reads in flight during a load.
//!
//! The [`Tuner`] climbs on the measured throughput. The platform reports completed reads with their
//! times, and the tuner answers with a new number of reads when one is worth trying. It doubles the
//! number while the gain is large, and halves it where fewer reads bring more. A try without a gain
//! is undone. Each step must gain more than measurements fluctuate. After a failed try the tuner
//! holds for longer and longer, until the throughput changes.
//!
//! It knows no clock. Times are nanoseconds from an arbitrary point.

/// A number of reads in flight and its throughput.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    window: u32,
    /// The throughput in bytes per second.
    rate: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Measuring the initial number.
    Starting,
    /// Trying another number than `base`. `moved` is true after a gain in this direction.
    Trying { base: Point, up: bool, moved: bool },
    /// Holding for `left` samples, unless the last `off` of them were far from `base`.
    Holding { base: Point, left: u32, off: u32 },
}

/// The bytes that have arrived since the current number was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    since: u64,
    bytes: u64,
    reads: u32,
}

/// Tunes the number of reads in flight of a load.
#[derive(Debug, Clone)]
pub struct Tuner {
    window: u32,
    min: u32,
    max: u32,
    phase: Phase,
    /// The length of the next hold in samples.
    patience: u32,
    /// The number of reads in flight that were started under another number.
    settling: u32,
    sample: Option<Sample>,
    /// The throughput of the last sample.
    bytes_per_second: Option<u64>,
}

/// The minimum time of a sample in nanoseconds.
const SAMPLE_TIME: u64 = 2_000_000;
/// The minimum number of reads in a sample.
const SAMPLE_READS: u32 = 16;
/// The minimum number of reads in a sample, as a multiple of the reads in flight.
const SAMPLE_ROUNDS: u32 = 2;
/// The minimum gain of doubling in percent. With less, the device is near its limit, and memory and
/// latency matter more.
const GAIN_UP: u64 = 8;
/// The minimum gain of halving in percent.
const GAIN_DOWN: u64 = 4;
/// The throughput that counts as unchanged, in percent of the earlier one.
const DRIFT: core::ops::RangeInclusive<u64> = 70..=140;
/// The first and the longest hold, in samples.
const PATIENCE: (u32, u32) = (8, 256);

impl Tuner {
    /// Creates a tuner that starts with `start` reads in flight and stays between `min` and `max`.
    #[must_use]
    pub fn new(start: u32, min: u32, max: u32) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        Self {
            window: start.clamp(min, max),
            min,
            max,
            phase: Phase::Starting,
            patience: PATIENCE.0,
            settling: 0,
            sample: None,
            bytes_per_second: None,
        }
    }

    /// Returns the current number of reads in flight.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.window
    }

    /// Returns the last measured throughput in bytes per second, if any.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// Records a read of `bytes` bytes that completed at `now`, in nanoseconds. Returns the new
    /// number of reads if it changes.
    pub fn on_completion(&mut self, now: u64, bytes: u64) -> Option<u32> {
        if self.min == self.max {
            return None;
        }
        if self.settling > 0 {
            self.settling -= 1;
            return None;
        }
        let Some(sample) = &mut self.sample else {
            // The bytes of this read arrived before the sample began.
            self.sample = Some(Sample { since: now, bytes: 0, reads: 0 });
            return None;
        };
        sample.bytes = sample.bytes.saturating_add(bytes);
        sample.reads += 1;
        let time = now.saturating_sub(sample.since);
        let enough = SAMPLE_READS.max(self.window.saturating_mul(SAMPLE_ROUNDS));
        if sample.reads < enough || time < SAMPLE_TIME {
            return None;
        }
        let rate = rate(sample.bytes, time);
        self.bytes_per_second = Some(rate);
        self.sample = None;
        let before = self.window;
        self.evaluate(Point { window: self.window, rate });
        if self.window == before {
            return None;
        }
        self.settling = before;
        Some(self.window)
    }

    fn evaluate(&mut self, now: Point) {
        match self.phase {
            Phase::Starting => self.try_up(now, false),
            Phase::Trying { base, up: true, moved } => {
                if now.rate >= percent(base.rate, 100 + GAIN_UP) {
                    self.try_up(now, true);
                } else if moved {
                    self.hold(base);
                } else {
                    self.try_down(base, false);
                }
            }
            Phase::Trying { base, up: false, .. } => {
                if now.rate >= percent(base.rate, 100 + GAIN_DOWN) {
                    self.try_down(now, true);
                } else {
                    self.hold(base);
                }
            }
            Phase::Holding { base, left, off } => {
                let drifted =
                    !(percent(base.rate, *DRIFT.start())..=percent(base.rate, *DRIFT.end())).contains(&now.rate);
                let off = if drifted { off + 1 } else { 0 };
                if off >= 2 {
                    self.patience = PATIENCE.0;
                    self.try_up(now, false);
                } else if left == 0 {
                    self.try_up(now, false);
                } else {
                    self.phase = Phase::Holding { base, left: left - 1, off };
                }
            }
        }
    }

    fn try_up(&mut self, base: Point, moved: bool) {
        self.window = base.window.saturating_mul(2).min(self.max);
        if self.window == base.window {
            return if moved { self.hold(base) } else { self.try_down(base, false) };
        }
        self.phase = Phase::Trying { base, up: true, moved };
    }

    fn try_down(&mut self, base: Point, moved: bool) {
        self.window = (base.window / 2).max(self.min);
        if self.window == base.window {
            return self.hold(base);
        }
        self.phase = Phase::Trying { base, up: false, moved };
    }

    fn hold(&mut self, base: Point) {
        self.window = base.window;
        self.phase = Phase::Holding { base, left: self.patience, off: 0 };
        self.patience = (self.patience * 2).min(PATIENCE.1);
    }
}

/// Returns the rate of `bytes` in `time` nanoseconds, in bytes per second.
pub(crate) fn rate(bytes: u64, time: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(time.max(1))).unwrap_or(u64::MAX)
}

pub(crate) fn percent(rate: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BinaryHeap;
    use alloc::vec::Vec;
    use core::cmp::Reverse;
    use proptest::prelude::*;

    const CHUNK: u64 = 2 << 20;

    /// A device with a latency in nanoseconds and a bandwidth in bytes per second. It slows down
    /// above `best` reads.
    #[derive(Debug, Clone, Copy)]
    struct Device {
        latency: u64,
        bandwidth: u64,
        best: u32,
        /// The variation of a read's time in percent.
        noise: u64,
    }

    impl Device {
        fn calm(latency: u64, bandwidth: u64) -> Self {
            Self { latency, bandwidth, best: u32::MAX, noise: 0 }
        }

        /// Returns the rate with `window` reads in flight, in bytes per second.
        fn rate(self, window: u32) -> u64 {
            let transfer = CHUNK * 1_000_000_000 / self.bandwidth;
            let turn = (self.latency + transfer).max(transfer * u64::from(window));
            CHUNK * u64::from(window) * 1_000_000_000 / turn
        }
    }

    /// Reads `chunks` chunks. Returns the windows in order and the time of the last tenth.
    fn load(device: Device, tuner: &mut Tuner, chunks: u64) -> (Vec<u32>, u64) {
        let (mut now, mut link_free, mut issued, mut landed) = (0, 0, 0, 0);
        let mut in_flight = BinaryHeap::new();
        let (mut windows, mut last_tenth) = (alloc::vec![tuner.window()], 0);
        let mut random = 1_u64;
        while landed < chunks {
            while issued < chunks && (in_flight.len() as u32) < tuner.window() {
                // A tenth longer for each read above the best number.
                let crowd = 100 + 10 * u64::from((in_flight.len() as u32).saturating_sub(device.best));
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let varied = 100 - device.noise + (random >> 33) % (2 * device.noise + 1);
                let transfer = CHUNK * 1_000_000_000 / device.bandwidth * crowd / 100 * varied / 100;
                link_free = (link_free.max(now)) + transfer;
                in_flight.push(Reverse(link_free + device.latency));
                issued += 1;
            }
            let Some(Reverse(due)) = in_flight.pop() else { break };
            now = due;
            landed += 1;
            if landed == chunks - chunks / 10 {
                last_tenth = now;
            }
            windows.extend(tuner.on_completion(now, CHUNK));
        }
        (windows, now - last_tenth)
    }

    #[test]
    fn it_converges_on_devices_of_every_kind() {
        const MICRO: u64 = 1_000;
        for bandwidth in [100_000_000, 1_000_000_000, 7_000_000_000, 50_000_000_000] {
            for latency in [10 * MICRO, 100 * MICRO, 1_000 * MICRO, 20_000 * MICRO] {
                let device = Device::calm(latency, bandwidth);
                let mut tuner = Tuner::new(8, 2, 512);
                let chunks = 8_000;
                let (_, time) = load(device, &mut tuner, chunks);
                let reached = chunks / 10 * CHUNK * 1_000_000_000 / time;
                let possible = device.rate(512);
                assert!(
                    reached >= possible / 100 * 85,
                    "{device:?}: {reached} of {possible}, with {} in flight",
                    tuner.window()
                );
                // No more reads than help: half of them would be clearly slower, or the tuner is at
                // its start.
                let window = tuner.window();
                let half = device.rate(window / 2);
                assert!(window <= 8 || half * 107 / 100 < device.rate(window), "{device:?}: {window} in flight");
            }
        }
    }

    #[test]
    fn a_device_that_crowds_gets_fewer_reads() {
        let device = Device { best: 4, ..Device::calm(100_000, 1_000_000_000) };
        let mut tuner = Tuner::new(16, 1, 512);
        load(device, &mut tuner, 2_000);
        assert!(tuner.window() <= 4, "{}", tuner.window());
    }

    #[test]
    fn noise_does_not_make_it_wander() {
        let device = Device { noise: 30, ..Device::calm(100_000, 7_000_000_000) };
        let mut tuner = Tuner::new(8, 2, 512);
        let (windows, time) = load(device, &mut tuner, 20_000);
        assert!(windows.len() < 40, "{} changes", windows.len());
        assert!(2_000 * CHUNK * 1_000_000_000 / time >= device.rate(8) / 100 * 85);
    }

    #[test]
    fn a_device_that_becomes_slow_to_answer_is_noticed() {
        let mut tuner = Tuner::new(8, 2, 512);
        load(Device::calm(100_000, 7_000_000_000), &mut tuner, 1_000);
        let before = tuner.window();
        load(Device::calm(20_000_000, 7_000_000_000), &mut tuner, 4_000);
        assert!(tuner.window() >= 4 * before, "{before} became {}", tuner.window());
    }

    #[test]
    fn a_number_that_is_fixed_stays() {
        let mut tuner = Tuner::new(8, 8, 8);
        let (windows, _) = load(Device::calm(20_000_000, 50_000_000_000), &mut tuner, 1_000);
        assert_eq!(windows, [8]);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            start in 0_u32..1000, min in 0_u32..100, max in 0_u32..1000,
            landed in prop::collection::vec((0_u64..10_000_000, 0_u64..u64::MAX), 0..2000),
        ) {
            let mut tuner = Tuner::new(start, min, max);
            let bounds = min.max(1)..=max.max(min).max(1);
            let mut now = 0;
            for (time, bytes) in landed {
                now += time;
                let (before, answer) = (tuner.window(), tuner.on_completion(now, bytes));
                prop_assert_eq!(answer, (tuner.window() != before).then_some(tuner.window()));
                prop_assert!(bounds.contains(&tuner.window()));
            }
        }
    }
}
