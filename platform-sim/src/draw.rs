//! Random draws from a seed, identical on every platform.

use core::ops::RangeInclusive;
use floodtide_core::to_usize;

/// A stream of draws. Draws from a fork do not affect the original.
#[derive(Debug, Clone)]
pub struct Draw(fastrand::Rng);

impl Draw {
    /// Creates the draws of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Creates independent draws.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// Draws a number in the range.
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.u64(range)
    }

    /// Draws a small number in the range.
    pub fn small_number(&mut self, range: RangeInclusive<u32>) -> u32 {
        let (low, high) = (u64::from(*range.start()), u64::from(*range.end()));
        u32::try_from(self.number(low..=high)).expect("it is in the range")
    }

    /// Draws a byte.
    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.number(0..=255)).expect("it is in the range")
    }

    /// Draws an index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        // A usize would depend on the machine's width.
        to_usize(self.0.u64(0..len as u64))
    }

    /// Draws true with this probability in millionths.
    pub fn chance(&mut self, millionths: u32) -> bool {
        millionths > 0 && self.0.u32(0..1_000_000) < millionths
    }

    /// Draws true or false with equal probability.
    pub fn coin(&mut self) -> bool {
        self.0.bool()
    }

    /// Draws one of the choices.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Draws a number, its order of magnitude first.
    pub fn magnitude(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        let bits = self.number(u64::from(low.max(1).ilog2())..=u64::from(high.max(1).ilog2()));
        let top = (2_u64 << bits) - 1;
        self.number((1 << bits).max(low)..=top.min(high).max((1 << bits).max(low)))
    }
}

/// Scrambles a number (the finaliser of SplitMix64).
#[must_use]
pub(crate) const fn scramble(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_stay_in_range() {
        let mut draw = Draw::new(1);
        for range in [1..=1, 0..=0, 5..=1000, 1..=u64::from(u32::MAX), 17..=17] {
            for _ in 0..1000 {
                let number = draw.magnitude(range.clone());
                assert!(range.contains(&number) || (range == (0..=0) && number == 1), "{number} in {range:?}");
            }
        }
    }
}
