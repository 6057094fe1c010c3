//! Size classes: four per doubling, from 1 KiB up. A buffer is at most a quarter larger than
//! requested.

use core::fmt;

/// The size of the smallest class in bytes.
pub const MIN_BYTES: usize = 1 << MIN_SHIFT;
/// The size of the largest class in bytes: 64 GiB, or 1 GiB with 32-bit addresses.
pub const MAX_BYTES: usize = 1 << MAX_SHIFT;
/// The number of classes.
pub const COUNT: usize = ((MAX_SHIFT - MIN_SHIFT) * STEPS) as usize + 1;

const MIN_SHIFT: u32 = 10;
const MAX_SHIFT: u32 = if usize::BITS >= 64 { 36 } else { 30 };
const STEP_BITS: u32 = 2;
const STEPS: u32 = 1 << STEP_BITS;

/// A class of buffer sizes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeClass(u8);

impl SizeClass {
    /// Returns the smallest class whose buffers hold `bytes`, or `None` above [`MAX_BYTES`].
    #[inline]
    #[must_use]
    pub fn holding(bytes: usize) -> Option<Self> {
        if bytes <= MIN_BYTES {
            return Some(Self(0));
        }
        if bytes > MAX_BYTES {
            return None;
        }
        // The class below that of the last byte, plus one.
        Some(Self(Self::index_below(bytes - 1) + 1))
    }

    /// Returns the largest class that a buffer of `capacity` bytes can serve, or `None` below
    /// [`MIN_BYTES`].
    #[inline]
    #[must_use]
    pub fn within(capacity: usize) -> Option<Self> {
        if capacity < MIN_BYTES { None } else { Some(Self(Self::index_below(capacity.min(MAX_BYTES)))) }
    }

    /// Returns the index of the largest class of at most `bytes`, which must be between the
    /// smallest and the largest class.
    #[inline]
    fn index_below(bytes: usize) -> u8 {
        let shift = usize::BITS - 1 - bytes.leading_zeros();
        let step = (bytes >> (shift - STEP_BITS)) & (STEPS as usize - 1);
        let index = ((shift - MIN_SHIFT) << STEP_BITS) as usize + step;
        #[expect(clippy::cast_possible_truncation, reason = "an index is below `COUNT`, which fits in a byte")]
        let index = index as u8;
        index
    }

    /// Returns the minimum size of a buffer of this class in bytes.
    #[inline]
    #[must_use]
    pub fn size(self) -> usize {
        let (doubling, step) = (u32::from(self.0) >> STEP_BITS, usize::from(self.0) & (STEPS as usize - 1));
        (STEPS as usize + step) << (MIN_SHIFT - STEP_BITS + doubling)
    }

    /// Returns the index of the class, below [`COUNT`].
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns all classes, ascending.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..=Self::index_below(MAX_BYTES)).map(Self)
    }
}

impl fmt::Debug for SizeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SizeClass({} bytes)", self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_ascend_and_are_their_own_class() {
        let all: alloc::vec::Vec<SizeClass> = SizeClass::all().collect();
        assert_eq!((all[0].size(), all[COUNT - 1].size()), (MIN_BYTES, MAX_BYTES));
        assert!(all.windows(2).all(|pair| pair[0].size() < pair[1].size()));
        for class in all {
            assert_eq!(SizeClass::holding(class.size()), Some(class));
            assert_eq!(SizeClass::within(class.size()), Some(class));
        }
    }

    #[test]
    fn what_is_too_large_or_too_small_has_none() {
        assert_eq!(SizeClass::holding(MAX_BYTES + 1), None);
        assert_eq!(SizeClass::holding(0), SizeClass::holding(1));
        assert_eq!(SizeClass::within(MIN_BYTES - 1), None);
        assert_eq!(SizeClass::within(usize::MAX).map(SizeClass::size), Some(MAX_BYTES));
    }

    proptest! {
        #[test]
        fn a_class_holds_its_requests_and_wastes_a_quarter_at_most(bytes in 1_usize..=MAX_BYTES) {
            let class = SizeClass::holding(bytes).expect("in range");
            prop_assert!(class.size() >= bytes);
            prop_assert!(class.size() <= MIN_BYTES.max(bytes + bytes / 4));
            if let Some(within) = SizeClass::within(bytes) {
                prop_assert!(within.size() <= bytes && within <= class);
            }
        }
    }

    #[test]
    fn classes_reach_from_a_kilobyte_to_what_a_tensor_may_need() {
        let max: u64 = if usize::BITS >= 64 { 64 << 30 } else { 1 << 30 };
        assert_eq!((MIN_BYTES, MAX_BYTES as u64), (1024, max));
        assert_eq!(SizeClass::all().count(), COUNT);
        assert_eq!(alloc::format!("{:?}", SizeClass::holding(1025)), "Some(SizeClass(1280 bytes))");
    }
}
