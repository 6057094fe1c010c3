//! Parses `model.safetensors.index.json`, which maps each tensor to its shard.
//!
//! The index is untrusted. A shard's name must be a plain file name, so that no index can make a
//! loader read a file of another folder.

use super::text::Text;
use crate::catalog::{Catalog, TensorInfo};
use crate::escape::{Quoted, without_middle};
use crate::names::sorted_by_name;
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use thiserror::Error;

/// A violated rule of an index, or a contradiction between it and its shards.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message documents the fields")]
pub enum IndexError {
    /// The index is not JSON with a `weight_map` of strings.
    #[error("the index is not the JSON expected, an object with \"weight_map\": {message}")]
    Json { message: String },
    /// The map is empty.
    #[error(
        "the index maps no tensor to a file: its \"weight_map\" is empty; fetch it again, or pass the files themselves"
    )]
    Empty,
    /// A tensor is mapped twice.
    #[error("the index maps tensor \"{}\" twice; names must be unique", Quoted(name))]
    DuplicateName { name: String },
    /// A shard's name could lead out of the folder.
    #[error(
        "the index maps tensor \"{}\" to \"{}\", expected the plain name of a file in the same folder \
         (no \"/\", no \"..\"); an index may not point elsewhere",
        Quoted(name),
        Quoted(shard)
    )]
    NotPlainName { name: String, shard: String },
    /// A shard lacks a tensor that the map assigns to it.
    #[error(
        "the index maps tensor \"{}\" to \"{}\", but that shard does not hold it; \
         index and shards do not belong together: fetch them again",
        Quoted(name),
        Quoted(shard)
    )]
    NotInShard { name: String, shard: String },
    /// A shard holds a tensor that the map does not assign to it.
    #[error(
        "shard \"{}\" holds tensor \"{}\", which the index does not map to it; \
         index and shards do not belong together: fetch them again",
        Quoted(shard),
        Quoted(name)
    )]
    NotInIndex { name: String, shard: String },
}

/// A parsed index.
#[derive(Debug)]
pub struct ShardIndex {
    shards: Vec<String>,
    /// All names, concatenated, so that 100,000 of them are one allocation.
    names: String,
    /// The entries by name, each with an index into `shards`.
    map: Vec<(Range<usize>, usize)>,
    total_size: Option<u64>,
    metadata: Vec<(String, String)>,
}

impl ShardIndex {
    /// Parses an index file.
    ///
    /// # Errors
    /// Fails if it is not JSON with a `weight_map` of plain file names, or maps no tensor, or maps
    /// one twice.
    pub fn parse(json: &[u8]) -> Result<Self, IndexError> {
        let raw: RawIndex =
            serde_json::from_slice(json).map_err(|e| IndexError::Json { message: without_middle(e.to_string()) })?;
        let WeightMap { names, entries, shards: listed } = raw.weight_map;
        if entries.is_empty() {
            return Err(IndexError::Empty);
        }
        let mut shards = listed.clone();
        shards.sort_unstable();
        let number = |shard| shards.binary_search(shard).unwrap_or_default();
        let sorted: Vec<usize> = listed.iter().map(number).collect();
        let order = sorted_by_name(entries.iter().map(|(name, _)| &names[name.clone()]));
        let by_order = |number| {
            let (name, shard) = &entries[number as usize];
            (name.clone(), sorted[*shard])
        };
        let map: Vec<(Range<usize>, usize)> = order.into_iter().map(by_order).collect();
        let name = |entry: &(Range<usize>, usize)| &names[entry.0.clone()];
        if let Some(pair) = map.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(IndexError::DuplicateName { name: name(&pair[0]).to_owned() });
        }
        let plain: Vec<bool> = shards.iter().map(|shard| is_plain_name(shard)).collect();
        if let Some(entry) = map.iter().find(|(_, shard)| !plain[*shard]) {
            let shard = shards[entry.1].clone();
            return Err(IndexError::NotPlainName { name: name(entry).to_owned(), shard });
        }
        let fields = raw.metadata.unwrap_or_default();
        let total_size = fields.get("total_size").and_then(whole_number);
        let metadata = fields
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)))
            .collect();
        Ok(Self { shards, names, map, total_size, metadata })
    }

    /// Returns the names of the shards, sorted and unique.
    #[must_use]
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Returns `metadata.total_size` in bytes if it is a whole number. Some writers give it as
    /// `5.0`.
    #[must_use]
    pub fn total_size(&self) -> Option<u64> {
        self.total_size
    }

    /// Returns the index's `metadata`. Values that are not strings are returned as JSON.
    #[must_use]
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// Returns the entries (tensor, index into [`shards`](Self::shards)), sorted by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.map.iter().map(|(name, shard)| (&self.names[name.clone()], *shard))
    }

    /// Checks that the files of a catalog match the index. They are the [`shards`](Self::shards),
    /// in that order.
    ///
    /// # Errors
    /// Fails if a tensor is in the index but not in its shard, or in a shard but not in the index.
    pub fn check(&self, catalog: &Catalog) -> Result<(), IndexError> {
        let shard_name = |shard: usize| self.shards.get(shard).cloned().unwrap_or_default();
        let mut tensors = catalog.tensors_by_name().peekable();
        let (mut missing, mut unlisted) = (None, None);
        let mut note_unlisted = |tensor: TensorInfo<'_>| {
            let (name, shard) = (tensor.name.to_owned(), shard_name(tensor.file.index()));
            unlisted.get_or_insert(IndexError::NotInIndex { name, shard });
        };
        // Both are sorted by name.
        for (name, shard) in self.entries() {
            while let Some(before) = tensors.next_if(|tensor| tensor.name < name) {
                note_unlisted(before);
            }
            match tensors.next_if(|tensor| tensor.name == name) {
                Some(tensor) if tensor.file.index() == shard => {}
                _ => {
                    let error = IndexError::NotInShard { name: name.to_owned(), shard: shard_name(shard) };
                    missing.get_or_insert(error);
                }
            }
        }
        tensors.for_each(note_unlisted);
        missing.or(unlisted).map_or(Ok(()), Err)
    }

    /// Returns the index into [`shards`](Self::shards) of a tensor's shard.
    #[must_use]
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        let found = self.map.binary_search_by(|(name, _)| self.names[name.clone()].cmp(tensor));
        found.ok().map(|at| self.map[at].1)
    }
}

