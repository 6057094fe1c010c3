//! Numbers of the command line, held to the bounds within which they mean something.

use bytesize::ByteSize;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

/// More threads than any machine can use are a slip of the keyboard, and would end in a failure that does not say so.
const MAX_THREADS: usize = 1024;

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads: Option<NonZeroUsize> = text.parse().ok();
    threads
        .filter(|threads| threads.get() <= MAX_THREADS)
        .ok_or_else(|| format!("expected a number from 1 to {MAX_THREADS}"))
}

pub(super) fn shard_size(text: &str) -> Result<NonZeroU64, String> {
    let bytes: ByteSize = text.parse()?;
    NonZeroU64::new(bytes.as_u64()).ok_or_else(|| "expected more than 0 bytes".to_owned())
}

pub(super) fn partitions(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "expected a number from 1 on".to_owned())
}

pub(super) fn runs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number from 1 on".to_owned())
}

pub(super) fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if scale > 0.0 && scale <= 1.0 { Ok(scale) } else { Err("expected more than 0 and at most 1".to_owned()) }
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (1.0..=600.0).contains(&seconds) { Ok(seconds) } else { Err("expected 1 to 600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_of_files_are_read() {
        let size = |text: &str| shard_size(text).map(NonZeroU64::get);
        assert_eq!((size("5GB"), size("2 GiB")), (Ok(5_000_000_000), Ok(2 << 30)));
        for bad in ["0", "", "-1", "x"] {
            assert!(size(bad).is_err() && partitions(bad).is_err(), "{bad}");
        }
        assert_eq!(partitions("3").map(NonZeroU32::get), Ok(3));
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
