//! Small types that distinguish file offsets, identifiers and alignments.
//!
//! File offsets and lengths are `u64`, memory sizes are `usize`. A 700 GB checkpoint can be
//! described on a 32-bit target, and the planner rejects what does not fit in memory there.

use core::fmt;
use core::ops::Range;

/// Converts the length or the offset of bytes in memory to `usize`.
///
/// On 64-bit targets every `u64` fits, and this compiles to nothing.
///
/// ```
/// assert_eq!(floodtide_core::to_usize(4096), 4096);
/// ```
///
/// # Panics
/// Panics if `bytes` exceeds the address space, which no length in memory does.
#[inline]
#[must_use]
pub const fn to_usize(bytes: u64) -> usize {
    assert!(bytes <= usize::MAX as u64, "the bytes are in memory, so their length fits in usize");
    #[expect(clippy::cast_possible_truncation, reason = "it fits, as asserted above")]
    let bytes = bytes as usize;
    bytes
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// Creates the identifier of the entry at `index` of its table.
            ///
            /// # Panics
            /// Panics if `index` exceeds 32 bits. No table is that long.
            #[inline]
            #[must_use]
            pub const fn from_index(index: usize) -> Self {
                assert!(index <= u32::MAX as usize, "a table has at most 2^32 entries");
                #[expect(clippy::cast_possible_truncation, reason = "it fits, as asserted above")]
                let index = index as u32;
                Self(index)
            }

            /// Returns the identifier as an index into its table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id! {
    /// A file of a [`Catalog`](crate::Catalog), in the order of insertion.
    FileId
}
id! {
    /// A tensor of a [`Catalog`](crate::Catalog), in the order of file and offset.
    TensorId
}
id! {
    /// An extent of a [`Plan`](crate::Plan). In a stream, the contents of one buffer.
    ExtentId
}
id! {
    /// A chunk of a [`Plan`](crate::Plan): one destination, filled by one read or a few.
    ChunkId
}

id! {
    /// A route of a [`Strategy`](crate::strategy::Strategy): how the files of one device are read.
    RouteId
}

/// A power of two in bytes.
///
/// ```
/// use floodtide_core::Alignment;
///
/// assert_eq!(Alignment::PAGE.up(5000), Some(8192));
/// assert!(Alignment::PAGE.divides(8192) && Alignment::new(3000).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alignment(u64);

impl Alignment {
    /// No constraint: every address is a multiple of one byte.
    pub const ONE: Self = Self(1);
    /// The usual size of a memory page.
    pub const PAGE: Self = Self(4096);
    /// The size of a huge page on x86-64, and on AArch64 with 4 KiB pages.
    pub const HUGE_PAGE: Self = Self(2 << 20);

    /// Creates an alignment of `bytes`, or returns `None` if it is not a power of two.
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() { Some(Self(bytes)) } else { None }
    }

    /// Returns the alignment in bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the alignment in bytes, as an address or a length in memory has it.
    ///
    /// # Panics
    /// Panics if it exceeds the address space.
    #[inline]
    #[must_use]
    pub const fn as_usize(self) -> usize {
        to_usize(self.0)
    }

    /// Returns the greatest multiple that is at most `offset`.
    #[must_use]
    pub const fn down(self, offset: u64) -> u64 {
        offset & !(self.0 - 1)
    }

    /// Returns the least multiple that is at least `offset`, or `None` on overflow.
    #[must_use]
    pub const fn up(self, offset: u64) -> Option<u64> {
        match offset.checked_add(self.0 - 1) {
            Some(sum) => Some(self.down(sum)),
            None => None,
        }
    }

    /// Returns true if `offset` is a multiple.
    #[must_use]
    pub const fn divides(self, offset: u64) -> bool {
        offset & (self.0 - 1) == 0
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The bytes `start..end` of a file, with `start <= end`.
///
/// ```
/// use floodtide_core::ByteRange;
///
/// let range = ByteRange::new(80, 104).expect("ascending");
/// assert_eq!((range.len(), range.is_empty(), range.indices()), (24, false, 80..104));
/// assert!(ByteRange::new(104, 80).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// An empty range at the start of the file.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// Creates the range `start..end`, or returns `None` if it is reversed.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// Returns the first offset.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Returns the offset after the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Returns the length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Returns the range as indices into the bytes of the file, read from its start.
    ///
    /// # Panics
    /// Panics if it ends beyond the address space.
    #[inline]
    #[must_use]
    pub const fn indices(self) -> Range<usize> {
        to_usize(self.start)..to_usize(self.end)
    }

    /// Returns true if the range is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Displays a number of bytes in binary units: `86.6 MiB`.
///
/// ```
/// use floodtide_core::HumanBytes;
///
/// assert_eq!(HumanBytes(5 << 20).to_string(), "5.0 MiB");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = 0;
        let mut scale = 1024_u64;
        // A u64 holds fewer than sixteen EiB, so no larger unit is needed.
        while self.0 / scale >= 1024 {
            scale *= 1024;
            unit += 1;
        }
        // Integer arithmetic, because core lacks floating-point rounding on some targets.
        let tenths = u128::from(self.0) * 10 / u128::from(scale);
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// The alignment that direct reads of a file need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectLimits {
    /// The alignment of offsets and lengths.
    pub offset: Alignment,
    /// The alignment of addresses.
    pub memory: Alignment,
}

