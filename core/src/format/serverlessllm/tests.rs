use super::*;
use crate::CatalogBuilder;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// An index of these entries, and partitions of these lengths.
fn parse<'a>(entries: &'a str, partitions: &[u64]) -> Result<TensorIndex<'a>, ServerlessLlmError> {
    TensorIndex::parse(entries.as_bytes(), partitions)
}

/// Names, partitions and ranges.
fn lie(index: &TensorIndex<'_>) -> Vec<(String, u32, u64, u64)> {
    let of = |tensor: &IndexedTensor<'_>| {
        (tensor.name.to_string(), tensor.partition, tensor.range.start(), tensor.range.end())
    };
    index.tensors().iter().map(of).collect()
}

#[test]
fn offsets_of_the_original_go_over_all_partitions() {
    let json = r#"{
        "c": [16, 4, [2], [1], "torch.bfloat16"],
        "a": [0, 8, [2, 1], [1, 1], "torch.float32"],
        "b": [8, 3, [3], [1], "torch.uint8"],
        "scalar": [24, 8, [], [], "torch.int64"],
        "tied": [0, 8, [4, 2], [2, 1], "torch.int8"],
        "empty": [32, 0, [0, 7], [9, 9], "torch.float64"]
    }"#;
    // The five bytes after "b" and the four after "c" have no meaning.
    let index = parse(json, &[16, 16]).expect("valid");
    assert_eq!(index.dialect(), Some(Dialect::Original));
    let tensor = |name: &str, partition, start, end| (name.to_owned(), partition, start, end);
    let expected = [
        tensor("a", 0, 0, 8),
        tensor("tied", 0, 0, 8),
        tensor("b", 0, 8, 11),
        tensor("c", 1, 0, 4),
        tensor("scalar", 1, 8, 16),
        tensor("empty", 1, 16, 16),
    ];
    assert_eq!(lie(&index), expected);
    let a = &index.tensors()[0];
    assert_eq!((a.dtype, index.shape(a)), (DType::F32, &[2, 1][..]));
    let mut builder = CatalogBuilder::new(SERVERLESSLLM);
    for partition in ["p0", "p1"] {
        builder.add_file(partition, 16).expect("adds");
    }
    index.add_tensors_to(&mut builder).expect("adds");
    let catalog = builder.finish().expect("unique names");
    let tied = catalog.find("tied").expect("is there");
    assert_eq!((tied.range, tied.file), (catalog.tensor(crate::TensorId(0)).range, FileId(0)));
    assert_eq!(tied.dtype, DType::I8);
    assert_eq!(catalog.file(catalog.find("scalar").expect("is there").file).path, "p1");
}

#[test]
fn offsets_of_tensora_are_in_a_partition() {
    let json = r#"{"a": [4, 4, [1], [1], "f32", 1], "b": [0, 3, [3], [1], "f8_e4m3", 0], "c": [0, 4, [2], [1], "bf16", 1],
        "tied": [4, 4, [1], [1], "f32", 1]}"#;
    let index = parse(json, &[3, 8]).expect("valid");
    assert_eq!(index.dialect(), Some(Dialect::Tensora));
    let names: Vec<_> = lie(&index).into_iter().map(|(name, partition, start, _)| (name, partition, start)).collect();
    let expected = [("b", 0, 0), ("c", 1, 0), ("a", 1, 4), ("tied", 1, 4)];
    assert_eq!(names, expected.map(|(name, partition, start)| (name.to_owned(), partition, start)));
}

#[test]
fn a_checkpoint_may_be_empty_but_not_without_a_partition() {
    let index = parse("{}", &[0]).expect("valid");
    assert!(index.tensors().is_empty() && index.dialect().is_none());
    assert_eq!(parse("{}", &[]).map(drop), Err(ServerlessLlmError::NoPartition));
    // An empty tensor may be anywhere, including between partitions and at the end.
    let json = r#"{"a": [4, 0, [0], [1], "torch.int8"], "b": [8, 0, [0], [1], "torch.int8"], "c": [0, 8, [8], [1], "torch.int8"]}"#;
    assert!(parse(json, &[8, 0]).is_ok());
}

#[test]
fn names_are_borrowed_unless_they_are_escaped() {
    let json = r#"{"plain": [0, 1, [1], [1], "torch.int8"], "esc\u0061ped": [1, 1, [1], [1], "torch.int8"]}"#;
    let index = parse(json, &[2]).expect("valid");
    assert!(matches!(&index.tensors()[0].name, Cow::Borrowed("plain")));
    assert!(matches!(&index.tensors()[1].name, Cow::Owned(name) if name == "escaped"));
}