/// Parses an unsigned integer, or a number with a zero fraction, as writers produce that compute
/// sizes in floating point.
fn whole_number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "a number that this changes is refused below")]
        let whole = number as u64;
        (whole as f64 == number && whole != u64::MAX).then_some(whole)
    })
}

/// Returns true if `name` can only refer to a file in the folder where it is looked up.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: WeightMap,
    #[serde(default)]
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The map with every entry, so that duplicates are detected, and the unique shards by number.
struct WeightMap {
    names: String,
    entries: Vec<(Range<usize>, usize)>,
    shards: Vec<String>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names and shard names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let (mut names, mut entries, mut shards) = (String::new(), Vec::new(), Vec::<String>::new());
                let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
                let mut last = 0;
                while let Some((Text(name), Text(shard))) = map.next_entry()? {
                    // Usually it equals the shard of the previous entry.
                    if shards.get(last).is_none_or(|known| *known != shard) {
                        last = *numbers.entry(shard.clone().into_owned()).or_insert_with(|| {
                            shards.push(shard.into_owned());
                            shards.len() - 1
                        });
                    }
                    let start = names.len();
                    names.push_str(&name);
                    entries.push((start..names.len(), last));
                }
                Ok(WeightMap { names, entries, shards })
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogBuilder;
    use crate::dtype::DType;
    use crate::format::SAFETENSORS;
    use crate::units::ByteRange;
    use alloc::format;

