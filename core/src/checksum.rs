//! Computes the BLAKE3 hash of bytes that arrive in parts, in any order and from any thread.
//!
//! BLAKE3 hashes leaves of 1 KiB and combines the results in pairs up to one root. So the worker
//! that reads a part of a tensor can hash it in parallel to the others. [`hash_range`] returns a
//! [`HashedRange`]: the tree nodes that are entirely in the part, and the bytes of the incomplete
//! leaves at its two ends. [`TreeHash::add`] combines the parts of a tensor. It stores only nodes
//! of 32 bytes that wait for a neighbour, and incomplete leaves. Its size grows with the gaps
//! between the parts, not with the tensor.
//!
//! The result equals `blake3::hash` of all bytes in order. A property test checks this.

use crate::units::to_usize;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use core::fmt;
use core::str::FromStr;

/// The size of a leaf in bytes.
const LEAF_BYTES: usize = blake3::CHUNK_LEN;
const LEAF: u64 = LEAF_BYTES as u64;

/// A BLAKE3 hash.
///
/// ```
/// use floodtide_core::checksum::Checksum;
///
/// let checksum = Checksum::of(b"weights");
/// assert_eq!(checksum.to_string().parse(), Ok(checksum));
/// assert_ne!(checksum, Checksum::of(b"Weights"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// Computes the hash of complete bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Checksum {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error of a text that is not 64 digits of lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHex;

impl FromStr for Checksum {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex(text).map(Self).ok_or(NotHex)
    }
}

/// Writes 32 bytes as 64 lower-case digits.
pub(crate) fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Parses 64 lower-case digits.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A tree node: the hash of 2^`level` leaves from leaf `index` · 2^`level`. At the end of the input
/// there may be fewer leaves.
type NodeIndex = (u32, u64);

/// A hashed part of an input.
#[derive(Debug)]
pub struct HashedRange<'a> {
    bytes: u64,
    /// The hash of the input, if the part is the whole.
    whole: Option<Checksum>,
    nodes: Vec<(NodeIndex, ChainingValue)>,
    /// The incomplete leaves: index, offset in the leaf, and bytes.
    ends: [Option<(u64, usize, &'a [u8])>; 2],
}

/// Hashes the bytes at `offset` of an input of `total` bytes. Threads can call this in parallel.
#[must_use]
pub fn hash_range(total: u64, offset: u64, bytes: &[u8]) -> HashedRange<'_> {
    let len = bytes.len() as u64;
    let end = offset.saturating_add(len);
    let mut part = HashedRange { bytes: len, whole: None, nodes: Vec::new(), ends: [None, None] };
    if len == total {
        part.whole = Some(Checksum::of(bytes));
        return part;
    }
    if bytes.is_empty() {
        return part;
    }
    let first = offset.div_ceil(LEAF);
    // The last leaf of the input is complete, however short it is.
    let last = if end == total { end.div_ceil(LEAF) } else { end / LEAF };
    let within = |leaf: u64| to_usize((leaf * LEAF).min(end) - offset);
    if last < first {
        part.ends[0] = Some((offset / LEAF, to_usize(offset % LEAF), bytes));
        return part;
    }
    let (head, tail) = (within(first), within(last));
    if head > 0 {
        part.ends[0] = Some((offset / LEAF, to_usize(offset % LEAF), &bytes[..head]));
    }
    if tail < bytes.len() {
        part.ends[1] = Some((last, 0, &bytes[tail..]));
    }
    let mut leaf = first;
    while leaf < last {
        // The largest node that starts here and ends within the part. Never the root, because the
        // part is not the whole.
        let level = leaf.trailing_zeros().min((last - leaf).ilog2());
        let next = leaf + (1 << level);
        let cv = subtree(leaf, &bytes[within(leaf)..within(next)]);
        part.nodes.push(((level, leaf >> level), cv));
        leaf = next;
    }
    part
}

/// Returns the node over `bytes`, which start with this leaf.
fn subtree(leaf: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(leaf * LEAF).update(bytes).finalize_non_root()
}

/// Hashes an input whose parts arrive in any order, each byte once.
#[derive(Debug)]
pub struct TreeHash {
    total: u64,
    leaves: u64,
    /// The number of bytes that have arrived.
    come: u64,
    /// Nodes that wait for their neighbour.
    waiting: BTreeMap<NodeIndex, ChainingValue>,
    /// Incomplete leaves, and how many of their bytes have arrived.
    unfinished: BTreeMap<u64, (usize, Box<[u8; LEAF_BYTES]>)>,
    root: Option<Checksum>,
}

impl TreeHash {
    /// Creates the hash of an input of `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self {
            total,
            leaves: total.div_ceil(LEAF),
            come: 0,
            waiting: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            root: (total == 0).then(|| Checksum::of(&[])),
        }
    }

    /// Adds a part of the input. Returns the hash with the last one.
    pub fn add(&mut self, part: &HashedRange<'_>) -> Option<Checksum> {
        self.come = self.come.saturating_add(part.bytes);
        self.root = self.root.or(part.whole);
        for &(node, cv) in &part.nodes {
            self.join(node, cv);
        }
        for &(leaf, at, bytes) in part.ends.iter().flatten() {
            self.fill(leaf, at, bytes);
        }
        self.hash()
    }

    /// Returns the hash if all bytes have arrived.
    #[must_use]
    pub fn hash(&self) -> Option<Checksum> {
        self.root.filter(|_| self.come == self.total)
    }

    /// Adds bytes of a leaf that spans several parts.
    fn fill(&mut self, leaf: u64, at: usize, bytes: &[u8]) {
        let len = to_usize((self.total - leaf * LEAF).min(LEAF));
        let (come, buffer) = self.unfinished.entry(leaf).or_insert_with(|| (0, Box::new([0; LEAF_BYTES])));
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        *come += bytes.len();
        if *come < len {
            return;
        }
        let Some((_, buffer)) = self.unfinished.remove(&leaf) else { return };
        if self.leaves == 1 {
            self.root = Some(Checksum::of(&buffer[..len]));
        } else {
            self.join((0, leaf), subtree(leaf, &buffer[..len]));
        }
    }

    /// Combines a node with its neighbour, if that has arrived, and so on upwards.
    fn join(&mut self, (mut level, mut index): NodeIndex, mut cv: ChainingValue) {
        loop {
            // The neighbour would start after the end of the input, so this node is also the one
            // above.
            let alone = index % 2 == 0 && (index + 1) << level >= self.leaves;
            if !alone {
                let beside = (level, index ^ 1);
                let Some(other) = self.waiting.remove(&beside) else {
                    self.waiting.insert((level, index), cv);
                    return;
                };
                let (left, right) = if index % 2 == 0 { (cv, other) } else { (other, cv) };
                if (2 << level) >= self.leaves {
                    self.root = Some(Checksum(merge_subtrees_root(&left, &right, Mode::Hash).into()));
                    return;
                }
                cv = merge_subtrees_non_root(&left, &right, Mode::Hash);
            }
            (level, index) = (level + 1, index / 2);
        }
    }
}

#[cfg(test)]
mod tests;