impl DirectLimits {
    /// Returns the alignment that satisfies both.
    #[must_use]
    pub fn both(self) -> Alignment {
        self.offset.max(self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn alignment_rounds_both_ways_and_refuses_what_is_no_power_of_two() {
        let page = Alignment::PAGE;
        assert_eq!((page.down(4097), page.up(4097)), (4096, Some(8192)));
        assert_eq!((page.down(4096), page.up(4096)), (4096, Some(4096)));
        assert_eq!(page.up(u64::MAX), None);
        assert_eq!(Alignment::new(0), None);
        assert_eq!(Alignment::new(24), None);
    }

    #[test]
    fn human_bytes_pick_the_unit() {
        assert_eq!(HumanBytes(1023).to_string(), "1023 B");
        assert_eq!(HumanBytes(1536).to_string(), "1.5 KiB");
        assert_eq!(HumanBytes(90_868_376).to_string(), "86.6 MiB");
        assert_eq!(HumanBytes(u64::MAX).to_string(), "15.9 EiB");
    }

    #[test]
    fn alignments_are_as_large_as_their_names_say() {
        assert_eq!(
            [Alignment::ONE, Alignment::PAGE, Alignment::HUGE_PAGE].map(Alignment::as_u64),
            [1, 4096, 2_097_152]
        );
        assert_eq!(Alignment::PAGE.to_string(), "4096");
    }

    #[test]
    fn a_range_does_not_run_backwards() {
        assert_eq!(ByteRange::new(5, 4), None);
        let (empty, range) = (ByteRange::new(5, 5).expect("empty"), ByteRange::new(5, 8).expect("forwards"));
        assert_eq!((empty.len(), empty.is_empty(), range.len(), range.is_empty()), (0, true, 3, false));
        assert_eq!((range.start(), range.end()), (5, 8));
    }

    #[test]
    fn a_unit_begins_where_the_one_below_ends() {
        for (bytes, shown) in
            [(0, "0 B"), (1024, "1.0 KiB"), ((1 << 20) - 1, "1023.9 KiB"), (1 << 20, "1.0 MiB"), (1 << 60, "1.0 EiB")]
        {
            assert_eq!(HumanBytes(bytes).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn multiples_are_found_on_both_sides(offset in any::<u64>(), shift in 0..64_u32) {
            let alignment = Alignment::new(1 << shift).expect("a power of two");
            let down = alignment.down(offset);
            prop_assert!(down.is_multiple_of(alignment.as_u64()) && down <= offset && offset - down < alignment.as_u64());
            prop_assert_eq!(alignment.up(offset), offset.checked_next_multiple_of(alignment.as_u64()));
            prop_assert_eq!(alignment.divides(offset), down == offset);
        }
    }
}
