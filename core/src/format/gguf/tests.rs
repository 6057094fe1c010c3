//! A violating file for each rule of the format, and valid files with their contents.

mod files;
mod rules;
mod splits;

use super::*;
use crate::element::GgmlType;
use alloc::string::{String, ToString};
use alloc::vec;
use files::{Draft, array, string};
use proptest::prelude::*;

fn parse_whole(file: &[u8]) -> Result<Header<'_>, GgufError> {
    match parse(file, file.len() as u64)? {
        Parsed::Header(header) => Ok(header),
        Parsed::Needs(bytes) => panic!("all {} bytes are there, and {bytes} are asked for", file.len()),
    }
}

/// A file with values of every kind and several types of tensors.
fn rich() -> Draft {
    let mut draft = Draft::new();
    draft.key("general.architecture", 8, &string("llama"));
    for (key, id, bytes) in [
        ("u8", 0, &255_u8.to_le_bytes()[..]),
        ("i8", 1, &(-1_i8).to_le_bytes()),
        ("u16", 2, &65_535_u16.to_le_bytes()),
        ("i16", 3, &(-2_i16).to_le_bytes()),
        ("u32", 4, &4_000_000_000_u32.to_le_bytes()),
        ("i32", 5, &(-3_i32).to_le_bytes()),
        ("f32", 6, &1.5_f32.to_le_bytes()),
        ("bool", 7, &[1]),
        ("u64", 10, &u64::MAX.to_le_bytes()),
        ("i64", 11, &i64::MIN.to_le_bytes()),
        ("f64", 12, &(-0.25_f64).to_le_bytes()),
    ] {
        draft.key(key, id, bytes);
    }
    draft.key("tokens", 9, &array(8, &["a", "", "模"].map(string)));
    draft.key("scores", 9, &array(6, &[0.5_f32, -1.0].map(|score| score.to_le_bytes().to_vec())));
    draft.key("none", 9, &array(8, &[]));
    draft.tensor("weights", &[256, 3], 12);
    draft.tensor("norm", &[7], 0);
    draft.tensor("scalar", &[], 1);
    draft.tensor("empty", &[0, 5], 2);
    draft.tensor("experts", &[32, 2, 3, 4], 8);
    draft
}

#[test]
fn what_was_written_is_read() {
    for version in [2, 3] {
        let file = Draft { version, ..rich() }.bytes();
        let header = parse_whole(&file).expect("valid");
        assert_eq!((header.version(), header.alignment().as_u64()), (version, 32));
        let values: Vec<Value<'_>> = header.metadata()[..12].iter().map(|(_, value)| value.clone()).collect();
        let expected = [
            Value::String(b"llama"),
            Value::U8(255),
            Value::I8(-1),
            Value::U16(65_535),
            Value::I16(-2),
            Value::U32(4_000_000_000),
            Value::I32(-3),
            Value::F32(1.5),
            Value::Bool(true),
            Value::U64(u64::MAX),
            Value::I64(i64::MIN),
            Value::F64(-0.25),
        ];
        assert_eq!(values, expected);
        assert_eq!(header.value("f64"), Some(&Value::F64(-0.25)));
        assert_eq!(header.value("f65"), None);
        let shapes: Vec<(&str, GgmlType, Vec<u64>, u64)> = header
            .entries()
            .iter()
            .map(|entry| (entry.name, entry.ggml, entry.shape().collect(), entry.range.len()))
            .collect();
        let expected = [
            ("weights", GgmlType::Q4_K, vec![3, 256], 432),
            ("norm", GgmlType::F32, vec![7], 28),
            ("scalar", GgmlType::F16, vec![], 2),
            ("empty", GgmlType::Q4_0, vec![5, 0], 0),
            ("experts", GgmlType::Q8_0, vec![4, 3, 2, 32], 816),
        ];
        assert_eq!(shapes, expected);
        assert_eq!(header.entries()[4].ggml_shape(), [32, 2, 3, 4]);
        // Each starts at the aligned end of the previous one, and the first at the start of the
        // data.
        let starts: Vec<u64> = header.entries().iter().map(|entry| entry.range.start() - header.data_start()).collect();
        assert_eq!(starts, [0, 448, 480, 512, 512]);
        assert!(header.data_start().is_multiple_of(32) && header.entries()[0].range.start() == header.data_start());
    }
}