#[test]
fn every_dtype_has_its_name_in_a_dialect_and_back() {
    for dialect in [Dialect::Original, Dialect::Tensora] {
        for &dtype in DType::ALL {
            let Some(name) = dialect.dtype_name(dtype) else { continue };
            assert_eq!(dialect.dtype(&name), Some(dtype), "{name}");
        }
    }
    assert_eq!(DType::ALL.iter().filter(|&&dtype| Dialect::Original.dtype_name(dtype).is_some()).count(), TORCH.len());
    assert_eq!(Dialect::Tensora.dtype_name(DType::BF16).as_deref(), Some("bf16"));
    for unknown in ["torch.bool", "torch.float8_e4m3fn", "f32", "F32", "torch.F32", ""] {
        assert_eq!(Dialect::Original.dtype(unknown), None, "{unknown}");
    }
    for unknown in ["torch.float32", "F32", "Bf16", "f", ""] {
        assert_eq!(Dialect::Tensora.dtype(unknown), None, "{unknown}");
    }
}

#[test]
fn strides_are_those_of_row_major_order() {
    for (shape, strides, expected) in [
        (&[][..], &[][..], true),
        (&[3], &[1], true),
        (&[3], &[2], false),
        (&[2, 3], &[3, 1], true),
        (&[2, 3], &[1, 2], false),
        (&[2, 3], &[4, 1], false),
        // A broadcast tensor.
        (&[2, 3], &[0, 1], false),
        // A dimension of one element.
        (&[1, 3], &[7, 1], true),
        (&[3, 1], &[1, 7], true),
        (&[3, 1], &[7, 1], false),
        (&[4, 1, 2], &[2, 99, 1], true),
        // No elements.
        (&[0, 3], &[7, 9], true),
        (&[2, 0, u64::MAX], &[1, 2, 3], true),
        (&[1, u64::MAX], &[u64::MAX, 1], true),
    ] {
        assert_eq!(is_row_major(shape, strides), expected, "{shape:?} {strides:?}");
    }
}

