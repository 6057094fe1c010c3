//! Divides tensors into files, in order.

use super::ConvertError;
use alloc::vec::Vec;
use core::num::{NonZeroU32, NonZeroU64};
use core::ops::Range;

/// How to divide tensors into files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// The default of the format: 5 GB per file of safetensors, 10 GiB per partition of
    /// ServerlessLLM.
    #[default]
    Usual,
    /// A maximum size of each file's tensors in bytes. A larger tensor gets its own file.
    Bytes(NonZeroU64),
    /// A number of files, as equal in size as the order of the tensors allows.
    Files(NonZeroU32),
}

impl Split {
    /// Divides tensors of these sizes into files, in order. `usual` is the default maximum of a
    /// file.
    ///
    /// # Errors
    /// Fails if more files are requested than there are tensors with bytes.
    pub fn divide(self, sizes: &[u64], usual: u64) -> Result<Vec<Range<usize>>, ConvertError> {
        match self {
            Self::Usual => Ok(by_limit(sizes, usual)),
            Self::Bytes(limit) => Ok(by_limit(sizes, limit.get())),
            Self::Files(files) => evenly(sizes, files),
        }
    }
}

/// Divides before each tensor that would exceed `limit`. A tensor is never split.
fn by_limit(sizes: &[u64], limit: u64) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (at, &size) in sizes.iter().enumerate() {
        if at > start && size > 0 && bytes.saturating_add(size) > limit {
            parts.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    parts.push(start..sizes.len());
    parts
}

/// Divides into equal parts, each with at least one non-empty tensor.
///
/// A part takes tensors while that brings it nearer to an equal share of the rest.
///
/// # Errors
/// Returns [`ConvertError::TooFewTensors`] if there are fewer non-empty tensors than parts.
pub(crate) fn evenly(sizes: &[u64], parts: NonZeroU32) -> Result<Vec<Range<usize>>, ConvertError> {
    let mut filled = sizes.iter().filter(|&&size| size > 0).count();
    let count = parts.get() as usize;
    if let Ok(tensors) = u32::try_from(filled)
        && tensors < parts.get()
        && count > 1
    {
        return Err(ConvertError::TooFewTensors { files: parts.get(), tensors });
    }
    let mut left: u128 = sizes.iter().map(|&size| u128::from(size)).sum();
    let mut cut = Vec::new();
    let (mut start, mut bytes, mut taken) = (0, 0_u128, 0);
    for (at, &size) in sizes.iter().enumerate() {
        let parts_left = count - cut.len();
        if parts_left > 1 && size > 0 && taken > 0 {
            // Multiplied by the number of parts, so that nothing is rounded.
            let distance = |bytes: u128| left.abs_diff(bytes * parts_left as u128);
            // The other parts need the remaining tensors.
            let must_end = filled - taken < parts_left;
            if must_end || distance(bytes + u128::from(size)) > distance(bytes) {
                cut.push(start..at);
                left -= bytes;
                filled -= taken;
                (start, bytes, taken) = (at, 0, 0);
            }
        }
        bytes += u128::from(size);
        taken += usize::from(size > 0);
    }
    cut.push(start..sizes.len());
    Ok(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(sizes: &[u64], parts: &[Range<usize>]) -> Vec<u64> {
        parts.iter().map(|part| sizes[part.clone()].iter().sum()).collect()
    }

    fn even_sums(sizes: &[u64], parts: u32) -> Vec<u64> {
        sums(sizes, &evenly(sizes, NonZeroU32::new(parts).expect("some")).expect("enough tensors"))
    }

    #[test]
    fn parts_are_as_alike_as_tensors_allow() {
        assert_eq!(even_sums(&[1; 10], 4), [3, 2, 3, 2]);
        assert_eq!(even_sums(&[1, 1, 1, 100, 1, 1], 3), [3, 100, 2]);
        assert_eq!(even_sums(&[100, 1, 1, 1], 3), [100, 2, 1]);
        assert_eq!(even_sums(&[1, 1, 1, 100], 4), [1, 1, 1, 100]);
        assert_eq!(even_sums(&[5, 0, 0, 5, 0], 2), [5, 5]);
        assert_eq!(even_sums(&[7, 7], 1), [14]);
        assert_eq!(even_sums(&[], 1), [0]);
        assert_eq!(even_sums(&[u64::MAX, 1, u64::MAX - 1], 2), [u64::MAX, u64::MAX]);
    }

    #[test]
    fn there_are_no_more_parts_than_tensors_with_bytes() {
        let error = ConvertError::TooFewTensors { files: 3, tensors: 2 };
        assert_eq!(evenly(&[1, 0, 1], NonZeroU32::new(3).expect("some")), Err(error));
        assert_eq!(even_sums(&[0], 1), [0], "one file there always is");
    }

    #[test]
    fn a_limit_cuts_before_what_would_pass_it() {
        assert_eq!(by_limit(&[3, 3, 4, 1], 10), [0..3, 3..4]);
        assert_eq!(by_limit(&[30, 3, 40, 0], 10), [0..1, 1..2, 2..4], "a tensor is not cut");
        assert_eq!(sums(&[], &by_limit(&[], 10)), [0]);
    }

    proptest! {
        #[test]
        fn every_tensor_is_in_one_part(sizes in prop::collection::vec(0_u64..20, 0..40), parts in 1_u32..12, limit in 1_u64..60) {
            let filled = sizes.iter().filter(|&&size| size > 0).count();
            let even = evenly(&sizes, NonZeroU32::new(parts).expect("some"));
            prop_assert_eq!(even.is_ok(), parts == 1 || filled >= parts as usize);
            let limited = by_limit(&sizes, limit);
            for (sum, part) in sums(&sizes, &limited).iter().zip(&limited) {
                let filled = sizes[part.clone()].iter().filter(|&&size| size > 0).count();
                prop_assert!(*sum <= limit || filled == 1);
            }
            if let Ok(even) = &even {
                prop_assert_eq!(even.len(), parts as usize);
                prop_assert!(parts == 1 || sums(&sizes, even).iter().all(|&sum| sum > 0));
            }
            for parts in [Some(limited), even.ok()].into_iter().flatten() {
                let mut at = 0;
                for part in parts {
                    prop_assert_eq!(part.start, at);
                    at = part.end;
                }
                prop_assert_eq!(at, sizes.len());
            }
        }
    }
}
