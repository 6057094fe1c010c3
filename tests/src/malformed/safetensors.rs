//! One malformed safetensors file, or sharded checkpoint, for each rule.

use super::Case;
use crate::checkpoint::raw;
use std::fs;
use std::os::unix::fs::symlink;

/// The name of every single file here.
pub const NAME: &str = "broken.safetensors";

fn file(rule: &'static str, bytes: Vec<u8>, words: &[&'static str]) -> Case {
    Case::file(rule, NAME, bytes, words)
}

fn header(rule: &'static str, json: &str, data: usize, words: &[&'static str]) -> Case {
    file(rule, raw(json, &vec![0; data]), words)
}

const ONE: &str = r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;

/// Returns a case for every rule of a single file.
pub fn files() -> Vec<Case> {
    let claim = |n: u64| [&n.to_le_bytes()[..], b"{}"].concat();
    let deep = format!(
        r#"{{"t":{{"x":{}{},"dtype":"U8","shape":[],"data_offsets":[0,1]}}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    vec![
        file("empty", vec![], &["0 bytes", "8 bytes"]),
        file("shorter than 8 bytes", vec![1, 2, 3], &["3 bytes", "8 bytes"]),
        file("a header of no bytes", vec![0; 8], &["JSON", "EOF"]),
        file("header over the limit", claim(100_000_001), &["100000001", "100000000"]),
        file("header length of all ones", claim(u64::MAX), &["18446744073709551615"]),
        file("header past the end", claim(3), &["claims 3 bytes", "only 10 bytes"]),
        file("not UTF-8", raw("{}", &[]).into_iter().map(|b| if b == b'{' { 0xff } else { b }).collect(), &["UTF-8"]),
        header("cut off JSON", "{\"t\":", 0, &["\"t\"", "EOF"]),
        header("not JSON", "x", 0, &["JSON"]),
        header("not an object", "[]", 0, &["JSON", "object of tensors"]),
        header("text after the object", "{} x", 0, &["JSON"]),
        header("nested too deep", &deep, 1, &["\"t\"", "recursion"]),
        header("no offsets", r#"{"t":{"dtype":"U8","shape":[4]}}"#, 4, &["\"t\"", "data_offsets"]),
        header("no shape", r#"{"t":{"dtype":"U8","data_offsets":[0,4]}}"#, 4, &["\"t\"", "shape"]),
        header("no dtype", r#"{"t":{"shape":[4],"data_offsets":[0,4]}}"#, 4, &["\"t\"", "dtype"]),
        header(
            "unknown dtype",
            r#"{"t":{"dtype":"F12","shape":[4],"data_offsets":[0,4]}}"#,
            4,
            &["\"t\"", "F12", "BF16", "update floodtide", "save the tensor as"],
        ),
        header("a fraction in the shape", r#"{"t":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}"#, 4, &["\"t\""]),
        header("a negative dimension", r#"{"t":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#, 4, &["\"t\""]),
        header("metadata that is no string", r#"{"__metadata__":{"a":1}}"#, 0, &["string"]),
        header("end before begin", r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#, 4, &["\"t\"", "[4, 0]"]),
        header(
            "data not from the start",
            r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
            6,
            &["\"t\"", "offset 2", "expected 0", "belong to no tensor", "write the file again"],
        ),
        header(
            "a hole",
            r#"{"s":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"t":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#,
            5,
            &["\"t\"", "offset 3", "expected 2", "belong to no tensor"],
        ),
        header(
            "an overlap",
            r#"{"s":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"t":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
            3,
            &["\"t\"", "offset 1", "expected 2", "overlap", "write the file again"],
        ),
        header(
            "elements that overflow",
            r#"{"t":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            0,
            &["\"t\"", "64 bits"],
        ),
        header(
            "bits that overflow",
            r#"{"t":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}"#,
            0,
            &["\"t\"", "64 bits"],
        ),
        header(
            "part of a byte",
            r#"{"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
            2,
            &["\"t\"", "12 bits", "pad"],
        ),
        header(
            "shape and offsets disagree",
            r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
            4,
            &["\"t\"", "8 bytes", "span 4"],
        ),
        header("cut off by one byte", ONE, 3, &["cut off", "64 bytes", "65"]),
        header("one byte too many", ONE, 5, &["66 bytes", "65", "fetch it again"]),
        header(
            "a name twice",
            r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
            &["\"t\"", "twice"],
        ),
        header(
            "a key twice",
            r#"{"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            1,
            &["\"t\"", "dtype", "twice"],
        ),
        header(
            "a name that is hard to print",
            r#"{"a\n\u001b[31m":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
            2,
            &[r"a\n\u{1b}[31m"],
        ),
    ]
}

/// Returns a shard beside an index of this JSON.
fn index(rule: &'static str, json: &str, words: &[&'static str]) -> Case {
    shard(rule, raw(ONE, &[0; 4]), json, words)
}

/// Returns a shard of these bytes beside an index of this JSON.
fn shard(rule: &'static str, bytes: Vec<u8>, json: &str, words: &[&'static str]) -> Case {
    Case::folder(rule, vec![("a.safetensors", bytes), (INDEX, json.into())], words)
}

const INDEX: &str = "model.safetensors.index.json";

/// Returns a case for every rule of sharded checkpoints.
pub fn sharded() -> Vec<Case> {
    let two =
        r#"{"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    vec![
        index("an index that is not JSON", "{", &["index.json", "weight_map"]),
        index("an index without a map", r#"{"metadata":{}}"#, &["index.json", "weight_map"]),
        index("an index of nothing", r#"{"weight_map":{}}"#, &["index.json", "weight_map", "empty"]),
        index(
            "a shard whose name is hard to print",
            r#"{"weight_map":{"t":"a\u001b[31m\n.safetensors"}}"#,
            &["index.json", r"a\u{1b}[31m\n.safetensors", "missing"],
        ),
        index(
            "a tensor mapped twice",
            r#"{"weight_map":{"t":"a.safetensors","t":"a.safetensors"}}"#,
            &["index.json", "\"t\"", "twice"],
        ),
        index(
            "a missing shard",
            r#"{"weight_map":{"t":"b.safetensors"}}"#,
            &["index.json", "b.safetensors", "missing"],
        ),
        index(
            "a name that climbs",
            r#"{"weight_map":{"t":"../../etc/passwd"}}"#,
            &["index.json", "../../etc/passwd", "plain name"],
        ),
        index("a name that is a path", r#"{"weight_map":{"t":"sub/a.safetensors"}}"#, &["plain name"]),
        index("an absolute name", r#"{"weight_map":{"t":"/etc/passwd"}}"#, &["/etc/passwd", "plain name"]),
        index("the parent folder", r#"{"weight_map":{"t":".."}}"#, &["plain name"]),
        index(
            "a tensor that is not in its shard",
            r#"{"weight_map":{"t":"a.safetensors","u":"a.safetensors"}}"#,
            &["index.json", "\"u\"", "a.safetensors"],
        ),
        shard(
            "a tensor that is not in the map",
            raw(two, &[0; 2]),
            r#"{"weight_map":{"s":"a.safetensors"}}"#,
            &["index.json", "\"t\"", "a.safetensors"],
        ),
        shard(
            "a shard cut off by one byte",
            raw(ONE, &[0; 3]),
            r#"{"weight_map":{"t":"a.safetensors"}}"#,
            &["a.safetensors", "cut off"],
        ),
        Case::folder(
            "a name in two shards",
            ["a.safetensors", "b.safetensors"].map(|name| (name, raw(ONE, &[0; 4]))).into(),
            &["\"t\"", "a.safetensors", "b.safetensors"],
        ),
        Case {
            rule: "a link out of the folder",
            write: Box::new(|folder| {
                let inner = folder.join("inner");
                fs::create_dir(&inner).expect("makes");
                fs::write(folder.join("outside.safetensors"), raw(ONE, &[0; 4])).expect("writes");
                symlink("../outside.safetensors", inner.join("a.safetensors")).expect("links");
                fs::write(inner.join(INDEX), r#"{"weight_map":{"t":"a.safetensors"}}"#).expect("writes");
                inner
            }),
            words: vec!["a.safetensors", "symbolic link", "outside.safetensors"],
        },
    ]
}
