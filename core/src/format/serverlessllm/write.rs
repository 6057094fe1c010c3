//! A ServerlessLLM checkpoint that is to be written: the original dialect, as `sllm_store` writes it.
//!
//! `tensor_index.json` has five elements a tensor, `[offset, size, [shape], [stride], "torch.dtype"]`, with offsets over all partitions
//! one after another. Records are padded to 8 bytes; here the padding is zeros, so that the same tensors give the same files. A record is never split: a
//! partition ends before the one that would pass its limit.

use crate::format::safetensors::write::{JsonList, JsonText};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// What the original writer lets a partition have, in bytes (`kPartitionMaxSize`).
pub const PARTITION_BYTES: u64 = 10 << 30;
/// Records are padded to a multiple of this, in bytes.
const RECORD_ALIGNMENT: u64 = 8;

/// Places records in partitions, one after another.
#[derive(Debug)]
pub struct Records {
    limit: u64,
    /// The bytes of each partition.
    partitions: Vec<u64>,
    /// Those before the last partition.
    before: u64,
    /// The next byte begins a partition.
    ended: bool,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The partition's number.
    pub partition: u32,
    /// Where it begins in that partition.
    pub offset: u64,
    /// Where it begins in all partitions one after another: what the index has.
    pub global: u64,
}

impl Records {
    /// None yet. A partition may have `limit` bytes, usually [`PARTITION_BYTES`].
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, partitions: vec![0], before: 0, ended: false }
    }

    /// Ends the partition, unless it is empty; the next record that has a byte begins another.
    pub fn end_partition(&mut self) {
        self.ended = true;
    }

    /// The next record; `None` when all records together would pass 64 bits, or the partitions 32.
    pub fn place(&mut self, bytes: u64) -> Option<Record> {
        let padded = bytes.checked_next_multiple_of(RECORD_ALIGNMENT)?;
        let last = self.last();
        let end = last.checked_add(padded)?;
        self.before.checked_add(end)?;
        // No partition is empty, but for the only one of nothing.
        if last > 0 && bytes > 0 && (self.ended || end > self.limit) {
            self.before += last;
            self.partitions.push(0);
        }
        self.ended &= bytes == 0;
        let partition = u32::try_from(self.partitions.len() - 1).ok()?;
        let offset = self.last();
        if let Some(last) = self.partitions.last_mut() {
            *last += padded;
        }
        Some(Record { partition, offset, global: self.before + offset })
    }

    /// The bytes of each partition. There is always one, as readers look for `tensor.data_0`.
    #[must_use]
    pub fn partitions(&self) -> &[u64] {
        &self.partitions
    }

    fn last(&self) -> u64 {
        self.partitions.last().copied().unwrap_or(0)
    }
}

/// The index as it grows.
#[derive(Debug)]
pub struct NewIndex {
    json: String,
}

impl Default for NewIndex {
    fn default() -> Self {
        Self { json: String::from("{") }
    }
}

impl NewIndex {
    /// Adds a tensor of a dtype that the dialect names so, whose `bytes` begin at `global`.
    pub fn add(&mut self, name: &str, global: u64, bytes: u64, shape: &[u64], dtype: &str) {
        let comma = if self.json.len() > 1 { ", " } else { "" };
        let strides = contiguous(shape);
        // Writing to a string does not fail.
        let _ = write!(
            self.json,
            "{comma}{}: [{global}, {bytes}, {}, {}, {}]",
            JsonText(name),
            JsonList(shape),
            JsonList(&strides),
            JsonText(dtype)
        );
    }

    /// The file's bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.json.push('}');
        self.json.into_bytes()
    }
}