#[test]
fn arrays_are_where_they_lie() {
    let file = rich().bytes();
    let header = parse_whole(&file).expect("valid");
    let array = |key| match header.value(key) {
        Some(Value::Array(array)) => array.clone(),
        other => panic!("{key}: {other:?}"),
    };
    let tokens = array("tokens");
    assert_eq!((tokens.element, tokens.count), (ValueType::String, 3));
    assert!(tokens.iter().eq(["a", "", "模"].map(|token| Value::String(token.as_bytes()))));
    assert_eq!(tokens.range.len(), 3 * 8 + 1 + 3);
    let there = &file[tokens.range.start() as usize..tokens.range.end() as usize];
    assert!(there.starts_with(&[1, 0, 0, 0, 0, 0, 0, 0, b'a']) && there.ends_with("模".as_bytes()));
    assert!(array("scores").iter().eq([Value::F32(0.5), Value::F32(-1.0)]));
    assert_eq!((array("none").count, array("none").iter().count(), array("none").range.len()), (0, 0, 0));
}

#[test]
fn what_is_legal_is_taken() {
    type Legal = (&'static str, fn(&mut Draft));
    let legal: &[Legal] = &[
        ("nothing at all", |_| {}),
        ("an empty name", |draft| draft.tensor("", &[1], 0)),
        ("the longest name", |draft| draft.tensor(&"n".repeat(63), &[1], 0)),
        ("the longest key", |draft| draft.key(&"k".repeat(65_535), 0, &[1])),
        ("an empty string", |draft| draft.key("k", 8, &string(""))),
        ("a string that is no text", |draft| draft.key("k", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0])),
        ("a truth of 2", |draft| draft.key("k", 7, &[2])),
        ("no element, however many there would be", |draft| draft.tensor("t", &[0, 1 << 60], 0)),
        ("the smallest alignment", |draft| draft.align(1)),
        ("the largest alignment", |draft| draft.align(MAX_ALIGNMENT)),
    ];
    for (what, make) in legal {
        let mut draft = Draft::new();
        make(&mut draft);
        draft.tensor("last", &[3], 24);
        parse_whole(&draft.bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    // Without tensors there is no padding, and the last tensor's may be missing.
    let mut draft = Draft::new();
    draft.key("k", 0, &[1]);
    assert!(parse_whole(&draft.header()).expect("valid").entries().is_empty());
    draft.tensor("t", &[3], 24);
    let mut file = draft.bytes();
    file.truncate(file.len() - 29);
    assert_eq!(parse_whole(&file).expect("valid").entries()[0].range.end(), file.len() as u64);
}

#[test]
fn every_ggml_type_is_known_by_its_id() {
    for &ggml in GgmlType::ALL {
        let mut draft = Draft::new();
        draft.tensor("t", &[ggml.block_elements() as i64, 2], ggml.id());
        let file = draft.bytes();
        let header = parse_whole(&file).expect("valid");
        assert_eq!((header.entries()[0].ggml, header.entries()[0].range.len()), (ggml, 2 * ggml.block_bytes()));
    }
}

#[test]
fn every_value_type_has_its_size() {
    for &value_type in ValueType::ALL {
        assert_eq!(ValueType::from_id(value_type.id()), Some(value_type));
        let Some(bytes) = value_type.size() else { continue };
        let mut draft = Draft::new();
        draft.key("k", value_type.id(), &vec![1; bytes as usize]);
        let file = draft.bytes();
        let header = parse_whole(&file).expect("valid");
        assert_eq!(header.metadata()[0].1.value_type(), value_type);
    }
    assert!([-1, 13, i32::MAX, i32::MIN].iter().all(|&id| ValueType::from_id(id).is_none()));
}

/// Parses like a platform that reads exactly what is requested.
fn parse_in_steps(file: &[u8], first: usize) -> (Result<(), GgufError>, usize) {
    let mut read = first.min(file.len());
    for steps in 0.. {
        match parse(&file[..read], file.len() as u64) {
            Ok(Parsed::Header(_)) => return (Ok(()), steps),
            Err(error) => return (Err(error), steps),
            Ok(Parsed::Needs(bytes)) => {
                assert!(bytes > read as u64 && bytes <= file.len() as u64, "{bytes} of {}, with {read}", file.len());
                read = bytes as usize;
            }
        }
    }
    unreachable!("it needs more each time")
}

#[test]
fn a_header_that_is_read_in_parts_is_the_same() {
    let file = rich().bytes();
    for first in 0..file.len() {
        assert_eq!(parse_in_steps(&file, first).0, Ok(()), "{first}");
    }
    // Each string of an array needs at least 8 bytes, so a vocabulary is not requested string by
    // string.
    let mut draft = Draft::new();
    draft.key("tokens", 9, &array(8, &vec![string("ab"); 100_000]));
    let file = draft.bytes();
    let (result, steps) = parse_in_steps(&file, 64);
    assert!(result.is_ok() && steps <= 12, "{steps} steps");
}

proptest! {
    /// Damaged files: an error or a header, and the same however much is read at once.
    #[test]
    fn no_damage_makes_it_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
        first in 0_usize..2000,
    ) {
        let mut file = rich().bytes();
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if cuts {
            file.truncate(cut.index(file.len()));
        }
        let whole = parse(&file, file.len() as u64).map(|parsed| match parsed {
            Parsed::Header(header) => check(&header, &file),
            Parsed::Needs(_) => panic!("all of it is there"),
        });
        match (whole, parse_in_steps(&file, first).0) {
            (whole, Err(GgufError::HeaderTooLarge { .. })) => prop_assert!(whole.is_err()),
            (whole, in_steps) => prop_assert_eq!(whole, in_steps),
        }
    }

    /// Arbitrary bytes after a valid start.
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tensors in 0_u8..4, keys in 0_u8..4, len in any::<u64>()) {
        let start = [&b"GGUF\x03\0\0\0"[..], &u64::from(tensors).to_le_bytes(), &u64::from(keys).to_le_bytes(), &bytes].concat();
        for file_len in [start.len() as u64, len] {
            if let Ok(Parsed::Header(header)) = parse(&start, file_len) {
                prop_assert!(header.entries().iter().all(|entry| entry.range.end() <= file_len));
            }
        }
    }
}

