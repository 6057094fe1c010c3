//! Shards: their names, their metadata, and what must agree.

use super::super::*;
use super::files::{Draft, string};
use super::parse_whole;
use alloc::vec;

#[test]
fn names_are_taken_apart_and_put_together() {
    let name = ShardName::parse("a-b-of-c-00002-of-00003.gguf").expect("a shard");
    assert_eq!((name.number, name.count, name.suffix().as_str()), (2, 3, "-00002-of-00003.gguf"));
    assert!(name.all().map(|shard| shard.number).eq(1..=3) && name.all().all(|shard| shard.count == 3));
    let last = ShardName { number: 65_535, count: 65_535 };
    assert_eq!(ShardName::parse("m-65535-of-65535.gguf"), Some(last));
    for other in [
        "model.gguf",
        "m-00001-of-00003.safetensors",
        "m-1-of-3.gguf",
        "m-00001-of-3.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-00000-of-00000.gguf",
        "m-+0001-of-00003.gguf",
        "m-000001-of-00003.gguf",
        "m-00001-of-65536.gguf",
        "m-00001-of-4294967295.gguf",
        "m-00001-of-99999999999.gguf",
        "00001-of-00003.gguf",
        "m-00001_of_00003.gguf",
    ] {
        assert_eq!(ShardName::parse(other), None, "{other}");
    }
}

fn split_of(keys: &[(&str, i32, &[u8])]) -> Result<Option<Split>, SplitError> {
    let mut draft = Draft::new();
    keys.iter().for_each(|(key, id, value)| draft.key(key, *id, value));
    Split::of(&parse_whole(&draft.bytes()).expect("valid"))
}

#[test]
fn a_shard_says_what_it_is() {
    let (no, count, tensors) = ("split.no", "split.count", "split.tensors.count");
    let as_written = [(no, 2, &[1, 0][..]), (count, 2, &[3, 0]), (tensors, 5, &[9, 0, 0, 0])];
    assert_eq!(split_of(&as_written), Ok(Some(Split { number: 1, count: 3, tensors: 9 })));
    assert_eq!(split_of(&[]), Ok(None));
    // The metadata that merging leaves.
    assert_eq!(split_of(&[(count, 2, &[0, 0])]), Ok(None));
    assert_eq!(split_of(&as_written[1..]), Err(SplitError::MissingKey { key: no }));
    assert_eq!(split_of(&as_written[..2]), Err(SplitError::MissingKey { key: tensors }));
    let text = string("3");
    let error = SplitError::NotANumber { key: count, found: ValueType::String, negative: false };
    assert_eq!(split_of(&[(count, 8, &text)]), Err(error));
    let error = SplitError::NotANumber { key: tensors, found: ValueType::I32, negative: true };
    assert_eq!(split_of(&[as_written[0], as_written[1], (tensors, 5, &[0xff; 4])]), Err(error));
}

#[test]
fn shards_must_agree() {
    let shard = |number, count, tensors| Some(Split { number, count, tensors });
    assert_eq!(check_split(&[(None, 5)]), Ok(()));
    assert_eq!(check_split(&[(shard(0, 1, 5), 5)]), Ok(()));
    assert_eq!(check_split(&[(shard(0, 3, 5), 0), (shard(1, 3, 5), 2), (shard(2, 3, 5), 3)]), Ok(()));
    let refused = [
        (vec![(shard(0, 2, 1), 1), (None, 0)], 1, SplitError::NotAShard { number: 2, count: 2 }),
        (vec![(shard(1, 3, 5), 5)], 0, SplitError::Unnamed { number: 2, count: 3 }),
        (vec![(shard(u64::MAX, 3, 5), 5)], 0, SplitError::Unnamed { number: u64::MAX, count: 3 }),
        (vec![(shard(0, 2, 1), 1), (shard(1, 3, 1), 0)], 1, SplitError::Count { expected: 2, found: 3 }),
        (vec![(shard(0, 2, 1), 1), (shard(0, 2, 1), 0)], 1, SplitError::Number { expected: 2, found: 1 }),
        (vec![(shard(1, 1, 1), 1)], 0, SplitError::Number { expected: 1, found: 2 }),
        (vec![(shard(0, 2, 3), 1), (shard(1, 2, 3), 1)], 0, SplitError::Tensors { expected: 3, found: 2 }),
        (vec![(shard(0, 2, 2), 1), (shard(1, 2, 3), 1)], 1, SplitError::Tensors { expected: 3, found: 2 }),
    ];
    for (shards, at, error) in refused {
        assert_eq!(check_split(&shards), Err((at, error)));
    }
}
