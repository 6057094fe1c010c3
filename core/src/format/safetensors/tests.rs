//! A violating header for each rule of the format, compared with the reference.

use super::*;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use proptest::prelude::*;

fn file(json: &str, data_len: usize) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.resize(file.len() + data_len, 7);
    file
}

/// Parses a whole file like a platform: first the prefix, then the JSON.
fn parse(file: &[u8]) -> Result<Header<'_>, HeaderError> {
    let range = header_range(file, file.len() as u64)?;
    Header::parse(&file[range.start() as usize..range.end() as usize], file.len() as u64)
}

/// The reference's result. The two must agree except for the stricter rules.
fn reference_accepts(file: &[u8]) -> bool {
    safetensors::SafeTensors::read_metadata(file).is_ok()
}

fn one(entry: &str) -> String {
    format!(r#"{{"t":{entry}}}"#)
}

#[test]
fn what_the_reference_accepts_is_accepted() {
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let good = [
        (one(entry), 4),
        (format!("  \n\t{}   \r\n", one(entry)), 4),
        ("{}".to_string(), 0),
        (r#"{"__metadata__":null}"#.to_string(), 0),
        (r#"{"__metadata__":{"a":"b","a":"c"}}"#.to_string(), 0),
        (one(r#"{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#), 4),
        (one(r#"{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}"#), 0),
        (one(r#"["F32",[1],[0,4]]"#), 4),
        (one(r#"{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}"#), 4),
        (one(r#"{"x":[1,{"y":null}],"dtype":"F4","shape":[2],"data_offsets":[0,1]}"#), 1),
        (r#"{"a\u00e9\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.to_string(), 1),
        (r#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.to_string(), 2),
    ];
    for (json, data_len) in &good {
        let file = file(json, *data_len);
        assert!(reference_accepts(&file), "the reference refuses {json}");
        parse(&file).unwrap_or_else(|e| panic!("{json}: {e}"));
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    let bad = [
        ("", 0),
        ("[]", 0),
        ("{", 0),
        ("{} x", 0),
        ("null", 0),
        (r#"{"__metadata__":{"a":1}}"#, 0),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
        (r#"{"__metadata__":[]}"#, 0),
        (r#"{"t":null}"#, 0),
        (r#"{"t":{"dtype":"F32","shape":[1]}}"#, 4),
        (r#"{"t":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}"#, 0),
        (r#"{"t":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1e999}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":"\ud800"}}"#, 4),
        (r#"{"t":["F32",[1],[0,4],0]}"#, 4),
        (r#"{"t":{"dtype":{"F32":{}},"shape":[1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":{"F32":[]},"shape":[1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"t":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}"#, 4),
    ];
    for (json, data_len) in bad {
        let file = file(json, data_len);
        assert!(!reference_accepts(&file), "the reference accepts {json}");
        assert!(parse(&file).is_err(), "{json}");
    }
    let deep =
        one(&format!(r#"{{"x":{}{},"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, "[".repeat(200), "]".repeat(200)));
    assert!(!reference_accepts(&file(&deep, 1)));
    assert!(parse(&file(&deep, 1)).is_err());
}

#[test]
fn each_rule_has_its_error() {
    let rule = |json: &str, data_len: usize| {
        let file = file(json, data_len);
        assert!(!reference_accepts(&file), "the reference accepts {json}");
        parse(&file).expect_err(json)
    };
    let t = || "t".to_string();
    assert_eq!(
        rule(&one(r#"{"dtype":"U8","shape":[1],"data_offsets":[1,0]}"#), 1),
        HeaderError::EndBeforeBegin { name: t(), begin: 1, end: 0 }
    );
    assert_eq!(
        rule(&one(r#"{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#), 2),
        HeaderError::Hole { name: t(), expected: 0, begin: 1 }
    );
    assert_eq!(
        rule(
            r#"{"s":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"t":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
            3
        ),
        HeaderError::Overlap { name: t(), expected: 2, begin: 1 }
    );
    let huge = [1 << 40, 1 << 40, 0];
    assert_eq!(
        rule(&one(&format!(r#"{{"dtype":"U8","shape":{huge:?},"data_offsets":[0,0]}}"#)), 0),
        HeaderError::ShapeOverflow { name: t(), shape: huge.to_vec() }
    );
    assert_eq!(
        rule(&one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,2]}"#), 2),
        HeaderError::PartialByte { name: t(), dtype: DType::F4, bits: 12 }
    );
    assert_eq!(
        rule(&one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4),
        HeaderError::SizeMismatch { name: t(), dtype: DType::F32, shape: vec![2], expected: 8, found: 4 }
    );
    let json = one(r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#);
    let expected = 8 + json.len() as u64 + 4;
    assert_eq!(rule(&json, 3), HeaderError::Truncated { expected, found: expected - 1 });
    assert_eq!(rule(&json, 5), HeaderError::TrailingBytes { expected, found: expected + 1 });
}

#[test]
fn messages_stay_short_whatever_the_file_quotes() {
    let long = "n".repeat(1 << 20);
    let dims = "0,".repeat(1 << 20);
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let named = |entry: &str| format!(r#"{{"{long}":{entry}}}"#);
    for json in [
        named(r#"{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#),
        named(r#"{"dtype":"U8"}"#),
        format!(r#"{{"{long}":{entry},"{long}":{entry}}}"#),
        one(&format!(r#"{{"dtype":"{long}","shape":[1],"data_offsets":[0,1]}}"#)),
        one(&format!(r#"{{"{long}":0,"{long}":0,"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#)),
        one(&format!(r#"{{"dtype":"U8","shape":"{long}","data_offsets":[0,1]}}"#)),
        one(&format!(r#"{{"dtype":"U8","shape":[{dims}0],"data_offsets":[0,1]}}"#)),
        one(&format!(r#"{{"dtype":"F64","shape":[{dims}4611686018427387904],"data_offsets":[0,1]}}"#)),
        format!(r#"{{"__metadata__":"{long}"}}"#),
    ] {
        let message = parse(&file(&json, 1)).expect_err("broken").to_string();
        assert!(message.len() < 1000 && message.contains('…'), "{message:.1000}");
    }
    let hostile = one(r#"{"dtype":"\u001b[31m\n","shape":"\u001b[31m\n","data_offsets":[0,1]}"#);
    let message = parse(&file(&hostile, 1)).expect_err("broken").to_string();
    assert!(!message.contains(char::is_control), "{message}");
}

#[test]
fn lengths_are_checked_before_anything_is_read() {
    assert_eq!(header_range(&[1, 2, 3], 3), Err(HeaderError::FileTooShort { file_len: 3 }));
    assert_eq!(header_range(&[], 0), Err(HeaderError::FileTooShort { file_len: 0 }));
    let claim = |n: u64| n.to_le_bytes();
    assert_eq!(header_range(&claim(u64::MAX), 100), Err(HeaderError::TooLarge { claimed: u64::MAX }));
    assert_eq!(header_range(&claim(100_000_001), u64::MAX), Err(HeaderError::TooLarge { claimed: 100_000_001 }));
    assert_eq!(header_range(&claim(100), 107), Err(HeaderError::PastEnd { claimed: 100, file_len: 107 }));
    assert_eq!(header_range(&claim(100), 108).map(ByteRange::len), Ok(100));
    assert!(matches!(parse(&claim(0)), Err(HeaderError::Json { message }) if message.contains("EOF")));
    let file = [&2_u64.to_le_bytes()[..], &[0xff, 0xff]].concat();
    assert_eq!(parse(&file).unwrap_err(), HeaderError::NotUtf8 { at: 0 });
}

#[test]
fn silence_about_duplicates_is_refused_where_the_reference_keeps_the_last() {
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let twice = file(&format!(r#"{{"t":{entry},"t":{entry}}}"#), 1);
    assert!(reference_accepts(&twice));
    assert_eq!(parse(&twice).unwrap_err(), HeaderError::DuplicateName { name: "t".to_string() });
    let key = file(&one(r#"{"x":1,"dtype":"U8","x":2,"shape":[1],"data_offsets":[0,1]}"#), 1);
    assert!(reference_accepts(&key));
    assert!(
        matches!(parse(&key).unwrap_err(), HeaderError::Entry { name, message } if name == "t" && message.contains("\"x\" occurs twice"))
    );
    let known = file(&one(r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#), 1);
    assert!(parse(&known).unwrap_err().to_string().contains("\"dtype\" occurs twice"));
}

#[test]
fn names_are_borrowed_and_offsets_count_from_the_file() {
    let file = file(r#"{"__metadata__":{"format":"pt"},"plain":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]}}"#, 2);
    let header = parse(&file).expect("valid");
    let entry = &header.entries()[0];
    assert!(matches!(entry.name, Cow::Borrowed("plain")));
    assert_eq!(header.shape(entry), [1, 2]);
    assert_eq!(entry.range.end(), file.len() as u64);
    assert_eq!(entry.range.start(), header.data_start());
    assert_eq!(header.metadata()[0].0, "format");
}

proptest! {
    /// Damaged real headers: the two parsers agree, whatever byte is changed.
    #[test]
    fn agrees_with_the_reference_on_damaged_files(
        sizes in prop::collection::vec(0_usize..9, 0..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let bytes = [0_u8; 64];
        let views: Vec<(String, safetensors::tensor::TensorView<'_>)> = sizes
            .iter()
            .enumerate()
            .map(|(i, &n)| {
                let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![n], &bytes[..4 * n]);
                (format!("layer.{i}"), view.expect("the sizes agree"))
            })
            .collect();
        let mut file = safetensors::serialize(views, None).expect("serializes");
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        match (parse(&file), safetensors::SafeTensors::read_metadata(&file)) {
            (Ok(ours), Ok((_, theirs))) => {
                let names: Vec<_> = ours.entries().iter().map(|e| e.name.to_string()).collect();
                for name in names {
                    prop_assert!(theirs.info(&name).is_some());
                }
            }
            (Err(HeaderError::DuplicateName { .. } | HeaderError::Entry { .. }), Ok(_)) => {}
            (ours, theirs) => prop_assert_eq!(ours.is_ok(), theirs.is_ok()),
        }
    }
}

#[test]
fn headers_are_taken_up_to_their_limits() {
    assert_eq!(header_range(&MAX_HEADER_BYTES.to_le_bytes(), u64::MAX).map(ByteRange::len), Ok(MAX_HEADER_BYTES));
    assert_eq!(header_range(&[0; 8], 8).map(ByteRange::len), Ok(0));
    // The file became shorter after its first bytes were read.
    assert_eq!(header_range(&[0; 8], 7), Err(HeaderError::FileTooShort { file_len: 7 }));
    assert_eq!(Header::parse(b"{}", 9).unwrap_err(), HeaderError::PastEnd { claimed: 2, file_len: 9 });
}

#[test]
fn messages_say_what_was_expected() {
    for (json, expected) in [
        ("[]".to_string(), "expected an object of tensors"),
        (r#"{"__metadata__":[]}"#.to_string(), "expected __metadata__ to be an object of strings"),
        (r#"{"__metadata__":{"a":1}}"#.to_string(), "expected a string"),
        (one("3"), "expected an object with dtype, shape and data_offsets"),
        (one(r#"{"shape":3}"#), "expected a shape: an array of unsigned integers"),
        (one(r#"{"dtype":"U8","data_offsets":[0,1]}"#), "missing field `shape`"),
        (one(r#"{"shape":[1],"data_offsets":[0,1]}"#), "missing field `dtype`"),
        (one(r#"{"dtype":"U8","shape":[1]}"#), "missing field `data_offsets`"),
        (one(r#"["U8",[1]]"#), "expected 3 elements"),
    ] {
        let message = parse(&file(&json, 1)).expect_err(&json).to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn shapes_are_shown_as_far_as_anybody_reads() {
    let message = |dims: usize| {
        let shape = vec![1; dims];
        let json = one(&format!(r#"{{"dtype":"U8","shape":{shape:?},"data_offsets":[0,2]}}"#));
        parse(&file(&json, 2)).expect_err("two bytes").to_string()
    };
    assert!(message(2).contains("shape [1, 1] takes"), "{}", message(2));
    assert!(message(10).contains("shape [1, 1, 1, 1, 1, 1, 1, 1, 1, 1] takes"), "{}", message(10));
    assert!(message(11).contains("shape [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, …] (11 dimensions) takes"), "{}", message(11));
}

#[test]
fn text_is_read_as_it_was_meant() {
    let json =
        r#"{"__metadata__":{"a":"b","\u0061":"\u00e9\n"},"\u00e9\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let file = file(json, 1);
    let header = parse(&file).expect("valid");
    assert_eq!(header.entries()[0].name, "é\n");
    let metadata: Vec<(&str, &str)> = header.metadata().iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(metadata, [("a", "b"), ("a", "é\n")]);
}

#[test]
fn sizes_that_disagree_are_told_wherever_the_tensor_lies() {
    let (s, t) =
        (r#"{"dtype":"U8","shape":[3],"data_offsets":[0,3]}"#, r#"{"dtype":"U8","shape":[1],"data_offsets":[3,5]}"#);
    let file = file(&format!(r#"{{"s":{s},"t":{t}}}"#), 5);
    let mismatch =
        HeaderError::SizeMismatch { name: "t".to_string(), dtype: DType::U8, shape: vec![1], expected: 1, found: 2 };
    assert_eq!(parse(&file).unwrap_err(), mismatch);
}
