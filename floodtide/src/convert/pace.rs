//! Limits how many written bytes are not on the disk yet.
//!
//! Writes go to the page cache. Without a limit they would fill it up to the kernel's dirty limit,
//! evict the pages of other programs, and leave one long wait to the end. So writeback of each
//! range starts as soon as the range is written. When more than a budget is in writeback, the
//! oldest range is waited for and dropped from the cache.

use floodtide_linux::{WriteBack, sync_range};
use floodtide_memory::sync::Mutex;
use rustix::fs::{Advice, fadvise};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

/// The maximum of bytes in writeback: enough that the disk never waits for the next range.
const MAX_UNSYNCED_BYTES: u64 = 64 << 20;
/// A smaller range is sent together with the one that follows.
const MIN_SYNC_BYTES: u64 = 1 << 20;
/// The maximum number of ranges, because each keeps its file open.
const MAX_UNSYNCED_RANGES: usize = 64;
const PAGE: u64 = 4096;

/// The ranges in writeback.
#[derive(Debug, Default)]
pub(super) struct Pace {
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// Oldest first.
    ranges: VecDeque<UnsyncedRange>,
    bytes: u64,
}

#[derive(Debug)]
struct UnsyncedRange {
    file: Arc<File>,
    number: u32,
    range: Range<u64>,
}

impl Pace {
    /// Starts writeback of a written range of a file. Waits for older ranges if too much is in
    /// writeback.
    ///
    /// # Errors
    /// Returns an error if the disk did not accept written bytes.
    pub(super) fn wrote(&self, number: u32, file: &Arc<File>, range: Range<u64>) -> io::Result<()> {
        let bytes = range.end - range.start;
        let whole = {
            let mut under_way = self.under_way.lock();
            under_way.bytes += bytes;
            match under_way.ranges.back_mut() {
                Some(last)
                    if last.number == number && last.range.end == range.start && last.byte_len() < MIN_SYNC_BYTES =>
                {
                    last.range.end = range.end;
                    last.range.clone()
                }
                _ => {
                    under_way.ranges.push_back(UnsyncedRange { file: Arc::clone(file), number, range: range.clone() });
                    range
                }
            }
        };
        if whole.end - whole.start >= MIN_SYNC_BYTES {
            sync_range(file, &whole, WriteBack::Start)?;
        }
        while let Some(oldest) = self.too_much() {
            oldest.settle()?;
        }
        Ok(())
    }

    /// Waits for all ranges and closes the files.
    ///
    /// # Errors
    /// Returns an error if the disk did not accept written bytes.
    pub(super) fn settle(&self) -> io::Result<()> {
        let ranges = {
            let mut under_way = self.under_way.lock();
            under_way.bytes = 0;
            std::mem::take(&mut under_way.ranges)
        };
        ranges.iter().try_for_each(UnsyncedRange::settle)
    }

    fn too_much(&self) -> Option<UnsyncedRange> {
        let mut under_way = self.under_way.lock();
        if under_way.bytes <= MAX_UNSYNCED_BYTES && under_way.ranges.len() <= MAX_UNSYNCED_RANGES {
            return None;
        }
        let oldest = under_way.ranges.pop_front()?;
        under_way.bytes -= oldest.byte_len();
        Some(oldest)
    }
}

impl UnsyncedRange {
    fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Waits until the range is on the disk, and drops it from the page cache.
    fn settle(&self) -> io::Result<()> {
        sync_range(&self.file, &self.range, WriteBack::Finish)?;
        // Only whole pages are dropped. A page that is written again stays, because it is dirty.
        let (start, end) = (self.range.start / PAGE * PAGE, self.range.end.next_multiple_of(PAGE));
        // This is only advice: pages that stay in the cache do no harm.
        let _ = fadvise(&*self.file, start, NonZeroU64::new(end - start), Advice::DontNeed);
        Ok(())
    }
}

// Miri supports neither call.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use floodtide_core::to_usize;
    use std::os::unix::fs::FileExt;

    #[test]
    fn adjacent_ranges_are_merged_and_the_budget_is_kept() {
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        let pace = Pace::default();
        let ranges = |pace: &Pace| pace.under_way.lock().ranges.iter().map(|p| p.range.clone()).collect::<Vec<_>>();
        for (start, end) in [(0, 10), (10, 30), (40, 50)] {
            file.write_all_at(&vec![1; to_usize(end - start)], start).expect("writes");
            pace.wrote(0, &file, start..end).expect("syncs");
        }
        assert_eq!(ranges(&pace), [0..30, 40..50]);
        pace.wrote(1, &file, 50..60).expect("syncs");
        assert_eq!(ranges(&pace).len(), 3, "of another file");
        let block = vec![7; 8 << 20];
        for i in 0..20 {
            let start = i * block.len() as u64;
            file.write_all_at(&block, start).expect("writes");
            pace.wrote(0, &file, start..start + block.len() as u64).expect("syncs");
            let under_way = pace.under_way.lock();
            assert!(under_way.bytes <= MAX_UNSYNCED_BYTES);
            assert_eq!(under_way.bytes, under_way.ranges.iter().map(UnsyncedRange::byte_len).sum::<u64>());
        }
        assert!(ranges(&pace).len() > 4, "the disk has something to do");
        for number in 0..200 {
            pace.wrote(number, &file, 0..10).expect("syncs");
        }
        assert_eq!(ranges(&pace).len(), MAX_UNSYNCED_RANGES, "each keeps a file open");
        pace.settle().expect("syncs");
        assert!(ranges(&pace).is_empty() && Arc::strong_count(&file) == 1);
    }
}
