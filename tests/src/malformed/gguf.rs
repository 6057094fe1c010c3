//! One malformed GGUF file, or split model, for each rule.

use super::Case;
use crate::gguf::{Draft, array, described, string};
use floodtide_core::GgmlType;

/// The name of every single file here.
pub const NAME: &str = "broken.gguf";

fn bytes(rule: &'static str, bytes: Vec<u8>, words: &[&'static str]) -> Case {
    Case::file(rule, NAME, bytes, words)
}

fn file(rule: &'static str, draft: &Draft, words: &[&'static str]) -> Case {
    bytes(rule, draft.to_bytes(), words)
}

/// Returns a file with one tensor of this description, at offset 0.
fn tensor(rule: &'static str, name: &str, dims: &[i64], id: i32, words: &[&'static str]) -> Case {
    file(rule, &Draft::new().raw_tensor(&described(name, dims, id, 0)), words)
}

/// Returns a case for every rule of a single file.
pub fn files() -> Vec<Case> {
    [starts(), metadata(), tensors(), data()].into_iter().flatten().collect()
}

fn starts() -> Vec<Case> {
    let draft = || Draft::new().tensor("t", &[4], GgmlType::F32);
    let version = |version| Draft { version, ..draft() };
    let counts = |tensors, keys| Draft { tensor_count: Some(tensors), key_count: Some(keys), ..draft() };
    vec![
        bytes("empty", vec![], &["4 bytes", "only 0"]),
        bytes("only the magic", b"GGUF".to_vec(), &["the start of the header", "only 4"]),
        bytes("cut off in its counts", draft().to_bytes()[..20].to_vec(), &["8 bytes from byte 16 on", "only 20"]),
        file("another magic", &Draft { magic: *b"GGML", ..draft() }, &["\"GGUF\""]),
        file("version 1", &version(1), &["version 1", "not supported"]),
        file("version 0", &version(0), &["version 0", "2 and 3"]),
        file("version 4", &version(4), &["version 4", "2 and 3"]),
        file("a big-endian file", &version(3 << 24), &["big-endian", "version 3", "gguf_convert_endian"]),
        file("less than no tensors", &counts(-1, 0), &["-1 tensors"]),
        file("less than no keys", &counts(0, i64::MIN), &["-9223372036854775808 metadata values"]),
        file("more tensors than fit", &counts(i64::MAX, 0), &["9223372036854775807 tensors"]),
        file("more keys than fit", &counts(0, 1 << 40), &["1099511627776 metadata values"]),
    ]
}

fn metadata() -> Vec<Case> {
    let key = |key: &str, id: i32, value: &[u8]| Draft::new().key(key, id, value);
    let claimed = |len: u64| [&len.to_le_bytes()[..], &[b'k'; 30]].concat();
    vec![
        file("an empty key", &key("", 2, &[1, 0]), &["key number 0", "empty"]),
        file("a key past the end", &Draft::new().raw_key(&claimed(31)), &["key number 0", "31 bytes from byte 32 on"]),
        file(
            "a key longer than allowed",
            &Draft::new().raw_key(&claimed(u64::MAX)),
            &["18446744073709551615", "65535"],
        ),
        file(
            "a key that is no text",
            &Draft::new().raw_key(&[&2_u64.to_le_bytes()[..], b"k\xff", &[0; 5]].concat()),
            &["key number 0", "UTF-8", "byte 1"],
        ),
        file("a key twice", &key("k", 0, &[1]).key("k", 0, &[1]), &["\"k\"", "twice"]),
        file("a type that is none", &key("k", 13, &[0; 8]), &["\"k\"", "type 13"]),
        file("a type below zero", &key("k", -1, &[0; 8]), &["\"k\"", "type -1"]),
        file("an element type that is none", &key("k", 9, &array(13, 0, &[])), &["\"k\"", "elements of type 13"]),
        file("an array of arrays", &key("k", 9, &array(9, 0, &[])), &["\"k\"", "array of arrays"]),
        file("a value past the end", &key("k", 10, &[0; 7]), &["\"k\"", "8 bytes"]),
        file("a string past the end", &key("k", 8, &3_u64.to_le_bytes()), &["\"k\"", "3 bytes"]),
        file("a string of absurd length", &key("k", 8, &u64::MAX.to_le_bytes()), &["\"k\"", "18446744073709551615"]),
        file("an array past the end", &key("k", 9, &array(4, 3, &[0; 8])), &["\"k\"", "12 bytes"]),
        file("an array that overflows", &key("k", 9, &array(12, 1 << 61, &[0; 8])), &["\"k\"", "18446744073709551615"]),
        file("an array of strings past the end", &key("k", 9, &array(8, 2, &[0; 8])), &["\"k\"", "16 bytes"]),
        file(
            "a string in an array past the end",
            &key("k", 9, &array(8, 1, &9_u64.to_le_bytes())),
            &["\"k\"", "9 bytes"],
        ),
        file("an alignment of 64 bits", &key("general.alignment", 10, &[32; 8]), &["general.alignment", "u64", "u32"]),
        file("an alignment of 0", &key("general.alignment", 4, &[0; 4]), &["general.alignment", "power of two"]),
        file("an alignment of 48", &key("general.alignment", 4, &[48, 0, 0, 0]), &["general.alignment", "48"]),
        file("an absurd alignment", &key("general.alignment", 4, &[0, 0, 0, 128]), &["2147483648", "16777216"]),
        file("a key that is hard to print", &key("a\n\u{1b}[31m", 9, &array(9, 0, &[])), &[r"a\n\u{1b}[31m"]),
    ]
}