/// The strides, in elements, of a tensor whose elements lie one after another, as torch counts them: a dimension of 0 as one of 1.
fn contiguous(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1_u64; shape.len()];
    for dim in (1..shape.len()).rev() {
        // The tensor lies in a file, so that this overflows at most where some other dimension is 0.
        strides[dim - 1] = strides[dim].saturating_mul(shape[dim].max(1));
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn strides_are_those_of_torch() {
        // As `torch.empty(shape).stride()` gives them.
        for (shape, strides) in [
            (&[][..], &[][..]),
            (&[7], &[1]),
            (&[2, 3, 4], &[12, 4, 1]),
            (&[0, 4], &[4, 1]),
            (&[4, 0], &[1, 1]),
            (&[2, 0, 3], &[3, 3, 1]),
        ] {
            assert_eq!(contiguous(shape), strides, "{shape:?}");
        }
    }

    #[test]
    fn the_index_is_what_the_original_reads() {
        let mut index = NewIndex::default();
        index.add("a\"\n", 0, 24, &[2, 3], "torch.float32");
        index.add("模", 24, 2, &[], "torch.bfloat16");
        let parsed: serde_json::Value = serde_json::from_slice(&index.finish()).expect("JSON");
        let expected = json!({
            "a\"\n": [0, 24, [2, 3], [3, 1], "torch.float32"], "模": [24, 2, [], [], "torch.bfloat16"],
        });
        assert_eq!(parsed, expected);
        assert_eq!(NewIndex::default().finish(), b"{}");
    }

    #[test]
    fn a_record_that_would_pass_the_limit_begins_a_partition() {
        let mut records = Records::new(32);
        let placed: Vec<_> = [8, 17, 1, 100, 0, 32]
            .into_iter()
            .map(|bytes| records.place(bytes).expect("fits"))
            .map(|record| (record.partition, record.offset, record.global))
            .collect();
        // 17 bytes take 24; 100 bytes are more than a partition may have, and are not split.
        assert_eq!(placed, [(0, 0, 0), (0, 8, 8), (1, 0, 32), (2, 0, 40), (2, 104, 144), (3, 0, 144)]);
        assert_eq!(records.partitions(), [32, 8, 104, 32]);
    }

    #[test]
    fn what_64_bits_do_not_count_is_refused() {
        let mut records = Records::new(u64::MAX);
        assert!(records.place(u64::MAX).is_none());
        assert!(records.place(u64::MAX - 7).is_some());
        records.end_partition();
        assert!(records.place(8).is_none());
    }

    #[test]
    fn a_partition_ends_where_it_is_told_to_and_none_is_empty() {
        let mut records = Records::new(PARTITION_BYTES);
        records.end_partition();
        assert_eq!(records.place(8).map(|record| record.partition), Some(0), "there was nothing to end");
        records.end_partition();
        assert_eq!(records.place(0).map(|record| record.partition), Some(0));
        assert_eq!(records.partitions(), [8]);
        assert_eq!(records.place(1), Some(Record { partition: 1, offset: 0, global: 8 }));
        assert_eq!(records.place(1), Some(Record { partition: 1, offset: 8, global: 16 }));
        assert_eq!(records.partitions(), [8, 16]);
        assert_eq!(Records::new(8).partitions(), [0], "readers look for the first");
    }

    proptest! {
        #[test]
        fn records_follow_one_another(sizes in prop::collection::vec(0_u64..100, 0..50), limit in 1_u64..30) {
            let limit = limit * 8;
            let mut records = Records::new(limit);
            let mut end = 0;
            for &bytes in &sizes {
                let record = records.place(bytes).expect("small");
                prop_assert_eq!(record.global, end, "no hole, and aligned");
                end = record.global + bytes.next_multiple_of(8);
                let before: u64 = records.partitions()[..record.partition as usize].iter().sum();
                prop_assert_eq!(before + record.offset, record.global);
                let fits = record.offset + bytes <= limit || bytes == 0;
                prop_assert!(fits || record.offset == 0, "only what is alone passes the limit");
            }
            prop_assert_eq!(records.partitions().iter().sum::<u64>(), end);
        }
    }
}
