//! GGUF with the command and the library: every rule broken once, discovery of shards, and any
//! layout with every backend.

use floodtide::{Loader, ViewError};
use floodtide_core::format::gguf::{MAX_HEADER_BYTES, Parsed, parse};
use floodtide_core::{DType, ElementType, GgmlType, Selection};
use floodtide_tests::checkpoint::{cache, folder, small};
use floodtide_tests::gguf::{Draft, array, described, string};
use floodtide_tests::layout::drop_cache;
use floodtide_tests::malformed::{assert_refused_by_command, assert_refused_by_core};
use floodtide_tests::over_storages::{Place, places};
use floodtide_tests::sandbox::limit_address_space;
use floodtide_tests::{command, malformed};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

#[test]
fn core_refuses_each_malformed_file_by_its_rule() {
    assert_refused_by_core(malformed::gguf::files(), |path| {
        let bytes = fs::read(path).expect("reads");
        parse(&bytes, bytes.len() as u64).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn the_command_refuses_each_malformed_file() {
    assert_refused_by_command(
        1,
        malformed::gguf::files(),
        &["inspect", "load", "plan", "digest"],
        &[malformed::gguf::NAME],
    );
}

#[test]
fn the_command_refuses_each_malformed_split_model() {
    assert_refused_by_command(1, malformed::gguf::split_models(), &["inspect", "load"], &[]);
    assert_refused_by_command(2, malformed::gguf::ambiguous(), &["inspect", "load"], &[]);
}

/// Writes three shards, the first without a tensor.
fn split(folder: &Path, prefix: &OsStr) {
    for number in 0..3_u16 {
        let mut draft = Draft::new().shard(number, 3, 2);
        if number > 0 {
            draft = draft.tensor(&format!("t{number}"), &[64, 3], GgmlType::Q8_0);
        }
        let name = [prefix.as_bytes(), format!("-{:05}-of-00003.gguf", number + 1).as_bytes()].concat();
        fs::write(folder.join(OsStr::from_bytes(&name)), draft.to_bytes()).expect("writes");
    }
}

#[test]
fn any_shard_means_all_of_them_and_so_does_their_folder() {
    for prefix in [&b"model"[..], b"odd \xff\n name-of-it"] {
        let folder = folder();
        split(folder.path(), OsStr::from_bytes(prefix));
        let shards: Vec<_> = fs::read_dir(folder.path()).expect("lists").map(|e| e.expect("lists").path()).collect();
        assert_eq!(shards.len(), 3);
        for path in shards.iter().map(AsRef::as_ref).chain([folder.path()]) {
            // Names in memory are Unicode.
            let places = if path.to_str().is_some() && prefix == b"model" {
                places(path).to_vec()
            } else {
                vec![Place::local(path)]
            };
            for place in places {
                let tensors = place.loader.load(&place.path).expect("loads");
                assert!(tensors.iter().map(|tensor| tensor.name().to_owned()).eq(["t1", "t2"]));
                assert_eq!(tensors.report().files, 3);
            }
        }
    }
}

#[test]
fn shards_in_a_cache_are_links_of_the_snapshot() {
    let folder = folder();
    let (cache, blobs, snapshot) = cache(folder.path());
    split(&blobs, "m".as_ref());
    for (number, blob) in ["aa", "bb", "cc"].into_iter().enumerate() {
        let name = format!("m-{:05}-of-00003.gguf", number + 1);
        fs::rename(blobs.join(&name), blobs.join(blob)).expect("renames");
        symlink(format!("../../blobs/{blob}"), snapshot.join(name)).expect("links");
    }
    for path in [cache.clone(), snapshot.clone(), snapshot.join("m-00002-of-00003.gguf")] {
        assert_eq!(Loader::new().load(path).expect("loads").len(), 2);
    }
}

#[test]
fn what_a_file_is_its_bytes_tell() {
    let folder = folder();
    let draft = Draft::new().tensor("t", &[32], GgmlType::Q4_0);
    let at = |name: &str| folder.path().join(name);
    let format =
        |path: &Path| command::run(["inspect".as_ref(), path.as_os_str(), "--json".as_ref()]).json()["format"].clone();
    for name in ["model", "model.bin", "model.safetensors", "m-00001-of-00002.bin"] {
        assert_eq!(format(&draft.write(folder.path(), name)), "gguf", "{name}");
        fs::remove_file(at(name)).expect("removes");
    }
    small(&at("model.gguf"));
    assert_eq!(format(&at("model.gguf")), "safetensors");
    // One of each in a folder of what are all named as safetensors.
    fs::rename(at("model.gguf"), at("a.safetensors")).expect("renames");
    draft.write(folder.path(), "b.safetensors");
    let mixed = command::run(["load".as_ref(), folder.path().as_os_str()]);
    mixed.assert_error(1, &["b.safetensors", "not a safetensors file"]);
}

#[test]
fn a_ggml_type_is_not_taken_for_a_plain_one() {
    let folder = folder();
    let path = Draft::new()
        .tensor("quantised", &[256, 2], GgmlType::Q4_K)
        .tensor("plain", &[3], GgmlType::F32)
        .write(folder.path(), "model.gguf");
    for place in places(&path) {
        let tensors = place.loader.clone().load(&place.path).expect("loads");
        for (name, ggml) in [("quantised", GgmlType::Q4_K), ("plain", GgmlType::F32)] {
            let tensor = tensors.get(name).expect("is there");
            assert_eq!(tensor.dtype(), ElementType::Ggml(ggml));
            assert_eq!(tensor.dtype().plain(), None);
        }
        let view = |name: &str| tensors.get(name).expect("is there").elements::<f32>().map(<[f32]>::len);
        assert!(matches!(view("quantised"), Err(ViewError::Quantised { dtype: GgmlType::Q4_K, .. })));
        assert_eq!(view("plain"), Ok(3), "that it is one of f32 is asked for");
        assert_eq!(GgmlType::F32.plain(), Some(DType::F32));
        let info = tensors.catalog().find("quantised").expect("is there");
        assert_eq!(info.shape, [2, 256]);
        assert!(info.ggml_shape().eq([256, 2]));
    }
}

#[test]
fn metadata_is_shown_by_itself_and_shortened_beside_the_tensors() {
    let folder = folder();
    let long = "x".repeat(1000);
    let tokens: Vec<u8> = (0..20).flat_map(|i| string(&format!("<{i}>"))).collect();
    let path = Draft::new()
        .key("text", 8, &string(&long))
        .key("evil\u{1b}", 8, &string("\u{1b}[31m\n"))
        .key("nan", 6, &f32::NAN.to_le_bytes())
        .key("tokens", 9, &array(8, 20, &tokens))
        .tensor("t", &[4], GgmlType::F32)
        .write(folder.path(), "model.gguf");
    let run = |options: &[&str]| {
        let mut arguments = vec!["inspect".as_ref(), path.as_os_str()];
        arguments.extend(options.iter().map(OsStr::new));
        command::run(arguments)
    };
    let (all, about) = (run(&[]), run(&["--metadata"]));
    assert!(all.assert_ok().contains("1 tensor") && !all.stdout.contains(&long), "{all:?}");
    assert!(all.stdout.contains(&("x".repeat(200) + "…")));
    let expected = format!(
        "text = {long}\nevil\\u{{1b}} = \\u{{1b}}[31m\\n\nnan = NaN\n\
         tokens = string[20] [\"<0>\", \"<1>\", \"<2>\", \"<3>\", \"<4>\", \"<5>\", \"<6>\", \"<7>\", …]\n"
    );
    assert_eq!(about.assert_ok(), expected);
    let json = run(&["--metadata", "--json"]).json();
    assert_eq!(json["metadata"], run(&["--json"]).json()["metadata"]);
    assert_eq!(json["metadata"]["text"], long);
    assert_eq!(json["metadata"]["nan"], serde_json::Value::Null);
    assert_eq!(json["metadata"]["tokens"]["count"], 20);
    assert_eq!(json.as_object().map(|object| object.len()), Some(2));
    // Of safetensors too, where all of it is text.
    let path = folder.path().join("model.safetensors");
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![1], &[1]).expect("fits");
    let about = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file([("t", view)], Some(about), &path).expect("writes");
    let run = command::run(["inspect".as_ref(), path.as_os_str(), "--metadata".as_ref()]);
    assert_eq!(run.assert_ok(), "format = pt\n");
}

/// The size of a header is known only after parsing, so it is read in steps.
#[test]
fn a_long_header_is_read_and_a_claimed_one_is_not() {
    let folder = folder();
    let tokens: Vec<u8> = (0..200_000).flat_map(|i| string(&format!("token {i}"))).collect();
    let path = Draft::new()
        .key("tokens", 9, &array(8, 200_000, &tokens))
        .tensor("t", &[1 << 20], GgmlType::F32)
        .write(folder.path(), "model.gguf");
    drop_cache(folder.path());
    let tensors = Loader::new().load(&path).expect("loads");
    assert_eq!(tensors.get("t").expect("is there").as_bytes().len(), 4 << 20);
    // A terabyte of zeros after a start that claims a header of this size.
    for (draft, words) in [
        (Draft::new().key("k", 9, &array(0, 1 << 39, &[])), &["549755813937", "134217728"]),
        // The first two of these tensors lie at the same place.
        (Draft { tensor_count: Some(1 << 34), ..Draft::new() }, &["data offset 0", "expected 32"]),
        (Draft::new().key("k", 8, &(1_u64 << 39).to_le_bytes()), &["549755813933", "134217728"]),
    ] {
        let path = draft.write(folder.path(), "sparse.gguf");
        fs::File::options().write(true).open(&path).expect("opens").set_len(1 << 40).expect("grows");
        command::run(["inspect".as_ref(), path.as_os_str()]).assert_error(1, &["sparse.gguf"]);
        command::run(["inspect".as_ref(), path.as_os_str()]).assert_error(1, words);
    }
}

/// A header takes at most 16 times its size in address space for tensors, and 32 times for
/// metadata, which is kept. A claimed length that the file fills with zeros takes at most the size
/// of the longest header.
#[test]
fn a_header_takes_memory_in_proportion_to_its_size() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let run = |file: &[u8], max: usize, len: u64| {
        fs::write(&path, file).expect("writes");
        fs::File::options().write(true).open(&path).expect("opens").set_len(len).expect("grows");
        let mut program = Command::new(command::path());
        program.arg("inspect").arg(&path);
        // The program itself and its libraries, beside the header.
        limit_address_space(&mut program, max as u64 + (32 << 20));
        command::finish(&mut program)
    };
    const COUNT: u64 = 250_000;
    // The shortest of both kinds: tensors without a byte, and numbers of one.
    let description = |i: u64| described(&format!("{i:x}"), &[0], 24, 0);
    let tensors: Vec<u8> = (0..COUNT).flat_map(description).collect();
    let keys: Vec<u8> = (0..COUNT).flat_map(|i| [&string(&format!("{i:x}"))[..], &[0; 4], &[1]].concat()).collect();
    for (draft, rest, factor) in [
        (Draft { tensor_count: Some(COUNT as i64), ..Draft::new() }, tensors, 16),
        (Draft { key_count: Some(COUNT as i64), ..Draft::new() }, keys, 32),
    ] {
        let file = [&draft.header()[..], &rest, &[0; 64]].concat();
        run(&file, factor * file.len(), file.len() as u64).assert_ok();
    }
    // The name of a key would be next.
    let claim = Draft { key_count: Some(2), ..Draft::new().key("k", 8, &100_000_000_u64.to_le_bytes()) }.header();
    run(&claim, MAX_HEADER_BYTES as usize, 1 << 40).assert_error(1, &["key number 1", "empty"]);
}

fn models() -> impl Strategy<Value = (u32, Vec<(GgmlType, Vec<u64>)>)> {
    let tensor = (prop::sample::select(GgmlType::ALL), prop::collection::vec(0_u64..6, 0..4), 0_u64..9);
    let tensor = tensor.prop_map(|(ggml, mut dims, blocks)| {
        // The first dimension is whole blocks, and none is a scalar unless a block is.
        if !dims.is_empty() || ggml.block_elements() > 1 {
            dims.insert(0, blocks * ggml.block_elements());
        }
        (ggml, dims)
    });
    (prop::sample::select(vec![1_u32, 8, 32, 4096]), prop::collection::vec(tensor, 0..12))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Every backend loads what was written, whole and in part.
    #[test]
    fn any_layout_is_loaded((alignment, tensors) in models()) {
        let folder = folder();
        let mut draft = Draft::new().align(alignment);
        for (i, (ggml, dims)) in tensors.iter().enumerate() {
            draft = draft.tensor(&format!("t{i}"), dims, *ggml);
        }
        let path = draft.write(folder.path(), "model.gguf");
        let file = fs::read(&path).expect("reads");
        let Ok(Parsed::Header(header)) = parse(&file, file.len() as u64) else { panic!("it is refused") };
        let expected: BTreeMap<String, Vec<u8>> = header
            .entries()
            .iter()
            .map(|entry| {
                let range = entry.range.start() as usize..entry.range.end() as usize;
                (entry.name.to_owned(), file[range].to_vec())
            })
            .collect();
        prop_assert_eq!(expected.len(), tensors.len());
for place in places(&path) {
        for &backend in &place.backends {
            drop_cache(folder.path());
            let loaded = place.loader.clone().backend(backend).load(&place.path).expect("loads");
            prop_assert!(loaded.iter().map(|t| (t.name().to_owned(), t.as_bytes().to_vec())).eq(expected.clone()));
            for tensor in loaded.iter().filter(|tensor| !tensor.as_bytes().is_empty()) {
                prop_assert!((tensor.as_bytes().as_ptr() as u64).is_multiple_of(tensor.dtype().alignment()));
            }
        }
        if !tensors.is_empty() {
            let loaded = place.loader.clone().selection(Selection::names(["t0"])).load(&place.path).expect("loads");
            let only = loaded.get("t0").expect("is there");
            prop_assert!(loaded.len() == 1 && only.as_bytes() == expected["t0"]);
        }
}
    }
}
