//! One violation of every rule.

use super::super::*;
use super::files::{Draft, array, described, string};
use super::parse_whole;
use crate::element::GgmlType;
use alloc::string::{String, ToString};

fn refused(make: impl FnOnce(&mut Draft)) -> GgufError {
    let mut draft = Draft::new();
    make(&mut draft);
    parse_whole(&draft.bytes()).expect_err("a broken rule")
}

fn t() -> String {
    "t".to_string()
}

#[test]
fn the_start() {
    assert_eq!(refused(|draft| draft.magic = *b"GGML"), GgufError::Magic { found: *b"GGML" });
    assert_eq!(refused(|draft| draft.version = 1), GgufError::Version1);
    for version in [0, 4, 65_535, u32::MAX] {
        assert_eq!(refused(|draft| draft.version = version), GgufError::UnknownVersion { version });
    }
    for version in [2, 3] {
        let turned = refused(|draft| draft.version = u32::swap_bytes(version));
        assert_eq!(turned, GgufError::BigEndian { version });
    }
    for len in 0..24 {
        let error = parse_whole(&Draft::new().header()[..len]).expect_err("cut off");
        assert!(matches!(error, GgufError::PastEnd { position: HeaderPosition::Start, .. }), "{len}: {error}");
    }
}

#[test]
fn counts() {
    let error = refused(|draft| draft.tensor_count = Some(-1));
    assert_eq!(error, GgufError::NegativeCount { what: "tensors", count: -1 });
    let error = refused(|draft| draft.key_count = Some(i64::MIN));
    assert_eq!(error, GgufError::NegativeCount { what: "metadata values", count: i64::MIN });
    let error = refused(|draft| draft.tensor_count = Some(i64::MAX));
    assert!(matches!(error, GgufError::Counts { tensors, keys: 0, .. } if tensors == i64::MAX as u64), "{error}");
    let error = refused(|draft| (draft.tensor_count, draft.key_count) = (Some(2), Some(1)));
    assert_eq!(error, GgufError::Counts { tensors: 2, keys: 1, min: 86, file_len: 24 });
    // The file has this many bytes, but no keys and no tensors in them.
    let mut file = Draft { tensor_count: Some(2), key_count: Some(1), ..Draft::new() }.header();
    file.resize(24 + 62, 0);
    assert_eq!(parse_whole(&file).unwrap_err(), GgufError::EmptyKey { number: 0 });
}

#[test]
fn keys() {
    assert_eq!(refused(|draft| draft.key("", 2, &[1, 0])), GgufError::EmptyKey { number: 0 });
    let long = refused(|draft| {
        draft.key("k", 0, &[1]);
        draft.key(&"k".repeat(65_536), 0, &[1]);
    });
    assert_eq!(long, GgufError::KeyTooLong { number: 1, len: 65_536 });
    let bytes = [&3_u64.to_le_bytes()[..], b"a\xffb", &0_i32.to_le_bytes(), &[1]].concat();
    assert_eq!(refused(|draft| draft.raw_key(&bytes)), GgufError::KeyNotUtf8 { number: 0, at: 1 });
    let twice = refused(|draft| ["k", "l", "k"].into_iter().for_each(|key| draft.key(key, 0, &[1])));
    assert_eq!(twice, GgufError::DuplicateKey { key: "k".to_string() });
    let claimed = refused(|draft| draft.raw_key(&[&100_u64.to_le_bytes()[..], &[b'k'; 20]].concat()));
    assert_eq!(claimed, GgufError::PastEnd { position: HeaderPosition::Key(0), at: 32, needed: 100, file_len: 52 });
}

