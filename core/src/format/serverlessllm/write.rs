//! Creates a ServerlessLLM checkpoint in the original dialect, as `sllm_store` writes it.
//!
//! `tensor_index.json` has five elements per tensor, `[offset, size, [shape], [stride],
//! "torch.dtype"]`. Offsets count over all partitions one after another. Records are padded to 8
//! bytes, here with zeros, so that the same tensors give the same files. A record never spans two
//! partitions: a partition ends before a record that would exceed its limit.

use crate::format::safetensors::write::{JsonList, JsonText};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// The maximum size of a partition in bytes in the original writer (`kPartitionMaxSize`).
pub const PARTITION_BYTES: u64 = 10 << 30;
/// The alignment of records in bytes.
const RECORD_ALIGNMENT: u64 = 8;

/// Places records in partitions one after another.
#[derive(Debug)]
pub struct Records {
    limit: u64,
    /// The size of each partition in bytes.
    partitions: Vec<u64>,
    /// The total size of the partitions before the last.
    before: u64,
    /// Whether the next byte starts a partition.
    ended: bool,
}

/// The location of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The number of the partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: u64,
    /// The offset over all partitions one after another, as in the index.
    pub global: u64,
}

impl Records {
    /// Creates an empty placement. A partition has at most `limit` bytes, usually
    /// [`PARTITION_BYTES`].
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, partitions: vec![0], before: 0, ended: false }
    }

    /// Ends the partition unless it is empty. The next record with a byte starts another.
    pub fn end_partition(&mut self) {
        self.ended = true;
    }

    /// Places the next record. Returns `None` if offsets exceed 64 bits or partitions exceed 32
    /// bits.
    pub fn place(&mut self, bytes: u64) -> Option<Record> {
        let padded = bytes.checked_next_multiple_of(RECORD_ALIGNMENT)?;
        let last = self.last();
        let end = last.checked_add(padded)?;
        self.before.checked_add(end)?;
        // No partition is empty, except the only partition of an empty checkpoint.
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

    /// Returns the size of each partition in bytes. There is at least one, because readers look for
    /// `tensor.data_0`.
    #[must_use]
    pub fn partitions(&self) -> &[u64] {
        &self.partitions
    }

    fn last(&self) -> u64 {
        self.partitions.last().copied().unwrap_or(0)
    }
}

/// An index under construction.
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
    /// Adds a tensor of `bytes` bytes at `global`. `dtype` is the dialect's name.
    pub fn add(&mut self, name: &str, global: u64, bytes: u64, shape: &[u64], dtype: &str) {
        let comma = if self.json.len() > 1 { ", " } else { "" };
        let strides = contiguous(shape);
        // Writing to a string never fails.
        let _ = write!(
            self.json,
            "{comma}{}: [{global}, {bytes}, {}, {}, {}]",
            JsonText(name),
            JsonList(shape),
            JsonList(&strides),
            JsonText(dtype)
        );
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.json.push('}');
        self.json.into_bytes()
    }
}

/// Returns the strides of a contiguous tensor in elements. As in torch, a dimension of 0 counts as
/// 1.
fn contiguous(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1_u64; shape.len()];
    for dim in (1..shape.len()).rev() {
        // The tensor is in a file, so this overflows only if another dimension is 0.
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
        // The values of `torch.empty(shape).stride()`.
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
        // 17 bytes take 24. 100 bytes exceed the limit of a partition, and are not split.
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