/// Checks every accepted header.
fn check(header: &Header<'_>, file: &[u8]) {
    let mut end = header.data_start();
    for entry in header.entries() {
        assert_eq!(entry.range.start(), header.alignment().up(end).expect("in the file"));
        end = entry.range.end();
        let elements: u64 = entry.shape().product();
        assert_eq!(entry.range.len(), elements / entry.ggml.block_elements() * entry.ggml.block_bytes());
    }
    assert!(header.entries().is_empty() || end <= file.len() as u64);
    for (_, value) in header.metadata() {
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count() as u64, array.count);
        }
    }
    let mut names: Vec<&str> = header.entries().iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), header.entries().len());
}

#[test]
fn messages_are_short_and_cannot_act_on_a_terminal() {
    let hostile = "\u{1b}[2J\n".repeat(5000);
    let mut draft = Draft::new();
    draft.key(&hostile, 9, &array(9, &[]));
    let mut twice = Draft::new();
    twice.key(&hostile, 0, &[1]);
    twice.key(&hostile, 0, &[1]);
    let mut tensor = Draft::new();
    tensor.tensor("\u{1b}[2J", &[-1], 0);
    for draft in [draft, twice, tensor] {
        let message = parse_whole(&draft.bytes()).expect_err("broken").to_string();
        assert!(!message.contains(char::is_control) && message.len() < 1000, "{message:.1000}");
        assert!(message.contains(r"\u{1b}[2J"), "{message}");
    }
}

#[test]
fn types_are_shown_by_their_names() {
    let names: Vec<String> = ValueType::ALL.iter().map(ToString::to_string).collect();
    let expected = "u8 i8 u16 i16 u32 i32 f32 bool string array u64 i64 f64";
    assert_eq!(names.join(" "), expected);
    assert_eq!(alloc::format!("{:>5}|", ValueType::U8), "   u8|");
}
