//! The partitions of a ServerlessLLM checkpoint: files beside its index, numbered from 0.

use super::{PARTITION_PREFIX, ServerlessLlmError, partition_name};
use alloc::borrow::ToOwned;
use alloc::vec::Vec;

/// Returns true for the name of a partition and for names that resemble one.
#[must_use]
pub fn is_partition_name(name: &str) -> bool {
    digits(name).is_some()
}

/// Counts the partitions among the files of a folder.
///
/// # Errors
/// Fails if there is none, a number is missing, or a name has an invalid number (`tensor.data_00`).
pub fn count_partitions<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<u32, ServerlessLlmError> {
    let mut numbers = Vec::new();
    for name in names {
        let Some(digits) = digits(name) else { continue };
        let number = digits.parse().ok().filter(|&number| partition_name(number) == name);
        // The maximum is excluded so that all numbers can be counted.
        let number = number.filter(|&number| number != u32::MAX);
        numbers.push(number.ok_or_else(|| ServerlessLlmError::PartitionName { found: name.to_owned() })?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    if let Some((missing, &next)) = (0..).zip(&numbers).find(|(expected, number)| expected != *number) {
        return Err(ServerlessLlmError::MissingPartition { missing, next });
    }
    numbers.last().map(|last| last + 1).ok_or(ServerlessLlmError::NoPartition)
}

/// Returns the part after the prefix if it consists of digits.
fn digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix(PARTITION_PREFIX)?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::string::ToString;

    #[test]
    fn partitions_are_counted_in_any_order_among_other_files() {
        let names =
            ["tensor.data_2", "config.json", "tensor.data_0", "tensor.data_1", "tensor.data_1.bak", "tensor.data_"];
        assert_eq!(count_partitions(names), Ok(3));
        assert_eq!(
            count_partitions((0..12).map(partition_name).collect::<Vec<_>>().iter().map(String::as_str)),
            Ok(12)
        );
        assert!(is_partition_name("tensor.data_0") && !is_partition_name("tensor.data_1.bak"));
    }

    #[test]
    fn a_partition_that_is_missing_is_named() {
        assert_eq!(count_partitions(["tensor_index.json"]), Err(ServerlessLlmError::NoPartition));
        let error = count_partitions(["tensor.data_0", "tensor.data_3"]).expect_err("1 and 2 are missing");
        assert_eq!(error, ServerlessLlmError::MissingPartition { missing: 1, next: 3 });
        assert!(error.to_string().contains("\"tensor.data_1\" is missing"), "{error}");
        assert_eq!(
            count_partitions(["tensor.data_1"]),
            Err(ServerlessLlmError::MissingPartition { missing: 0, next: 1 })
        );
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        for found in ["tensor.data_00", "tensor.data_01", "tensor.data_4294967295", "tensor.data_99999999999999999999"]
        {
            let error = count_partitions(["tensor.data_0", found]);
            assert_eq!(error, Err(ServerlessLlmError::PartitionName { found: found.to_owned() }));
        }
    }
}
