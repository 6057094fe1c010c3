//! One malformed ServerlessLLM checkpoint for each rule, with the words that its error must
//! contain.

use super::Case;
use crate::checkpoint::raw;
use std::fs;

/// Returns a checkpoint of this index and partitions of these lengths.
fn checkpoint(
    rule: &'static str,
    json: impl Into<String>,
    partitions: &'static [usize],
    words: &[&'static str],
) -> Case {
    let names: Vec<_> = (0..partitions.len()).map(|number| format!("tensor.data_{number}")).collect();
    named(rule, json, names.into_iter().zip(partitions.iter().copied()).collect(), words)
}

/// Returns a checkpoint of this index and files of these names and lengths.
fn named(rule: &'static str, json: impl Into<String>, files: Vec<(String, usize)>, words: &[&'static str]) -> Case {
    let mut files: Vec<_> = files.into_iter().map(|(name, bytes)| (name, vec![0; bytes])).collect();
    files.push(("tensor_index.json".to_owned(), json.into().into_bytes()));
    Case::folder(rule, files, words)
}

/// Returns a checkpoint of partitions of 16 and 8 bytes, with this record and one that fills the
/// second partition.
fn record(rule: &'static str, record: &str, words: &[&'static str]) -> Case {
    let json = format!(r#"{{"z":[16,8,[8],[1],"torch.int8"],"t":{record}}}"#);
    checkpoint(rule, json, &[16, 8], &[words, &["\"t\""]].concat())
}

/// The same in Tensora's dialect.
fn tensora(rule: &'static str, record: &str, words: &[&'static str]) -> Case {
    let json = format!(r#"{{"z":[0,8,[8],[1],"i8",1],"t":{record}}}"#);
    checkpoint(rule, json, &[16, 8], &[words, &["\"t\""]].concat())
}

const ONE: &str = r#"{"t":[0,4,[4],[1],"torch.int8"]}"#;

/// Returns a case for every rule of an index.
pub fn indexes() -> Vec<Case> {
    vec![
        checkpoint("an index that is no JSON", "x", &[4], &["JSON", "object of records"]),
        checkpoint("an empty index file", "", &[4], &["JSON", "EOF"]),
        checkpoint("an index that is a list", "[1]", &[4], &["JSON", "object of records"]),
        checkpoint("an index with something behind it", format!("{ONE} {ONE}"), &[4], &["JSON", "trailing"]),
        checkpoint("a cut off index", r#"{"t":[0,4,[4]"#, &[4], &["\"t\"", "EOF"]),
        checkpoint("an index of no partition", "{}", &[], &["no partition", "tensor.data_0"]),
        checkpoint(
            "an index that is not UTF-8 throughout",
            "{\"t\":[0,4,[4],[1],\"torch.int8\"],\"\\ud800\":[0,4,[4],[1],\"torch.int8\"]}",
            &[4],
            &["JSON"],
        ),
        checkpoint(
            "a name twice",
            r#"{"t":[0,4,[4],[1],"torch.int8"],"t":[4,4,[4],[1],"torch.int8"]}"#,
            &[8],
            &["\"t\"", "twice"],
        ),
        checkpoint(
            "a name twice, once escaped",
            r#"{"t":[0,4,[4],[1],"torch.int8"],"\u0074":[0,4,[4],[1],"torch.int8"]}"#,
            &[4],
            &["\"t\"", "twice"],
        ),
        checkpoint("a name that is hard to print", r#"{"a\n\u001b[31m":3}"#, &[4], &[r"a\n\u{1b}[31m"]),
        record("a record that is an object", r#"{"offset":0}"#, &["a record of 5 elements"]),
        record("a record that is null", "null", &["a record of 5 elements"]),
        record("a record of 4 elements", "[0,4,[4],[1]]", &["invalid length 4", "5 elements"]),
        record("a record of 7 elements", r#"[0,4,[4],[1],"torch.int8",0,0]"#, &["more than 5 elements"]),
        record("a negative offset", r#"[-1,4,[4],[1],"torch.int8"]"#, &["-1"]),
        record("a negative size", r#"[0,-4,[4],[1],"torch.int8"]"#, &["-4"]),
        record("a negative dimension", r#"[0,4,[-4],[1],"torch.int8"]"#, &["-4"]),
        record("a negative stride", r#"[0,4,[4],[-1],"torch.int8"]"#, &["-1"]),
        record("a fraction as an offset", r#"[0.5,4,[4],[1],"torch.int8"]"#, &["0.5"]),
        record("a number that 64 bits do not hold", r#"[18446744073709551616,4,[4],[1],"torch.int8"]"#, &["u64"]),
        record("a shape that is no list", r#"[0,4,4,[1],"torch.int8"]"#, &["a shape"]),
        record("strides that are no list", r#"[0,4,[4],1,"torch.int8"]"#, &["strides"]),
        record("a dtype that is no string", "[0,4,[4],[1],7]", &["a string"]),
        record(
            "a dtype that is not written",
            r#"[0,4,[4],[1],"torch.bool"]"#,
            &["torch.bool", "torch.float16", "save the model again", "update floodtide"],
        ),
        record("a dtype of the other dialect", r#"[0,4,[4],[1],"i8"]"#, &["\"i8\"", "torch.int8"]),
        record("a record of the other dialect", r#"[0,4,[4],[1],"i8",0]"#, &["6 elements", "merged from two dialects"]),
        record(
            "a stride too few",
            r#"[0,4,[2,2],[1],"torch.int8"]"#,
            &["[2, 2]", "one for each dimension", "save the model again"],
        ),
        record("columns first", r#"[0,4,[2,2],[1,2],"torch.int8"]"#, &["[1, 2]", "row-major", "contiguous"]),
        record("rows that are apart", r#"[0,6,[2,2],[3,1],"torch.int8"]"#, &["[3, 1]", "row-major"]),
        record("a row that stands for all", r#"[0,4,[2,2],[0,1],"torch.int8"]"#, &["[0, 1]", "row-major"]),
        record(
            "a shape of too many elements",
            r#"[0,0,[4294967296,4294967296],[4294967296,1],"torch.int8"]"#,
            &["64 bits"],
        ),
        record("a shape of too many bytes", r#"[0,0,[2305843009213693952],[1],"torch.int64"]"#, &["64 bits"]),
        record("a size that is less than the shape's", r#"[0,4,[3],[1],"torch.int16"]"#, &["takes 6 bytes", "has 4"]),
        record("a size that is more than the shape's", r#"[0,8,[3],[1],"torch.int16"]"#, &["takes 6 bytes", "has 8"]),
        record(
            "an end past every offset",
            r#"[18446744073709551615,4,[4],[1],"torch.int8"]"#,
            &["18446744073709551615"],
        ),
        record("an end past the last partition", r#"[22,4,[4],[1],"torch.int8"]"#, &["22..26", "24 bytes"]),
        record(
            "a record in two partitions",
            r#"[14,4,[4],[1],"torch.int8"]"#,
            &["14..18", "tensor.data_0", "ends at 16"],
        ),
        record(
            "records that overlap",
            r#"[20,4,[4],[1],"torch.int8"]"#,
            &["\"z\"", "overlap", "offset 4", "tensor.data_1"],
        ),
        tensora("a partition that is not there", r#"[0,4,[4],[1],"i8",2]"#, &["partition 2", "2 here"]),
        tensora("a partition that cannot be", r#"[0,4,[4],[1],"i8",18446744073709551615]"#, &["18446744073709551615"]),
        tensora("a negative partition", r#"[0,4,[4],[1],"i8",-1]"#, &["-1"]),
        tensora("a record past its partition", r#"[14,4,[4],[1],"i8",0]"#, &["14..18", "tensor.data_0", "16 bytes"]),
        tensora("a part of a byte", r#"[0,2,[3],[1],"f4",0]"#, &["inside a byte"]),
        tensora("a dtype of the original", r#"[0,4,[4],[1],"torch.int8",0]"#, &["torch.int8", "bf16"]),
        checkpoint(
            "a partition that nothing lies in",
            r#"{"t":[0,4,[4],[1],"torch.int8"]}"#,
            &[4, 8],
            &["tensor.data_1", "8 bytes", "no tensor"],
        ),
        checkpoint("a partition cut off by one byte", ONE, &[3], &["\"t\"", "0..4", "3 bytes"]),
    ]
}

/// Returns a case for every rule of the files beside the index.
pub fn folders() -> Vec<Case> {
    let two = r#"{"t":[0,4,[4],[1],"i8",1],"u":[0,4,[4],[1],"i8",0]}"#;
    let files = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 4)).collect();
    vec![
        named("no partition", ONE, files(&[]), &["tensor_index.json", "no partition", "tensor.data_0"]),
        named(
            "the first partition is missing",
            two,
            files(&["tensor.data_1"]),
            &["tensor_index.json", "\"tensor.data_0\" is missing", "tensor.data_1"],
        ),
        named(
            "a partition between others is missing",
            two,
            files(&["tensor.data_0", "tensor.data_1", "tensor.data_3"]),
            &["\"tensor.data_2\" is missing", "tensor.data_3"],
        ),
        named("the last partition is missing", two, files(&["tensor.data_0"]), &["\"t\"", "partition 1", "1 here"]),
        named(
            "a number with a zero before it",
            ONE,
            files(&["tensor.data_0", "tensor.data_01"]),
            &["tensor.data_01", "not valid for a partition"],
        ),
        named(
            "a number that is too large",
            ONE,
            files(&["tensor.data_0", "tensor.data_4294967296"]),
            &["tensor.data_4294967296", "not valid for a partition"],
        ),
        Case {
            rule: "a partition that is a folder",
            write: Box::new(|folder| {
                fs::create_dir(folder.join("tensor.data_0")).expect("makes");
                fs::write(folder.join("tensor_index.json"), ONE).expect("writes");
                folder.to_owned()
            }),
            words: vec!["tensor.data_0", "a folder"],
        },
    ]
}

/// Paths that do not name one checkpoint.
pub fn ambiguous() -> Vec<Case> {
    vec![
        Case {
            rule: "a partition by itself",
            write: Box::new(|folder| {
                fs::write(folder.join("tensor.data_0"), [0; 4]).expect("writes");
                fs::write(folder.join("tensor_index.json"), ONE).expect("writes");
                folder.join("tensor.data_0")
            }),
            words: vec!["tensor.data_0", "one partition of a ServerlessLLM checkpoint", "tensor_index.json"],
        },
        Case::folder(
            "a ServerlessLLM checkpoint and shards in one folder",
            vec![
                ("tensor.data_0", vec![0; 4]),
                ("tensor_index.json", ONE.into()),
                ("model.safetensors", raw("{}", &[])),
            ],
            &["several formats", "model.safetensors", "tensor_index.json"],
        ),
    ]
}
