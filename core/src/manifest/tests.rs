use super::*;
use crate::dtype::DType;
use crate::element::GgmlType;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn file(name: &str) -> String {
    format!(r#"{{"name":"{name}","bytes":1,"sha256":"{EMPTY}"}}"#)
}

fn tensor(name: &str) -> String {
    format!(r#"{{"name":"{name}","dtype":"F32","shape":[2,3],"bytes":24,"blake3":"{EMPTY}"}}"#)
}

fn manifest(files: &str, tensors: &str) -> String {
    format!(r#"{{"schema":"floodtide-manifest","version":1,"files":[{files}],"tensors":[{tensors}]}}"#)
}

fn parse(json: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(json.as_bytes())
}

/// The name of a violated rule, and a part of its message.
fn refusal(json: &str) -> (&'static str, String) {
    let error = parse(json).expect_err(json);
    let rule = match error {
        ManifestError::Json { .. } => "json",
        ManifestError::Schema { .. } => "schema",
        ManifestError::Version { .. } => "version",
        ManifestError::TooLarge { .. } => "too large",
        ManifestError::DType { .. } => "dtype",
        ManifestError::WrongBytes { .. } => "bytes",
        ManifestError::NotHex { .. } => "hex",
        ManifestError::DuplicateTensor { .. } => "duplicate tensor",
        ManifestError::DuplicateFile { .. } => "duplicate file",
        ManifestError::NotPlainName { .. } => "name",
    };
    (rule, error.to_string())
}

#[test]
fn what_is_written_is_what_was_parsed_sorted_by_name() {
    let parsed =
        parse(&manifest(&[file("b"), file("a")].join(","), &[tensor("y"), tensor("x")].join(","))).expect("valid");
    let names = |list: &[ManifestTensor]| list.iter().map(|tensor| tensor.name.clone()).collect::<String>();
    assert_eq!((names(parsed.tensors()).as_str(), parsed.files()[0].name.as_str()), ("xy", "a"));
    let written = parsed.to_string();
    assert_eq!(parse(&written).expect("valid"), parsed);
    assert!(written.ends_with("\n  ]\n}\n") && written.lines().count() == 12, "{written}");
    assert_eq!(parsed.tensor("y").map(|tensor| tensor.bytes), Some(24));
    assert_eq!((parsed.tensor("z"), parsed.file("b").map(|file| file.bytes), parsed.file("c")), (None, Some(1), None));
    let nothing = parse(&manifest("", "")).expect("legal");
    assert_eq!(parse(&nothing.to_string()).expect("valid"), nothing);
}

#[test]
fn every_broken_rule_is_named() {
    let (f, t) = (file("f"), tensor("t"));
    let whole = manifest(&f, &t);
    let with = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replacen(from, to, 1)
    };
    let upper = EMPTY.to_uppercase();
    let deep = with("\"version\":1", &format!("\"x\":{}", "[".repeat(100_000)));
    let array = format!(r#"["t","F32",[2,3],24,"{EMPTY}"]"#);
    for (json, rule, words) in [
        (String::new(), "json", "EOF"),
        ("[]".to_string(), "json", "not the JSON of a manifest"),
        (r#"["floodtide-manifest",1,[],[]]"#.to_string(), "json", "expected an object"),
        (manifest(&f, &array), "json", "expected an object"),
        (deep, "json", "line 1"),
        (format!("{whole} x"), "json", "trailing"),
        (whole[..whole.len() - 1].to_string(), "json", "EOF"),
        (with("floodtide-manifest", "other"), "schema", "\"other\""),
        (with("\"schema\":\"floodtide-manifest\",", ""), "json", "schema"),
        (with("\"version\":1", "\"version\":2"), "version", "version 2"),
        // Other fields of a later version do not matter.
        (with("\"version\":1", "\"version\":2,\"signature\":[1]"), "version", "version 2"),
        (with("\"version\":1", "\"version\":1.0"), "json", "expected u64"),
        (with("\"version\":1", "\"version\":\"1\""), "json", "expected u64"),
        (with("\"version\":1,", ""), "json", "version"),
        (with("\"version\":1", "\"version\":1,\"version\":1"), "json", "duplicate field"),
        (with("\"version\":1", "\"version\":1,\"signature\":1"), "json", "signature"),
        (with("\"files\":", "\"file\":"), "json", "file"),
        (with(",\"tensors\":", ",\"files\":[],\"tensors\":"), "json", "duplicate field"),
        (manifest(&f, &t.replace("\"bytes\":24,", "")), "json", "bytes"),
        (manifest(&f, &t.replace("\"bytes\":24", "\"bytes\":24,\"bytes\":24")), "json", "duplicate field"),
        (manifest(&f, &t.replace("\"bytes\":24", "\"bytes\":24,\"offset\":0")), "json", "offset"),
        (manifest(&f, &t.replace(":24", ":-24")), "json", "expected u64"),
        (manifest(&f, &t.replace(":24", ":18446744073709551616")), "json", "expected u64"),
        (manifest(&f, &t.replace("[2,3]", "[2,3.5]")), "json", "expected u64"),
        (manifest(&f, &t.replace("[2,3]", "6")), "json", "sequence"),
        (manifest(&f.replace("\"bytes\":1", "\"bytes\":1,\"mode\":0"), &t), "json", "mode"),
        (with("F32", "F33"), "dtype", "\"F33\""),
        (with("F32", "f32"), "dtype", "\"f32\""),
        (with(":24", ":23"), "bytes", "23 bytes"),
        (with("[2,3]", "[18446744073709551615,18446744073709551615,18446744073709551615]"), "bytes", "24 bytes"),
        (with("\"F32\",\"shape\":[2,3]", "\"F4\",\"shape\":[49]"), "bytes", "F4"),
        (manifest(&f, &t.replace(EMPTY, &upper)), "hex", "blake3 of \"t\""),
        (manifest(&f, &t.replace(EMPTY, &EMPTY[1..])), "hex", "64 digits"),
        (manifest(&f.replace(EMPTY, "0x"), &t), "hex", "sha256 of \"f\""),
        (manifest(&f, &format!("{t},{t}")), "duplicate tensor", "\"t\""),
        (manifest(&format!("{f},{f}"), &t), "duplicate file", "\"f\""),
        (manifest(&file("../f"), &t), "name", "../f"),
        (manifest(&file("/etc/passwd"), &t), "name", "passwd"),
        (manifest(&file(""), &t), "name", "plain name"),
    ] {
        let (found, message) = refusal(&json);
        assert!(
            found == rule && message.contains(words),
            "{json:.200}: expected {rule} with \"{words}\", found {found}: {message}"
        );
    }
}

#[test]
fn long_names_are_cut_in_messages_and_cannot_act_on_a_terminal() {
    let long = "n".repeat(1 << 20);
    for json in [
        manifest(&format!("{0},{0}", file(&long)), ""),
        manifest("", &format!("{0},{0}", tensor(&long))),
        manifest("", &tensor(&long).replace("F32", &long)),
        manifest("", &tensor(&long).replace(EMPTY, &long)),
        manifest("", &tensor(&long).replace("\"bytes\"", &format!("\"{long}\""))),
        manifest("", &tensor("\\u001b[2J").replace("F32", "\\u001b[2J")),
        manifest("", "").replace("floodtide-manifest", &long),
    ] {
        let (_, message) = refusal(&json);
        assert!(message.len() < 1500 && !message.contains('\u{1b}'), "{} bytes: {message:.300}", message.len());
    }
}

#[test]
fn a_name_is_written_so_that_it_is_read_again() {
    let name = "a\"b\\c\n\u{202e}é\0".to_string();
    let tensor = ManifestTensor { name, dtype: DType::U8.into(), shape: vec![0], bytes: 0, blake3: Checksum::of(&[]) };
    let written = Manifest::new(vec![tensor], vec![]).expect("valid");
    assert_eq!(parse(&written.to_string()).expect("valid"), written);
}

proptest! {
    #[test]
    fn any_manifest_survives_being_written(
        tensors in proptest::collection::btree_map(".{0,12}", (0..DType::ALL.len() + GgmlType::ALL.len(), proptest::collection::vec(0_u64..9, 0..4)), 0..8),
        files in proptest::collection::btree_map("[^/\\\\\0]{3,12}", any::<(u64, [u8; 32])>(), 0..4),
    ) {
        let tensors = tensors.into_iter().filter_map(|(name, (dtype, shape))| {
            let dtype = match DType::ALL.get(dtype) {
                Some(&dtype) => ElementType::Plain(dtype),
                None => ElementType::Ggml(GgmlType::ALL[dtype - DType::ALL.len()]),
            };
            let bytes = bytes_of(dtype, &shape)?;
            Some(ManifestTensor { blake3: Checksum::of(name.as_bytes()), name, dtype, shape, bytes })
        });
        let files = files.into_iter().map(|(name, (bytes, sha256))| ManifestFile { name, bytes, sha256: sha256.into() });
        let manifest = Manifest::new(tensors.collect(), files.collect()).expect("valid");
        prop_assert_eq!(Manifest::parse(manifest.to_string().as_bytes()).expect("valid"), manifest);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}", at in any::<usize>()) {
        let _ = parse(&text);
        let mut whole = manifest(&file("f"), &tensor("t"));
        let at = at % whole.len();
        if whole.is_char_boundary(at) {
            whole.insert_str(at, &text);
            let _ = parse(&whole);
        }
    }
}
