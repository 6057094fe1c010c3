//! Parses a header from its start, within the available bytes.
//!
//! There are two limits: the end of the bytes read so far, after which more must be read, and the
//! end of the file. Every length that the file claims is checked against both before it is used.

use super::MAX_HEADER_BYTES;
use super::error::{GgufError, HeaderPosition};
use crate::units::{ByteRange, to_usize};

/// Why parsing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// More bytes are needed, up to `end`, and the file has them.
    Short { end: u64 },
    /// More bytes are needed, up to `needed`, and the file is shorter.
    PastEnd { at: u64, needed: u64 },
    /// The header violates the format.
    Invalid(GgufError),
}

impl Stop {
    /// Adds the position in the header to an error at the end of the file.
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

/// The start of a file, and the position of the parser.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_len: u64) -> Self {
        // Bytes after the assumed length do not belong to the file. The limit must also not depend
        // on how much is read at once.
        let len = to_usize((bytes.len() as u64).min(file_len).min(MAX_HEADER_BYTES));
        Self { bytes: &bytes[..len], at: 0, file_len }
    }

    /// Returns the offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at as u64
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Returns the number of bytes from here to the end of the file.
    pub(super) fn left(&self) -> u64 {
        self.file_len - self.at as u64
    }

    /// Returns how many of `count` items of at least `min` bytes each fit in the available bytes.
    pub(super) fn room_for(&self, count: u64, min: u64) -> usize {
        to_usize(count.min((self.bytes.len() - self.at) as u64 / min))
    }

    /// Takes the next `needed` bytes.
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

    /// Takes the next `N` bytes.
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

    /// Takes a string: its length and its bytes, which need not be UTF-8.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.u64()?;
        self.take(len)
    }

    /// Returns the range and the bytes taken since the cursor was at `start`.
    pub(super) fn since(&self, start: u64) -> (ByteRange, &'a [u8]) {
        let range = ByteRange::new(start, self.at()).unwrap_or(ByteRange::EMPTY);
        (range, &self.bytes[to_usize(start)..self.at])
    }
}
