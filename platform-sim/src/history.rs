//! The history of a world as a digest, which is identical for the same run on every platform.

use crate::draw::scramble;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The history of a run. It keeps the events only on request.
#[derive(Debug, Clone, Default)]
pub struct History {
    digest: u64,
    events: u64,
    kept: Option<Vec<String>>,
}

impl History {
    /// Creates an empty history. `keep` keeps the events as text.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self { kept: keep.then(Vec::new), ..Self::default() }
    }

    /// Records an event with its time and the numbers that distinguish it.
    pub fn note(&mut self, time: u64, what: &'static str, numbers: &[u64]) {
        self.events += 1;
        let mut digest = scramble(self.digest ^ time);
        for bytes in what.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            digest = scramble(digest ^ u64::from_le_bytes(word));
        }
        for number in numbers {
            digest = scramble(digest ^ number);
        }
        self.digest = digest;
        if let Some(kept) = &mut self.kept {
            kept.push(alloc::format!("{:>14.3} ms  {what} {numbers:?}", Milliseconds(time)));
        }
    }

    /// Returns the digest.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns the number of events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Returns the events as text, if they were kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.kept.as_deref().unwrap_or(&[])
    }
}

/// Displays nanoseconds as milliseconds without floating point.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&alloc::format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_time_and_numbers_all_count() {
        let digest = |events: &[(u64, &'static str, u64)]| {
            let mut history = History::new(false);
            events.iter().for_each(|&(time, what, number)| history.note(time, what, &[number]));
            history.digest()
        };
        let base = digest(&[(1, "a", 1), (2, "b", 2)]);
        assert_eq!(base, digest(&[(1, "a", 1), (2, "b", 2)]));
        for other in [
            &[(2, "b", 2), (1, "a", 1)][..],
            &[(1, "a", 1), (3, "b", 2)],
            &[(1, "a", 1), (2, "c", 2)],
            &[(1, "a", 1), (2, "b", 3)],
            &[(1, "a", 1)],
        ] {
            assert_ne!(base, digest(other));
        }
    }
}
