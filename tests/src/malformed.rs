//! One malformed checkpoint for each rule of the formats, with the words that its error must contain, and the checks that it does.

pub mod gguf;

use crate::checkpoint::{folder, raw};
use crate::command;
use std::fs;
use std::path::{Path, PathBuf};

/// A malformed checkpoint.
pub struct Case {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// Writes it into a folder and returns the path to load.
    pub write: Box<dyn Fn(&Path) -> PathBuf>,
    /// What the error must say.
    pub words: Vec<&'static str>,
}

/// Fails unless core's own parser, which gets the path to load, refuses each case with its words.
///
/// # Panics
/// That is how it fails.
pub fn assert_refused_by_core(cases: Vec<Case>, parse: impl Fn(&Path) -> Result<(), String>) {
    for case in cases {
        let folder = folder();
        let error = parse(&(case.write)(folder.path())).expect_err(case.rule);
        for word in &case.words {
            assert!(error.contains(word), "{}: \"{word}\" is not in \"{error}\"", case.rule);
        }
    }
}

/// Fails unless each of the command's verbs refuses each case with its words and these, which all share.
///
/// # Panics
/// That is how it fails.
pub fn assert_refused_by_command(cases: Vec<Case>, verbs: &[&str], shared: &[&str]) {
    for case in cases {
        let folder = folder();
        let path = (case.write)(folder.path());
        println!("{}", case.rule);
        for verb in verbs {
            command::run([verb.as_ref(), path.as_os_str()]).assert_error(1, &[&case.words, shared].concat());
        }
    }
}

fn file(rule: &'static str, bytes: Vec<u8>, words: &[&'static str]) -> Case {
    let write = move |folder: &Path| {
        let path = folder.join("broken.safetensors");
        fs::write(&path, &bytes).expect("writes");
        path
    };
    Case { rule, write: Box::new(write), words: words.to_vec() }
}

fn header(rule: &'static str, json: &str, data: usize, words: &[&'static str]) -> Case {
    file(rule, raw(json, &vec![0; data]), words)
}

const ONE: &str = r#"{"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;

/// Every rule of a single file.
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
            &["\"t\"", "offset 2", "expected 0", "hole", "write the file again"],
        ),
        header(
            "a hole",
            r#"{"s":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"t":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#,
            5,
            &["\"t\"", "offset 3", "expected 2", "hole"],
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

fn index(rule: &'static str, json: &'static str, words: &[&'static str]) -> Case {
    let write = move |folder: &Path| {
        fs::write(folder.join("a.safetensors"), raw(ONE, &[0; 4])).expect("writes");
        fs::write(folder.join("model.safetensors.index.json"), json).expect("writes");
        folder.to_owned()
    };
    Case { rule, write: Box::new(write), words: words.to_vec() }
}

/// Every rule of sharded checkpoints.
pub fn sharded() -> Vec<Case> {
    let mut cases = vec![
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
    ];
    cases.push(Case {
        rule: "a tensor that is not in the map",
        write: Box::new(|folder| {
            let two = r#"{"s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
            fs::write(folder.join("a.safetensors"), raw(two, &[0; 2])).expect("writes");
            let map = r#"{"weight_map":{"s":"a.safetensors"}}"#;
            fs::write(folder.join("model.safetensors.index.json"), map).expect("writes");
            folder.to_owned()
        }),
        words: vec!["index.json", "\"t\"", "a.safetensors"],
    });
    cases.push(Case {
        rule: "a name in two shards",
        write: Box::new(|folder| {
            for name in ["a.safetensors", "b.safetensors"] {
                fs::write(folder.join(name), raw(ONE, &[0; 4])).expect("writes");
            }
            folder.to_owned()
        }),
        words: vec!["\"t\"", "a.safetensors", "b.safetensors"],
    });
    cases.push(Case {
        rule: "a link out of the folder",
        write: Box::new(|folder| {
            let inner = folder.join("inner");
            fs::create_dir(&inner).expect("makes");
            fs::write(folder.join("outside.safetensors"), raw(ONE, &[0; 4])).expect("writes");
            std::os::unix::fs::symlink("../outside.safetensors", inner.join("a.safetensors")).expect("links");
            let map = r#"{"weight_map":{"t":"a.safetensors"}}"#;
            fs::write(inner.join("model.safetensors.index.json"), map).expect("writes");
            inner
        }),
        words: vec!["a.safetensors", "symbolic link", "outside.safetensors"],
    });
    cases.push(Case {
        rule: "a shard cut off by one byte",
        write: Box::new(|folder| {
            fs::write(folder.join("a.safetensors"), raw(ONE, &[0; 3])).expect("writes");
            let map = r#"{"weight_map":{"t":"a.safetensors"}}"#;
            fs::write(folder.join("model.safetensors.index.json"), map).expect("writes");
            folder.to_owned()
        }),
        words: vec!["a.safetensors", "cut off"],
    });
    cases
}
