//! Evenly spaced blocks of a file: the bytes of a slice that is not contiguous.
//!
//! The arithmetic converts between offsets in the file and offsets in the slice, which is the
//! concatenation of the blocks.

use crate::units::ByteRange;

/// Blocks of `block_len` bytes, the first at `first`, each `stride` bytes after the previous one.
///
/// There are at least two blocks with a gap between them. Without a gap the bytes are a
/// [`ByteRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StridedRange {
    first: u64,
    block_len: u64,
    stride: u64,
    count: u64,
}

impl StridedRange {
    /// Creates a strided range. Returns `None` with fewer than two blocks, without a gap, with
    /// empty blocks, or on overflow.
    #[must_use]
    pub const fn new(first: u64, block_len: u64, stride: u64, count: u64) -> Option<Self> {
        if block_len == 0 || stride <= block_len || count < 2 {
            return None;
        }
        match stride.checked_mul(count - 1) {
            Some(last) => match last.checked_add(block_len) {
                Some(span) if first.checked_add(span).is_some() => Some(Self { first, block_len, stride, count }),
                _ => None,
            },
            None => None,
        }
    }

    /// Returns the length of a block in bytes.
    #[must_use]
    pub const fn block_len(self) -> u64 {
        self.block_len
    }

    /// Returns the gap between two blocks in bytes.
    #[must_use]
    pub const fn gap(self) -> u64 {
        self.stride - self.block_len
    }

    /// Returns the number of blocks.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count
    }

    /// Returns the total length of the blocks in bytes.
    #[must_use]
    pub const fn byte_len(self) -> u64 {
        self.block_len * self.count
    }

    /// Returns the range from the first block's first byte to the last one's last, including gaps.
    #[must_use]
    pub fn range(self) -> ByteRange {
        self.file_range(0, self.byte_len())
    }

    /// Returns how many bytes of the blocks precede `offset` in the file.
    #[must_use]
    pub const fn before(self, offset: u64) -> u64 {
        let Some(past) = offset.checked_sub(self.first) else { return 0 };
        let whole = past / self.stride;
        if whole >= self.count {
            return self.byte_len();
        }
        let begun = past % self.stride;
        whole * self.block_len + if begun < self.block_len { begun } else { self.block_len }
    }

    /// Returns the file offset of byte `at` of the blocks, which must be less than
    /// [`byte_len`](Self::byte_len).
    #[must_use]
    pub const fn offset_of(self, at: u64) -> u64 {
        self.first + at / self.block_len * self.stride + at % self.block_len
    }

    /// Returns the file range of the bytes `from..to` of the blocks, including gaps. Empty unless
    /// `from < to`.
    #[must_use]
    pub fn file_range(self, from: u64, to: u64) -> ByteRange {
        let start = self.offset_of(from.min(self.byte_len() - 1));
        let end = if from < to { self.offset_of(to.min(self.byte_len()) - 1) + 1 } else { start };
        ByteRange::new(start, end).unwrap_or(ByteRange::EMPTY)
    }

    /// Returns the end of the block that contains byte `at`, counted in the blocks.
    #[must_use]
    pub const fn end_of_block(self, at: u64) -> u64 {
        (at / self.block_len + 1) * self.block_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_strided_is_refused() {
        for (first, block_len, stride, count) in [
            (0, 0, 4, 3),
            (0, 4, 4, 3),
            (0, 5, 4, 3),
            (0, 2, 4, 1),
            (0, 2, 4, 0),
            (0, 2, u64::MAX, 3),
            (u64::MAX - 5, 2, 4, 2),
            (0, u64::MAX - 1, u64::MAX, 2),
        ] {
            assert_eq!(
                StridedRange::new(first, block_len, stride, count),
                None,
                "{first} {block_len} {stride} {count}"
            );
        }
        let last = StridedRange::new(u64::MAX - 6, 2, 4, 2).expect("ends at the last offset");
        assert_eq!((last.range().end(), last.before(u64::MAX)), (u64::MAX, 4));
    }

    proptest! {
        #[test]
        fn both_ways_to_count_agree_with_a_list_of_all_bytes(first in 0_u64..20, block_len in 1_u64..9, gap in 1_u64..9, count in 2_u64..6) {
            let strided = StridedRange::new(first, block_len, block_len + gap, count).expect("strided");
            let all: Vec<u64> =
                (0..count).flat_map(|k| (0..block_len).map(move |j| first + k * (block_len + gap) + j)).collect();
            prop_assert_eq!(strided.byte_len(), all.len() as u64);
            prop_assert_eq!((strided.range().start(), strided.range().end()), (all[0], all[all.len() - 1] + 1));
            for offset in 0..first + count * (block_len + gap) + 3 {
                let before = all.iter().filter(|&&byte| byte < offset).count();
                prop_assert_eq!(strided.before(offset), before as u64);
            }
            for (at, &offset) in all.iter().enumerate() {
                prop_assert_eq!(strided.offset_of(at as u64), offset);
                let end = strided.end_of_block(at as u64);
                prop_assert_eq!(end, (at as u64 / block_len + 1) * block_len);
                for to in at + 1..=all.len() {
                    let range = strided.file_range(at as u64, to as u64);
                    prop_assert_eq!((range.start(), range.end()), (offset, all[to - 1] + 1));
                }
                prop_assert!(strided.file_range(at as u64, at as u64).is_empty());
            }
        }
    }
}