#[test]
fn values() {
    let key = || "k".to_string();
    for id in [-1, 13] {
        let unknown = refused(|draft| draft.key("k", id, &[0; 16]));
        assert_eq!(unknown, GgufError::UnknownValueType { key: key(), id });
        let unknown = refused(|draft| draft.key("k", 9, &array(id, &[])));
        assert_eq!(unknown, GgufError::UnknownElementType { key: key(), id });
    }
    assert_eq!(refused(|draft| draft.key("k", 9, &array(9, &[]))), GgufError::NestedArray { key: key() });
    let position = || HeaderPosition::Value(key());
    // The counts end at 24, the key at 33, its type at 37.
    let past = |at, needed, file_len| GgufError::PastEnd { position: position(), at, needed, file_len };
    assert_eq!(refused(|draft| draft.key("k", 10, &[0; 7])), past(37, 8, 44));
    assert_eq!(refused(|draft| draft.key("k", 8, &3_u64.to_le_bytes())), past(45, 3, 45));
    assert_eq!(refused(|draft| draft.key("k", 8, &u64::MAX.to_le_bytes())), past(45, u64::MAX, 45));
    let claim = |element: i32, count: u64| [&element.to_le_bytes()[..], &count.to_le_bytes(), &[0; 16]].concat();
    for (element, count, needed) in
        [(0, 17, 17), (12, 3, 24), (12, 1 << 61, u64::MAX), (8, 3, 24), (8, 1 << 61, u64::MAX), (0, u64::MAX, u64::MAX)]
    {
        assert_eq!(
            refused(|draft| draft.key("k", 9, &claim(element, count))),
            past(49, needed, 65),
            "{element} {count}"
        );
    }
    // The lengths fit, the strings do not.
    let strings =
        [&8_i32.to_le_bytes()[..], &2_u64.to_le_bytes(), &string("abc"), &4_u64.to_le_bytes(), b"abc"].concat();
    assert_eq!(refused(|draft| draft.key("k", 9, &strings)), past(68, 4, 71));
}

#[test]
fn alignments() {
    for found in [0, 3, 33, MAX_ALIGNMENT + 1, 2 * MAX_ALIGNMENT, u32::MAX] {
        let error = refused(|draft| draft.key("general.alignment", 4, &found.to_le_bytes()));
        assert_eq!(error, GgufError::Alignment { found });
    }
    let error = refused(|draft| draft.key("general.alignment", 10, &32_u64.to_le_bytes()));
    assert_eq!(error, GgufError::AlignmentType { found: ValueType::U64 });
}

#[test]
fn names() {
    let long = refused(|draft| draft.tensor(&"n".repeat(64), &[1], 0));
    assert_eq!(long, GgufError::NameTooLong { number: 0, len: 64 });
    let claimed = refused(|draft| draft.raw_tensor(&[&u64::MAX.to_le_bytes()[..], &[0; 24]].concat()));
    assert_eq!(claimed, GgufError::NameTooLong { number: 0, len: u64::MAX });
    let bytes = [&2_u64.to_le_bytes()[..], b"\xc3(", &[0; 16]].concat();
    assert_eq!(refused(|draft| draft.raw_tensor(&bytes)), GgufError::NameNotUtf8 { number: 0, at: 0 });
    assert_eq!(refused(|draft| draft.tensor("a\0b", &[1], 0)), GgufError::NameZeroByte { number: 0, at: 1 });
    let twice = refused(|draft| ["t", "s", "t"].into_iter().for_each(|name| draft.tensor(name, &[1], 0)));
    assert_eq!(twice, GgufError::DuplicateName { name: t() });
    let past = refused(|draft| draft.raw_tensor(&[&63_u64.to_le_bytes()[..], &[b'n'; 20]].concat()));
    assert_eq!(past, GgufError::PastEnd { position: HeaderPosition::Name(0), at: 32, needed: 63, file_len: 52 });
}

#[test]
fn shapes() {
    let dims = refused(|draft| draft.tensor("t", &[1; 5], 0));
    assert_eq!(dims, GgufError::TooManyDims { name: t(), dims: 5 });
    let negative = refused(|draft| draft.tensor("t", &[2, -1], 0));
    assert_eq!(negative, GgufError::NegativeDim { name: t(), dim: 1, len: -1 });
    let overflow = |dims: &[i64], id| {
        let error = refused(|draft| draft.tensor("t", dims, id));
        let shape = dims.iter().map(|&dim| dim as u64).collect();
        assert_eq!(error, GgufError::Overflow { name: t(), ggml: GgmlType::from_id(id).expect("known"), shape });
    };
    overflow(&[1 << 32, 1 << 32], 24);
    overflow(&[1 << 32, 1 << 31], 24);
    overflow(&[1 << 61], 28);
    // Its bytes overflow although its elements do not: 36 bytes for 32 elements.
    overflow(&[i64::MAX / 32 * 32], 9);
    // No elements, but some orders of multiplication overflow.
    overflow(&[0, i64::MAX, 3], 0);
    let block = refused(|draft| draft.tensor("t", &[48, 2], 8));
    assert_eq!(block, GgufError::PartialBlock { name: t(), ggml: GgmlType::Q8_0, len: 48 });
    // A scalar of a block type.
    assert_eq!(
        refused(|draft| draft.tensor("t", &[], 8)),
        GgufError::PartialBlock { name: t(), ggml: GgmlType::Q8_0, len: 1 }
    );
    let description = described("t", &[4, 4], 0, 0);
    for len in 9..description.len() {
        let mut draft = Draft::new();
        draft.raw_tensor(&description[..len]);
        let mut file = draft.header();
        // As long as the shortest description, or the count would be wrong.
        file.resize(file.len().max(24 + 24), 0);
        let error = parse_whole(&file).expect_err("cut off");
        if len >= 24 {
            assert!(
                matches!(&error, GgufError::PastEnd { position: HeaderPosition::Tensor(name), .. } if name == "t"),
                "{error}"
            );
        }
    }
}

