//! Finds the tensors with bytes in a range of a file.

use crate::units::{ByteRange, FileId};
use alloc::vec::Vec;

#[derive(Debug)]
struct Entry {
    file: FileId,
    start: u64,
    /// The maximum end of this entry and all before it in the file. Tensors may overlap.
    furthest: u64,
    tensor: usize,
}

/// Tensors by location.
#[derive(Debug)]
pub(super) struct Overlaps {
    /// Sorted by file and offset.
    entries: Vec<Entry>,
}

impl Overlaps {
    /// Creates the table of these tensors. A tensor without bytes is not included.
    pub(super) fn new(tensors: impl Iterator<Item = (usize, FileId, ByteRange)>) -> Self {
        let entry = |(tensor, file, range): (usize, FileId, ByteRange)| {
            let entry = Entry { file, start: range.start(), furthest: range.end(), tensor };
            (!range.is_empty()).then_some(entry)
        };
        let mut entries: Vec<Entry> = tensors.filter_map(entry).collect();
        entries.sort_by_key(|entry| (entry.file, entry.start));
        for at in 1..entries.len() {
            if entries[at].file == entries[at - 1].file {
                entries[at].furthest = entries[at].furthest.max(entries[at - 1].furthest);
            }
        }
        Self { entries }
    }

    /// Returns all tensors with bytes in the range, and perhaps others.
    pub(super) fn of(&self, file: FileId, range: ByteRange) -> impl Iterator<Item = usize> + '_ {
        let first = self.entries.partition_point(|entry| (entry.file, entry.furthest) <= (file, range.start()));
        let within = move |entry: &&Entry| (entry.file, entry.start) < (file, range.end());
        self.entries[first..].iter().take_while(within).map(|entry| entry.tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_tensor_at_a_range_is_found_even_if_tensors_overlap(
            tensors in proptest::collection::vec((0_u32..3, 0_u64..60, 0_u64..40), 0..12),
            (file, start, len) in (0_u32..3, 0_u64..80, 1_u64..30),
        ) {
            let range = |start, len| ByteRange::new(start, start + len).expect("forwards");
            let all = || tensors.iter().enumerate().map(|(i, &(file, start, len))| (i, FileId(file), range(start, len)));
            let found: Vec<usize> = Overlaps::new(all()).of(FileId(file), range(start, len)).collect();
            let mut seen = found.clone();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), found.len(), "each once");
            for (i, in_file, lies) in all() {
                let has = in_file == FileId(file) && lies.start().max(start) < lies.end().min(start + len);
                prop_assert!(!has || found.contains(&i), "{} of {:?}", i, found);
                prop_assert!(in_file == FileId(file) || !found.contains(&i), "of another file");
            }
        }
    }
}
