//! Reads a header from its first byte on, never past what is there.
//!
//! There are two ends: that of the bytes which have been read so far, past which more must be read, and that of the file, past which
//! nothing is. No length that the file claims is used before it is held against both.

use super::MAX_HEADER_BYTES;
use super::error::{GgufError, HeaderPosition};
use crate::units::ByteRange;

/// Why parsing could not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes up to there are needed, and the file has them.
    Short { end: u64 },
    /// The bytes up to there are needed, and the file is not that long.
    PastEnd { at: u64, needed: u64 },
    /// A rule is broken.
    Invalid(GgufError),
}

impl Stop {
    /// Says what it is that passes the end of the file.
    pub(super) fn within(self, file_len: u64, position: impl FnOnce() -> HeaderPosition) -> Self {
        match self {
            Self::PastEnd { at, needed } => {
                Self::Invalid(GgufError::PastEnd { position: position(), at, needed, file_len })
            }
            other => other,
        }
    }
}

impl From<GgufError> for Stop {
    fn from(error: GgufError) -> Self {
        Self::Invalid(error)
    }
}

/// The start of a file, and how far it is parsed.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        // What is read beyond the length that the file is taken to have is none of it; and a header is refused or not by the same limit
        // however much is read at once.
        let len = (bytes.len() as u64).min(file_len).min(MAX_HEADER_BYTES) as usize;
        Self { bytes: &bytes[..len], at: 0, file_len }
    }

    /// The offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at as u64
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// How many bytes the file has from here on.
    pub(super) fn left(&self) -> u64 {
        self.file_len - self.at as u64
    }

    /// How many of `count` things, of which each takes `min` bytes at least, can lie in the bytes that are there.
    pub(super) fn room_for(&self, count: u64, min: u64) -> usize {
        count.min((self.bytes.len() - self.at) as u64 / min) as usize
    }

    /// The next `needed` bytes.
    pub(super) fn take(&mut self, needed: u64) -> Result<&'a [u8], Stop> {
        let at = self.at();
        if needed > self.left() {
            return Err(Stop::PastEnd { at, needed });
        }
        let there = &self.bytes[self.at..];
        match usize::try_from(needed).ok().and_then(|needed| there.get(..needed)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(Stop::Short { end: at + needed }),
        }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        match self.bytes[self.at..].first_chunk() {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => self.take(N as u64).map(|_| [0; N]),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Stop> {
        self.array().map(i64::from_le_bytes)
    }

    /// A string: its length and its bytes, which need not be text.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.u64()?;
        self.take(len)
    }

    /// Where the bytes lie that were taken since the cursor was at `start`, and what they are.
    pub(super) fn since(&self, start: u64) -> (ByteRange, &'a [u8]) {
        let range = ByteRange::new(start, self.at()).unwrap_or(ByteRange::EMPTY);
        // It was here, so it is within the bytes.
        (range, &self.bytes[start as usize..self.at])
    }
}
