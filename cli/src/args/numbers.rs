//! Parses the numbers of the command line and checks their bounds.

use bytesize::ByteSize;
use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr;

/// More threads than any machine can use are a typing error, and would fail later with a less clear
/// message.
const MAX_THREADS: usize = 1024;

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads: Option<NonZeroUsize> = text.parse().ok();
    threads
        .filter(|threads| threads.get() <= MAX_THREADS)
        .ok_or_else(|| format!("expected a number from 1 to {MAX_THREADS}"))
}

/// No file or memory is larger: a size above it is a typing error.
const MAX_BYTES: u64 = i64::MAX as u64;

/// Parses a size in bytes.
///
/// For a size that exceeds 64 bits, `ByteSize` returns the largest number if there is a unit, and
/// an error if not.
pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<ByteSize>() {
        Ok(bytes) if bytes.as_u64() <= MAX_BYTES => Ok(bytes),
        Err(_) if !is_number => Err("expected a size, for example 512MiB or 5GB".to_owned()),
        _ => Err("expected less than 8 EiB".to_owned()),
    }
}

pub(super) fn shard_size(text: &str) -> Result<NonZeroU64, String> {
    let bytes = size(text)?;
    NonZeroU64::new(bytes.as_u64()).ok_or_else(|| "expected more than 0 bytes".to_owned())
}

/// Parses a count of at least 1.
pub(super) fn count<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a number of at least 1".to_owned())
}

pub(super) fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if scale > 0.0 && scale <= 1.0 { Ok(scale) } else { Err("expected a number above 0 and at most 1".to_owned()) }
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (1.0..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected a number of seconds from 1 to 600".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn sizes_and_counts_of_files_are_read() {
        let bytes = |text: &str| shard_size(text).map(NonZeroU64::get);
        assert_eq!((bytes("5GB"), bytes("2 GiB")), (Ok(5_000_000_000), Ok(2 << 30)));
        for bad in ["0", "", "-1", "x"] {
            assert!(shard_size(bad).is_err() && count::<NonZeroU32>(bad).is_err(), "{bad}");
        }
        assert_eq!(count("3").map(NonZeroU32::get), Ok(3));
    }

    #[test]
    fn sizes_that_are_none_are_told_from_those_that_nothing_has() {
        assert_eq!(size("0").map(|size| size.as_u64()), Ok(0), "a stream checks its own minimum");
        assert_eq!(size("7EiB").map(|size| size.as_u64()), Ok(7 << 60));
        for bad in ["", "-1", "-1MiB", "x", "MiB", "12XB", "1e30", "NaN", "inf"] {
            assert!(size(bad).is_err_and(|why| why.contains("512MiB")), "{bad}");
        }
        for absurd in ["8EiB", "99999999TB", "18446744073709551615", "18446744073709551616", "9999999999EiB"] {
            assert!(size(absurd).is_err_and(|why| why.contains("8 EiB")), "{absurd}");
        }
    }

    #[test]
    fn threads_are_in_range() {
        for good in [1, 1024] {
            assert_eq!(threads(&good.to_string()).map(NonZeroUsize::get), Ok(good));
        }
        for bad in ["0", "-1", "1025", "18446744073709551615", "18446744073709551616", "x", ""] {
            assert!(threads(bad).is_err_and(|why| why.contains("1024")), "{bad}");
        }
    }

    #[test]
    fn scales_are_in_range() {
        assert_eq!(scale("0.25"), Ok(0.25));
        for bad in ["0", "-1", "1.1", "NaN", "x"] {
            assert!(scale(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_in_range() {
        assert_eq!(seconds("2.5"), Ok(2.5));
        for bad in ["0", "-1", "601", "NaN", "inf", "x"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