#[test]
fn types() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38] {
        assert_eq!(refused(|draft| draft.tensor("t", &[256], id)), GgufError::RemovedType { name: t(), id });
    }
    for id in [-1, 43, 1000, i32::MIN] {
        assert_eq!(refused(|draft| draft.tensor("t", &[256], id)), GgufError::UnknownType { name: t(), id });
    }
}

#[test]
fn data() {
    for (found, what) in [(0, "an overlap"), (4, "no padding"), (64, "a hole"), (u64::MAX, "an absurd one")] {
        let error = refused(|draft| {
            draft.tensor("s", &[1], 0);
            draft.raw_tensor(&described("t", &[1], 0, found));
        });
        assert_eq!(error, GgufError::Offset { name: t(), expected: 32, found }, "{what}");
    }
    let error = refused(|draft| draft.raw_tensor(&described("t", &[1], 0, 32)));
    assert_eq!(error, GgufError::Offset { name: t(), expected: 0, found: 32 });
    let mut draft = Draft::new();
    draft.tensor("s", &[1], 0);
    draft.tensor("t", &[3], 0);
    let file = draft.bytes();
    // Without the last tensor's padding, and then without its last byte too.
    let whole = file.len() - 20;
    assert!(parse_whole(&file[..whole]).is_ok());
    let truncated = |file_len| GgufError::Truncated { name: t(), expected: whole as u64, file_len };
    assert_eq!(parse_whole(&file[..whole - 1]).unwrap_err(), truncated(whole as u64 - 1));
    let error = refused(|draft| draft.raw_tensor(&described("t", &[1 << 40], 0, 0)));
    // The required length, not merely the excess.
    let GgufError::Truncated { name, expected, .. } = error else { panic!("{error}") };
    assert!(name == "t" && (4 << 40..(4 << 40) + 4096).contains(&expected), "{expected}");
    // An empty tensor must be within the file too.
    let mut draft = Draft::new();
    draft.tensor("t", &[0], 0);
    let header = draft.header();
    let expected = header.len().next_multiple_of(32) as u64;
    let truncated = GgufError::Truncated { name: t(), expected, file_len: header.len() as u64 };
    assert_eq!(parse_whole(&header).unwrap_err(), truncated);
}

#[test]
fn headers_end_where_no_real_one_does() {
    let needs = |element: i32, count: u64, given: usize| {
        let mut draft = Draft::new();
        draft.key("k", 9, &[&element.to_le_bytes()[..], &count.to_le_bytes()].concat());
        let mut bytes = draft.header();
        bytes.resize(given, 0);
        parse(&bytes, 1 << 40).map(|parsed| match parsed {
            Parsed::Header(_) => 0,
            Parsed::Needs(bytes) => bytes,
        })
    };
    // The array starts at 49, and the file ends after it.
    for (element, size) in [(0, 1), (8, 8)] {
        let count = (MAX_HEADER_BYTES - 49) / size;
        assert_eq!(needs(element, count, 49), Ok(49 + count * size), "{element}");
        let end = 49 + (count + 1) * size;
        assert_eq!(needs(element, count + 1, 49), Err(GgufError::HeaderTooLarge { end }), "{element}");
    }
    // The error is the same if the whole file is given.
    let too_large = GgufError::HeaderTooLarge { end: MAX_HEADER_BYTES + 1 };
    assert_eq!(needs(0, MAX_HEADER_BYTES - 48, MAX_HEADER_BYTES as usize + 100), Err(too_large));
    let counts = Draft { tensor_count: Some(1 << 30), ..Draft::new() }.header();
    assert_eq!(parse(&counts, 1 << 40).unwrap_err(), GgufError::HeaderTooLarge { end: 24 + 8 + 24 * ((1 << 30) - 1) });
    assert_eq!(
        parse(&[], 0).unwrap_err(),
        GgufError::PastEnd { position: HeaderPosition::Start, at: 0, needed: 4, file_len: 0 }
    );
}
