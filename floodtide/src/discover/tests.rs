//! Discovery over files in memory, which need no parser.

use super::*;
use floodtide_core::format::{GGUF, SERVERLESSLLM};
use floodtide_core::storage::MemoryStorage;
use floodtide_core::to_usize;

/// The start of a valid safetensors file.
const SAFETENSORS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";
const GGUF_FILE: &[u8] = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0";
const PICKLE: &[u8] = b"PK\x03\x04rest";
const STORE_INDEX: &[u8] = br#"{"t":[0,4,[1],[1],"torch.float32"]}"#;

fn shard_index(shards: &[&str]) -> Vec<u8> {
    let entry = |(i, shard): (usize, &&str)| format!("\"t{i}\":\"{shard}\"");
    let map: Vec<String> = shards.iter().enumerate().map(entry).collect();
    format!("{{\"weight_map\":{{{}}}}}", map.join(",")).into_bytes()
}

fn storage(files: &[(&str, &[u8])]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for (name, bytes) in files {
        storage.insert(*name, bytes.to_vec());
    }
    storage
}

/// The files that are found under a name.
fn files(storage: &MemoryStorage, name: &str) -> Vec<String> {
    discover(storage, name, None).expect("finds").files
}

fn error(files: &[(&str, &[u8])], name: &str) -> Error {
    discover(&storage(files), name, None).map(|found| found.files).expect_err("nothing to load")
}

#[test]
fn a_file_is_recognised_by_its_content() {
    let storage = storage(&[("m/model.bin", GGUF_FILE), ("m/model", SAFETENSORS), ("m/x", b"?"), ("m/p", PICKLE)]);
    for name in ["m/model.bin", "m/model", "m/x"] {
        let found = discover(&storage, name, None).expect("finds");
        assert_eq!((found.files, found.index.is_none()), (vec![name.to_owned()], true));
        assert!(found.first.is_some_and(|first| first.file.name() == name), "it is not opened again");
    }
    assert!(matches!(discover(&storage, "m/p", None), Err(Error::Pickle { name }) if name == "m/p"));
    assert!(matches!(discover(&storage, "m/q", None), Err(Error::Storage(error)) if error.is_not_found()));
}