fn tensors() -> Vec<Case> {
    let named = |name: &[u8]| {
        let description = [&(name.len() as u64).to_le_bytes()[..], name, &described("", &[1], 0, 0)[8..]].concat();
        Draft::new().raw_tensor(&description)
    };
    let past = [&50_u64.to_le_bytes()[..], &[b'n'; 30]].concat();
    let cut = described("tensor", &[1, 2, 3, 4], 0, 0)[..40].to_vec();
    vec![
        tensor("a name that is too long", &"n".repeat(64), &[1], 0, &["tensor number 0", "64 bytes"]),
        file("a name past the end", &Draft::new().raw_tensor(&past), &["the name of tensor number 0", "50 bytes"]),
        file("a name that is no text", &named(b"t\xff"), &["tensor number 0", "UTF-8", "byte 1"]),
        file("a name with a zero byte", &named(b"a\0b"), &["tensor number 0", "zero byte at 1"]),
        file(
            "a name twice",
            &Draft::new().tensor("t", &[1], GgmlType::F32).tensor("t", &[1], GgmlType::F32),
            &["\"t\"", "twice"],
        ),
        file("a description past the end", &Draft::new().raw_tensor(&cut), &["\"tensor\"", "description"]),
        tensor("five dimensions", "t", &[1; 5], 0, &["\"t\"", "5 dimensions", "at most 4"]),
        tensor("a negative dimension", "t", &[1, -2], 0, &["\"t\"", "-2", "dimension 1"]),
        tensor("elements that overflow", "t", &[1 << 32, 1 << 32], 24, &["\"t\"", "63 bits"]),
        tensor("elements that wrap to something", "t", &[1 << 32, (1 << 32) + 1], 24, &["\"t\"", "63 bits"]),
        tensor("bytes that overflow", "t", &[1 << 61], 0, &["\"t\"", "63 bits"]),
        tensor("an unknown type", "t", &[256], 43, &["\"t\"", "type 43", "unknown"]),
        tensor("a type below zero", "t", &[256], -1, &["\"t\"", "type -1", "unknown"]),
        tensor("a removed type", "t", &[256], 4, &["\"t\"", "type 4", "removed"]),
        tensor("part of a block", "t", &[100], 12, &["\"t\"", "Q4_K", "100", "256"]),
    ]
}

