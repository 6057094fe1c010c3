//! Merges the metadata of an index and of files.

use floodtide_core::MetadataValue;
use std::collections::HashMap;

/// Returns each key once, in the order of their first occurrence. The value of the index wins, then
/// that of the first file with the key. Within one file, the last of several equal keys counts, as
/// in the reference.
///
/// A header may hold millions of keys, so each is looked up only once.
pub(super) fn merge<'a>(
    index: &'a [(String, String)],
    files: impl Iterator<Item = (usize, &'a str, &'a MetadataValue)>,
) -> Vec<(String, MetadataValue)> {
    let mut merged: Vec<(String, MetadataValue)> =
        index.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    // The position of each key in `merged`, and the file of its value.
    let mut known: HashMap<&str, (usize, Option<usize>)> =
        index.iter().enumerate().map(|(at, (key, _))| (key.as_str(), (at, None))).collect();
    for (file, key, value) in files {
        let (at, from) = *known.entry(key).or_insert((merged.len(), Some(file)));
        if at == merged.len() {
            merged.push((key.to_owned(), value.clone()));
        } else if from == Some(file) {
            merged[at].1.clone_from(value);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_last_of_a_file_and_the_first_of_the_files_counts() {
        let index = [("a".to_owned(), "index".to_owned())];
        let files = [(0, "b", "1"), (0, "a", "2"), (0, "b", "3"), (1, "c", "4"), (1, "b", "5"), (1, "c", "6")];
        let files = files.map(|(file, key, value)| (file, key, MetadataValue::from(value)));
        let merged = merge(&index, files.iter().map(|(file, key, value)| (*file, *key, value)));
        let expected = [("a", "index"), ("b", "3"), ("c", "6")];
        assert_eq!(merged, expected.map(|(key, value)| (key.to_owned(), value.into())));
    }

    #[test]
    fn many_keys_take_little_time() {
        let keys: Vec<String> = (0..200_000).map(|key| format!("key {key}")).collect();
        let value = MetadataValue::from("value");
        let start = Instant::now();
        let merged = merge(&[], keys.iter().map(|key| (0, key.as_str(), &value)));
        assert_eq!(merged.len(), keys.len());
        // Comparing every key with every other takes most of a minute.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}