#[test]
fn the_name_of_an_index_decides_unless_its_contents_prove_a_format() {
    let name = "m/model.safetensors.index.json";
    let error = error(&[(name, br#"{"metadata":{},"weight_map":[]}"#)], name).to_string();
    assert!(error.contains("weight_map"), "{error}");
    let proof = storage(&[(name, STORE_INDEX), ("m/tensor.data_0", b"")]);
    let index = discover(&proof, name, None).expect("finds").index.expect("an index");
    assert_eq!(index.parser.format(), SERVERLESSLLM);
}

#[test]
fn a_folder_is_searched_by_names_then_by_contents() {
    let all =
        storage(&[("m/b.safetensors", b""), ("m/a.safetensors", b""), ("m/README", SAFETENSORS), ("m/p.bin", PICKLE)]);
    assert_eq!(files(&all, "m"), ["m/a.safetensors", "m/b.safetensors"]);
    let hashes = storage(&[("3f", SAFETENSORS), ("2e", SAFETENSORS), ("x.txt", b"words"), ("deep/1d", GGUF_FILE)]);
    assert_eq!(files(&hashes, ""), ["2e", "3f"]);
    assert!(matches!(error(&[("m/a.txt", b"words")], "m"), Error::NoCheckpoint { name } if name == "m"));
    assert!(matches!(error(&[("m/a.bin", PICKLE), ("m/b", b"")], "m"), Error::Pickle { name } if name == "m/a.bin"));
    assert!(matches!(error(&[("m/a.zip", PICKLE)], "m"), Error::NoCheckpoint { .. }), "an archive may be anything");
}

#[test]
fn a_folder_of_several_formats_is_refused() {
    let by_name: &[(&str, &[u8])] = &[("m/a.safetensors", b""), ("m/tensor_index.json", b""), ("m/b.gguf", b"")];
    let Error::SeveralFormats { name, names } = error(by_name, "m") else { panic!("one is taken") };
    assert_eq!((name.as_str(), names.as_str()), ("m", "a.safetensors, b.gguf, tensor_index.json"));
    let by_content: &[(&str, &[u8])] = &[("m/a", SAFETENSORS), ("m/b", GGUF_FILE)];
    assert!(matches!(error(by_content, "m"), Error::SeveralFormats { names, .. } if names == "a, b"));
}

#[test]
fn an_index_stands_for_the_files_that_it_lists() {
    let index = shard_index(&["b.safetensors", "a.safetensors"]);
    let unlisted = ("m/c.safetensors", SAFETENSORS);
    let usual = storage(&[("m/model.safetensors.index.json", &index), ("m/other", &index), unlisted]);
    for name in ["m", "m/model.safetensors.index.json", "m/other"] {
        let found = discover(&usual, name, None).expect("finds");
        assert_eq!(found.files, ["m/a.safetensors", "m/b.safetensors"]);
        assert!(found.index.is_some_and(|index| index.name.starts_with("m/")));
    }
    // The usual one of several.
    let two = storage(&[("model.safetensors.index.json", &index), ("a.safetensors.index.fp16.json", b"{}")]);
    assert_eq!(files(&two, "").len(), 2);
    let names = ["m/a.safetensors.index.json", "m/b.safetensors.index.json"];
    let several = error(&names.map(|name| (name, &b"{}"[..])), "m");
    assert!(matches!(several, Error::SeveralIndexes { names, .. } if names.contains("a.") && names.contains("b.")));
    // Pickles have an index of the same form.
    let pickles = error(
        &[("pytorch_model.bin.index.json", &shard_index(&["pytorch_model-1.bin"]))],
        "pytorch_model.bin.index.json",
    );
    assert!(matches!(pickles, Error::Pickle { name } if name == "pytorch_model-1.bin"));
    // A file that is not JSON is an index by its name.
    let broken = error(&[("m/x.json", b"[")], "m/x.json").to_string();
    assert!(broken.contains("m/x.json") && broken.contains("weight_map"), "{broken}");
}

#[test]
fn an_index_that_is_too_large_is_not_read() {
    let mut file = vec![0; to_usize(MAX_INDEX_BYTES + 1)];
    file[0] = b'{';
    let storage = MemoryStorage::new();
    storage.insert("m/index.json", file);
    let error = discover(&storage, "m", None).map(|found| found.files).expect_err("no name says anything");
    assert!(matches!(error, Error::NoCheckpoint { .. }));
    let error = discover(&storage, "m/index.json", None).map(|found| found.files).expect_err("too large");
    assert!(matches!(error, Error::IndexTooLarge { len, .. } if len == MAX_INDEX_BYTES + 1));
}

#[test]
fn partitions_are_found_beside_their_index() {
    let whole =
        storage(&[("s/tensor_index.json", STORE_INDEX), ("s/tensor.data_1", b""), ("s/tensor.data_0", b"1234")]);
    for name in ["s", "s/tensor_index.json"] {
        assert_eq!(files(&whole, name), ["s/tensor.data_0", "s/tensor.data_1"]);
    }
    let partition = discover(&whole, "s/tensor.data_0", None).map(|found| found.files).expect_err("a partition");
    assert!(matches!(&partition, Error::Partition { format, .. } if *format == SERVERLESSLLM), "{partition}");
    assert!(partition.to_string().contains("tensor_index.json"), "{partition}");
    let missing = error(&[("s/tensor_index.json", STORE_INDEX), ("s/tensor.data_1", b"")], "s").to_string();
    assert!(missing.contains("s/tensor_index.json") && missing.contains("tensor.data_0"), "{missing}");
}

#[test]
fn any_shard_of_a_split_model_stands_for_all() {
    let names: Vec<String> = (1..=3).map(|number| format!("g/m-{number:05}-of-00003.gguf")).collect();
    let whole = MemoryStorage::new();
    names.iter().for_each(|name| whole.insert(name.clone(), GGUF_FILE));
    for name in names.iter().map(String::as_str).chain(["g"]) {
        assert_eq!(files(&whole, name), names);
    }
    whole.remove(&names[0]);
    for name in ["g", &names[2]] {
        let error = discover(&whole, name, None).map(|found| found.files).expect_err("one is missing");
        let Error::MissingSplit { name: found, shard, count } = error else { panic!("{error}") };
        assert_eq!((shard.as_str(), count), ("m-00001-of-00003.gguf", 3));
        assert!(found == names[1] || found == names[2], "one that is there");
    }
    whole.insert("g/other.gguf", GGUF_FILE);
    let error = discover(&whole, "g", None).map(|found| found.files).expect_err("two models");
    assert!(
        matches!(&error, Error::SeveralModels { format, names, .. } if *format == GGUF && names == "m-00002-of-00003.gguf, other.gguf"),
        "{error}"
    );
}

#[test]
fn a_cache_of_hugging_face_means_its_main_snapshot_or_its_only_one() {
    let file = |revision: &str| format!("models--a/snapshots/{revision}/model.safetensors");
    let storage = MemoryStorage::new();
    storage.insert(file("01"), SAFETENSORS);
    assert_eq!(files(&storage, "models--a"), [file("01")]);
    storage.insert(file("02"), SAFETENSORS);
    let error = discover(&storage, "models--a", None).map(|found| found.files).expect_err("two");
    assert!(matches!(error, Error::NoCheckpoint { .. }));
    for (main, expected) in [("02\n", Some("02")), ("../..", None), ("", None), ("03", None)] {
        storage.insert("models--a/refs/main", main.as_bytes());
        let found = discover(&storage, "models--a", None).map(|found| found.files).ok();
        assert_eq!(found, expected.map(|revision| vec![file(revision)]), "{main:?}");
    }
}