fn data() -> Vec<Case> {
    let second = |offset| Draft::new().tensor("s", &[1], GgmlType::F32).raw_tensor(&described("t", &[1], 0, offset));
    let whole = Draft::new().tensor("s", &[1], GgmlType::F32).tensor("t", &[8], GgmlType::F32).to_bytes();
    vec![
        file(
            "data not from the start",
            &Draft::new().raw_tensor(&described("t", &[1], 0, 32)),
            &["\"t\"", "expected 0"],
        ),
        file("an overlap", &second(0), &["\"t\"", "offset 0", "expected 32"]),
        file("no padding", &second(4), &["\"t\"", "offset 4", "expected 32"]),
        file("a hole", &second(64), &["\"t\"", "offset 64", "expected 32"]),
        file("an absurd offset", &second(u64::MAX), &["\"t\"", "18446744073709551615"]),
        bytes("cut off by one byte", whole[..whole.len() - 1].to_vec(), &["\"t\"", "cut off"]),
        bytes("no data", whole[..whole.len() - 64].to_vec(), &["\"s\"", "cut off"]),
        tensor("more data than any file has", "t", &[i64::MAX / 4], 0, &["\"t\"", "cut off"]),
    ]
}

/// Returns a model of two shards with one change; the path is that of the folder.
fn split(rule: &'static str, change: fn(&mut Vec<(String, Draft)>), words: &[&'static str]) -> Case {
    let shard = |number: u16, name: &str| {
        let draft = Draft::new().shard(number, 2, 2).tensor(name, &[4], GgmlType::F32);
        (format!("m-{:05}-of-00002.gguf", number + 1), draft)
    };
    let mut files = vec![shard(0, "s"), shard(1, "t")];
    change(&mut files);
    Case::folder(rule, files.into_iter().map(|(name, draft)| (name, draft.to_bytes())).collect(), words)
}

/// Returns a case for every rule between shards.
pub fn split_models() -> Vec<Case> {
    vec![
        split(
            "a missing shard",
            |files| drop(files.remove(1)),
            &["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "missing"],
        ),
        split("a missing first shard", |files| drop(files.remove(0)), &["m-00001-of-00002.gguf", "missing"]),
        split(
            "a shard that is none",
            |files| files[1].1 = Draft::new().tensor("t", &[4], GgmlType::F32),
            &["m-00002-of-00002.gguf", "shard 2 of 2", "split.count"],
        ),
        split(
            "two shards that have changed places",
            |files| {
                let first = files[0].0.clone();
                files[0].0 = std::mem::replace(&mut files[1].0, first);
            },
            &["m-00001-of-00002.gguf", "shard 1", "split.no"],
        ),
        split(
            "a shard of another number of them",
            |files| files[1].1 = Draft::new().shard(1, 3, 2).tensor("t", &[4], GgmlType::F32),
            &["m-00002-of-00002.gguf", "2 shards", "one of 3"],
        ),
        split(
            "a tensor less than there should be",
            |files| files[1].1 = Draft::new().shard(1, 2, 2),
            &["m-00001-of-00002.gguf", "have 2 tensors", "they have 1"],
        ),
        split(
            "a name in two shards",
            |files| files[1].1 = Draft::new().shard(1, 2, 2).tensor("s", &[4], GgmlType::F32),
            &["\"s\"", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"],
        ),
        split(
            "a shard without its number",
            |files| files[1].1 = Draft::new().key("split.count", 2, &[2, 0]).tensor("t", &[4], GgmlType::F32),
            &["m-00002-of-00002.gguf", "split.no"],
        ),
        split(
            "a count that is a text",
            |files| files[1].1 = Draft::new().key("split.count", 8, &string("2")).tensor("t", &[4], GgmlType::F32),
            &["m-00002-of-00002.gguf", "split.count", "string"],
        ),
        split(
            "a shard of another name",
            |files| {
                files.truncate(1);
                files[0].0 = "m.gguf".to_owned();
            },
            &["m.gguf", "shard 1 of 2", "-00001-of-00002.gguf"],
        ),
        split("a broken shard", |files| files[1].1.version = 9, &["m-00002-of-00002.gguf", "version 9"]),
    ]
}

/// Paths that do not name one checkpoint.
pub fn ambiguous() -> Vec<Case> {
    vec![split(
        "two models",
        |files| files.push(("other.gguf".to_owned(), Draft::new())),
        &["several", "m-00001-of-00002.gguf", "other.gguf"],
    )]
}