    fn parse(map: &str) -> Result<ShardIndex, IndexError> {
        ShardIndex::parse(format!(r#"{{"metadata":{{"total_size":12}},"weight_map":{map}}}"#).as_bytes())
    }

    #[test]
    fn shards_are_listed_once_and_sorted() {
        let index = parse(r#"{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}"#).expect("valid");
        assert_eq!(index.shards(), ["1.safetensors", "2.safetensors"]);
        assert_eq!(index.total_size(), Some(12));
    }

    #[test]
    fn a_total_size_is_any_whole_number() {
        let total = |size: &str| {
            let json = format!(r#"{{"metadata":{{"total_size":{size}}},"weight_map":{{"t":"a"}}}}"#);
            ShardIndex::parse(json.as_bytes()).expect("valid").total_size()
        };
        for (size, expected) in [("5", 5), ("5.0", 5), ("5e2", 500), ("18446744073709551615", u64::MAX)] {
            assert_eq!(total(size), Some(expected), "{size}");
        }
        for size in ["5.5", "-5", "-5.0", "1e300", "18446744073709551616", "\"5\"", "null", "[]"] {
            assert_eq!(total(size), None, "{size}");
        }
    }

    #[test]
    fn long_names_are_cut_in_messages() {
        let long = "n".repeat(1 << 20);
        for map in
            [format!(r#"{{"{long}":"/{long}"}}"#), format!(r#"{{"{long}":"a","{long}":"a"}}"#), format!(r#""{long}""#)]
        {
            let message = parse(&map).expect_err("broken").to_string();
            assert!(message.len() < 1000 && message.contains("nnnn…"), "{message}");
        }
    }

    #[test]
    fn only_plain_names_are_taken() {
        for bad in ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000b"] {
            let error = parse(&format!(r#"{{"t":"{bad}"}}"#)).expect_err(bad);
            assert!(matches!(error, IndexError::NotPlainName { name, .. } if name == "t"), "{bad}");
        }
    }

    #[test]
    fn duplicates_and_other_json_are_refused() {
        assert_eq!(parse(r#"{"t":"a","t":"a"}"#).unwrap_err(), IndexError::DuplicateName { name: "t".into() });
        assert_eq!(parse("{}").unwrap_err(), IndexError::Empty);
        for bad in [&b"{}"[..], b"[", b"\xff", br#"{"weight_map":[]}"#, br#"{"weight_map":{"a":1}}"#] {
            assert!(matches!(ShardIndex::parse(bad), Err(IndexError::Json { .. })));
        }
    }

    #[test]
    fn every_tensor_has_its_shard() {
        let index = parse(r#"{"b":"2.safetensors","a":"1.safetensors","c":"1.safetensors"}"#).expect("valid");
        assert!(index.entries().eq([("a", 0), ("b", 1), ("c", 0)]));
        assert_eq!(["c", "b", "d"].map(|tensor| index.shard_of(tensor)), [Some(0), Some(1), None]);
    }

    #[test]
    fn metadata_is_kept_and_need_not_be_there() {
        let index = |metadata: &str| ShardIndex::parse(format!(r#"{{{metadata}"weight_map":{{"t":"a"}}}}"#).as_bytes());
        let pairs = index(r#""metadata":{"dtype":"BF16","total_size":2},"#).expect("valid");
        assert_eq!(pairs.metadata(), [("dtype", "BF16"), ("total_size", "2")].map(|(k, v)| (k.into(), v.into())));
        for none in ["", r#""metadata":null,"#] {
            let index = index(none).expect("valid");
            assert_eq!((index.metadata().len(), index.total_size()), (0, None));
        }
    }

    #[test]
    fn a_map_of_another_kind_is_told_what_one_is() {
        let message = parse("[]").expect_err("a list").to_string();
        assert!(message.contains("expected an object of tensor names and shard names"), "{message}");
    }

    fn check(files: &[&[&str]], map: &str) -> Result<(), IndexError> {
        let index = parse(map).expect("valid");
        let mut builder = CatalogBuilder::new(SAFETENSORS);
        for (names, file) in files.iter().zip(["a", "b"]) {
            let file = builder.add_file(file, 100).expect("few");
            for name in *names {
                builder.add_tensor(file, name, DType::U8.into(), &[0], ByteRange::EMPTY).expect("few");
            }
        }
        index.check(&builder.finish().expect("no duplicates"))
    }

    #[test]
    fn an_index_that_agrees_is_taken() {
        assert_eq!(check(&[&["s", "t"], &["u"]], r#"{"s":"a","t":"a","u":"b"}"#), Ok(()));
    }

    #[test]
    fn a_tensor_that_its_shard_lacks_is_refused() {
        let missing =
            |name: &str, shard: &str| Err(IndexError::NotInShard { name: name.to_owned(), shard: shard.to_owned() });
        assert_eq!(check(&[&["s"]], r#"{"s":"a","t":"a"}"#), missing("t", "a"));
        // The tensor exists, but in another shard than the index states.
        assert_eq!(check(&[&["s", "t"], &["u"]], r#"{"s":"a","t":"b","u":"b"}"#), missing("t", "b"));
    }

    #[test]
    fn a_tensor_that_the_index_lacks_is_refused() {
        let unknown = IndexError::NotInIndex { name: "u".to_owned(), shard: "b".to_owned() };
        assert_eq!(check(&[&["s"], &["t", "u"]], r#"{"s":"a","t":"b"}"#), Err(unknown));
    }
}