/// A violation of each rule, for partitions of 16 and 8 bytes of which the second is full.
#[test]
fn every_rule_is_checked() {
    let filled = r#""z": [16, 8, [8], [1], "torch.int8"]"#;
    let name = || "t".to_owned();
    for (record, expected) in [
        (
            r#"[0, 4, [1], [1], "torch.bool"]"#,
            ServerlessLlmError::UnknownDtype { name: name(), dtype: "torch.bool".into(), dialect: Dialect::Original },
        ),
        (
            r#"[0, 4, [1], [1], "f32", 0]"#,
            ServerlessLlmError::MixedDialects { name: name(), expected: Dialect::Original, found: Dialect::Tensora },
        ),
        (
            r#"[0, 4, [2, 2], [1], "torch.int8"]"#,
            ServerlessLlmError::StrideCount { name: name(), shape: vec![2, 2], strides: vec![1] },
        ),
        (
            r#"[0, 4, [2, 2], [1, 2], "torch.int8"]"#,
            ServerlessLlmError::NotContiguous { name: name(), shape: vec![2, 2], strides: vec![1, 2] },
        ),
        (
            r#"[0, 0, [4294967296, 4294967296], [4294967296, 1], "torch.int8"]"#,
            ServerlessLlmError::ShapeOverflow { name: name(), shape: vec![1 << 32, 1 << 32] },
        ),
        (
            r#"[0, 0, [2305843009213693952], [1], "torch.float64"]"#,
            ServerlessLlmError::ShapeOverflow { name: name(), shape: vec![1 << 61] },
        ),
        (
            r#"[0, 8, [3], [1], "torch.int16"]"#,
            ServerlessLlmError::SizeMismatch { name: name(), dtype: DType::I16, shape: vec![3], expected: 6, found: 8 },
        ),
        (
            r#"[0, 4, [3], [1], "torch.int16"]"#,
            ServerlessLlmError::SizeMismatch { name: name(), dtype: DType::I16, shape: vec![3], expected: 6, found: 4 },
        ),
        (
            r#"[18446744073709551615, 4, [4], [1], "torch.int8"]"#,
            ServerlessLlmError::OffsetOverflow { name: name(), offset: u64::MAX, size: 4 },
        ),
        (
            r#"[22, 4, [4], [1], "torch.int8"]"#,
            ServerlessLlmError::PastEnd { name: name(), offset: 22, end: 26, count: 2, bytes: 24 },
        ),
        (
            r#"[24, 1, [1], [1], "torch.int8"]"#,
            ServerlessLlmError::PastEnd { name: name(), offset: 24, end: 25, count: 2, bytes: 24 },
        ),
        (
            r#"[14, 4, [4], [1], "torch.int8"]"#,
            ServerlessLlmError::CrossesPartition { name: name(), partition: 0, offset: 14, end: 18, boundary: 16 },
        ),
        (
            r#"[20, 4, [4], [1], "torch.int8"]"#,
            ServerlessLlmError::Overlap { first: "z".into(), second: name(), partition: 1, offset: 4 },
        ),
        (
            r#"[16, 4, [4], [1], "torch.int8"]"#,
            ServerlessLlmError::Overlap { first: name(), second: "z".into(), partition: 1, offset: 0 },
        ),
    ] {
        let json = format!(r#"{{{filled}, "t": {record}}}"#);
        assert_eq!(parse(&json, &[16, 8]).map(drop), Err(expected.clone()), "{record}");
        let message = expected.to_string();
        assert!(message.contains("\"t\"") && message.len() < 500, "{message}");
    }
    let unused = parse(r#"{"t": [16, 8, [8], [1], "torch.int8"]}"#, &[16, 8]).map(drop);
    assert_eq!(unused, Err(ServerlessLlmError::UnusedPartition { partition: 0, bytes: 16 }));
    let twice = format!(r#"{{{filled}, {filled}}}"#);
    assert_eq!(parse(&twice, &[16, 8]).map(drop), Err(ServerlessLlmError::DuplicateName { name: "z".into() }));
    assert_eq!(parse("{}", &[u64::MAX, 1]).map(drop), Err(ServerlessLlmError::TooLong));
}

#[test]
fn every_rule_of_partitions_is_checked() {
    for (record, expected) in [
        (
            r#"[0, 4, [1], [1], "f32", 2]"#,
            ServerlessLlmError::NoSuchPartition { name: "t".into(), partition: 2, count: 2 },
        ),
        (
            r#"[0, 4, [1], [1], "f32", 4294967296]"#,
            ServerlessLlmError::NoSuchPartition { name: "t".into(), partition: 1 << 32, count: 2 },
        ),
        (
            r#"[8, 12, [3], [1], "f32", 0]"#,
            ServerlessLlmError::PastPartition { name: "t".into(), partition: 0, offset: 8, end: 20, bytes: 16 },
        ),
        (
            r#"[0, 2, [3], [1], "f4", 0]"#,
            ServerlessLlmError::PartialByte { name: "t".into(), dtype: DType::F4, shape: vec![3] },
        ),
        (
            r#"[0, 4, [1], [1], "torch.float32", 0]"#,
            ServerlessLlmError::UnknownDtype {
                name: "t".into(),
                dtype: "torch.float32".into(),
                dialect: Dialect::Tensora,
            },
        ),
    ] {
        let json = format!(r#"{{"z": [0, 8, [8], [1], "i8", 1], "t": {record}}}"#);
        assert_eq!(parse(&json, &[16, 8]).map(drop), Err(expected.clone()), "{record}");
        assert!(expected.to_string().contains("\"t\""), "{expected}");
    }
}

#[test]
fn a_record_that_is_none_is_named_and_other_json_is_told() {
    for record in [
        "{}",
        "null",
        "[]",
        r#"[0, 4, [1], [1]]"#,
        r#"[0, 4, [1], [1], "torch.float32", 0, 0]"#,
        r#"[0, 4, [1], [1], "torch.float32", null]"#,
        r#"[0, 4, [1], [1], "torch.float32", -1]"#,
        r#"[-1, 4, [1], [1], "torch.float32"]"#,
        r#"[0, -4, [1], [1], "torch.float32"]"#,
        r#"[0, 4, [-1], [1], "torch.float32"]"#,
        r#"[0, 4, [1], [-1], "torch.float32"]"#,
        r#"[0.0, 4, [1], [1], "torch.float32"]"#,
        r#"[0, 18446744073709551616, [1], [1], "torch.float32"]"#,
        r#"["0", 4, [1], [1], "torch.float32"]"#,
        r#"[0, 4, 1, [1], "torch.float32"]"#,
        r#"[0, 4, [1], {}, "torch.float32"]"#,
        r#"[0, 4, [1], [1], 5]"#,
    ] {
        let json = format!(r#"{{"t": {record}}}"#);
        let error = parse(&json, &[4]).map(drop).expect_err(record);
        assert!(matches!(&error, ServerlessLlmError::Record { name, .. } if name == "t"), "{record}: {error}");
    }
    for json in ["", "[]", "{", "null", "{} {}", "\u{feff}{}"] {
        let error = parse(json, &[4]).map(drop).expect_err(json);
        assert!(matches!(error, ServerlessLlmError::Json { .. }), "{json}: {error}");
    }
    assert!(matches!(TensorIndex::parse(b"{\"\xff\": []}", &[4]), Err(ServerlessLlmError::Json { .. })));
}

#[test]
fn hostile_names_are_cut_and_escaped_in_messages() {
    let long = format!("\\u001b{}", "n".repeat(1 << 20));
    for (json, partitions) in [
        (format!(r#"{{"{long}": 3}}"#), vec![4]),
        (format!(r#"{{"{long}": [0, 4, [1], [1], "{long}"]}}"#), vec![4]),
        (format!(r#"{{"{long}": [0, 8, [1], [1], "torch.float32"]}}"#), vec![8]),
        (format!(r#"{{"t": [0, 4, [{}1], [1], "torch.float32"]}}"#, "1, ".repeat(100_000)), vec![8]),
        (format!(r#"{{"{long}": [0, 1, [1], [1], "torch.int8"], "{long}": [0, 1, [1], [1], "torch.int8"]}}"#), vec![1]),
        (format!(r#"{{"a": [0, 2, [2], [1], "torch.int8"], "{long}": [1, 1, [1], [1], "torch.int8"]}}"#), vec![2]),
    ] {
        let message = parse(&json, &partitions).map(drop).expect_err("broken").to_string();
        assert!(message.len() < 2000 && !message.contains('\u{1b}'), "{} bytes: {message:.200}", message.len());
    }
}

proptest! {
    /// A written layout with any limit reads back the same, in both dialects and any order of the
    /// index.
    #[test]
    fn what_is_laid_out_is_found_again(
        tensors in prop::collection::vec((0_usize..9, prop::collection::vec(0_u64..5, 0..4), any::<bool>()), 1..20),
        limit in 1_u64..200,
        padding in prop_oneof![Just(1_u64), Just(8)],
        order in any::<u64>(),
        tensora in any::<bool>(),
    ) {
        let (mut partitions, mut records, mut last) = (vec![0_u64], Vec::new(), None);
        for (i, (dtype, shape, tied)) in tensors.iter().enumerate() {
            let (torch, dtype) = TORCH[*dtype];
            let strides: Vec<u64> = (0..shape.len()).map(|dim| shape[dim + 1..].iter().product()).collect();
            let bytes = shape.iter().product::<u64>() * dtype.bits() / 8;
            let (partition, start) = match last {
                Some((partition, start, len)) if *tied && len == bytes => (partition, start),
                _ => {
                    let filled = partitions.last_mut().expect("there is one");
                    if *filled > 0 && *filled + bytes > limit {
                        partitions.push(0);
                    }
                    let partition = partitions.len() - 1;
                    let start = partitions[partition];
                    partitions[partition] += bytes.next_multiple_of(padding);
                    (partition, start)
                }
            };
            last = Some((partition, start, bytes));
            let global = partitions[..partition].iter().sum::<u64>() + start;
            let json = if tensora {
                let dtype = Dialect::Tensora.dtype_name(dtype).expect("has a name");
                format!(r#""{i}": [{start}, {bytes}, {shape:?}, {strides:?}, "{dtype}", {partition}]"#)
            } else {
                format!(r#""{i}": [{global}, {bytes}, {shape:?}, {strides:?}, "{torch}"]"#)
            };
            records.push((i, json, dtype, shape, partition as u32, start, bytes));
        }
        let mut listed: Vec<_> = records.iter().collect();
        listed.sort_by_key(|record| (record.0 as u64).wrapping_mul(order | 1));
        let json = format!("{{{}}}", listed.iter().map(|record| record.1.clone()).collect::<Vec<_>>().join(", "));
        let index = parse(&json, &partitions);
        let index = index.expect("valid");
        prop_assert_eq!(index.tensors().len(), records.len());
        prop_assert!(index.tensors().is_sorted_by_key(|tensor| (tensor.partition, tensor.range.start())));
        for (i, _, dtype, shape, partition, start, bytes) in &records {
            let tensor = index.tensors().iter().find(|tensor| tensor.name == i.to_string().as_str()).expect("is there");
            prop_assert_eq!((tensor.dtype, index.shape(tensor)), (*dtype, shape.as_slice()));
            prop_assert_eq!(tensor.range.len(), *bytes);
            // An empty tensor at a boundary belongs to either partition.
            if *bytes > 0 {
                prop_assert_eq!((tensor.partition, tensor.range.start()), (*partition, *start));
            }
        }
    }
}
