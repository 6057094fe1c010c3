//! Keeps what has been written, but is not on the disk yet, small.
//!
//! Writes go to the page cache. Left alone it would fill up with pages that nobody reads again, up
//! to what the kernel lets be dirty: those of other programs would go for it, and at the end
//! everything would be waited for at once. So each range is sent to the disk as soon as it is
//! written, and when more than a budget is under way, the oldest is waited for and dropped from the
//! cache.

use floodtide_linux::{WriteBack, sync_range};
use floodtide_memory::sync::Mutex;
use rustix::fs::{Advice, fadvise};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

/// The most that is under way to the disk, in bytes: enough that it never waits for the next range.
const MAX_UNSYNCED_BYTES: u64 = 64 << 20;
/// A shorter range is not sent by itself, but with what follows it.
const MIN_SYNC_BYTES: u64 = 1 << 20;
/// Pieces keep their files open, so there are no more than these.
const MAX_UNSYNCED_RANGES: usize = 64;
const PAGE: u64 = 4096;

/// What is under way to the disk.
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
    /// Tells that a range of a file has been written; waits for older ones when too much is under way.
    ///
    /// # Errors
    /// When the disk did not take what had been written.
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

    /// Waits for all that is under way, and lets go of the files.
    ///
    /// # Errors
    /// When the disk did not take what had been written.
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
        // Whole pages; one that is written to again stays, as it is dirty.
        let (start, end) = (self.range.start / PAGE * PAGE, self.range.end.next_multiple_of(PAGE));
        // Only advice: what stays in the cache does no harm.
        let _ = fadvise(&*self.file, start, NonZeroU64::new(end - start), Advice::DontNeed);
        Ok(())
    }
}

// Miri knows neither call.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn small_pieces_that_follow_one_another_are_one_and_the_budget_is_kept() {
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        let pace = Pace::default();
        let ranges = |pace: &Pace| pace.under_way.lock().ranges.iter().map(|p| p.range.clone()).collect::<Vec<_>>();
        for (start, end) in [(0, 10), (10, 30), (40, 50)] {
            file.write_all_at(&vec![1; (end - start) as usize], start).expect("writes");
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
