//! `floodtide manifest` and `floodtide verify`, and the library behind them: every checksum equals
//! that of the reference library, every difference is found and named, and every malformed manifest
//! is refused.

use floodtide::{Loader, Manifest, Mismatch, StreamOptions, read_manifest};
use floodtide_core::checksum::Checksum;
use floodtide_tests::checkpoint::{folder, plain, raw, reshard, small};
use floodtide_tests::command::{self, Run};
use floodtide_tests::over_storages::places;
use floodtide_tests::serverlessllm_writer;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Two files of large, small and empty tensors, whose data starts at odd offsets.
fn checkpoint(folder: &Path) {
    for file in 0..2 {
        let sizes = [1_500_000_usize, 7, 0, 900_001, 64, 9_000_000].into_iter().enumerate();
        let (mut json, data) = plain(sizes.map(|(i, bytes)| {
            (format!("{file}.{i}"), (0..bytes).map(|at| (at * 31 + at / 255 + i * 7 + file) as u8).collect())
        }));
        json.push_str(&" ".repeat(file + 3));
        fs::write(folder.join(format!("model-{file}.safetensors")), raw(&json, &data)).expect("writes");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(path: &Path) -> String {
    hex(&Sha256::digest(fs::read(path).expect("reads")))
}

/// Returns the hashes of the tensors by name, computed with the reference library.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<u64>, String)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = fs::read(path).expect("reads");
        for (name, view) in SafeTensors::deserialize(&bytes).expect("valid").tensors() {
            let dtype = serde_json::to_value(view.dtype()).expect("a name").as_str().expect("text").to_owned();
            let shape = view.shape().iter().map(|&n| n as u64).collect();
            all.insert(name, (dtype, shape, Checksum::of(view.data()).to_string()));
        }
    }
    all
}

fn assert_is_of(manifest: &Manifest, folder: &Path, files: &[&str]) {
    let names: Vec<&str> = manifest.files().iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, files);
    for file in manifest.files() {
        let path = folder.join(&file.name);
        assert_eq!(file.sha256.to_string(), sha256(&path), "{}", file.name);
        assert_eq!(file.bytes, fs::metadata(path).expect("is there").len());
    }
    let expected = tensors(folder);
    assert_eq!(manifest.tensors().len(), expected.len());
    for tensor in manifest.tensors() {
        let found = (tensor.dtype.name().to_owned(), tensor.shape.clone(), tensor.blake3.to_string());
        assert_eq!(found, expected[&tensor.name], "{}", tensor.name);
    }
}

fn manifest_of(path: &Path, extra: &[&str]) -> Run {
    let arguments = [&["manifest", path.to_str().expect("UTF-8")], extra].concat();
    command::run(arguments)
}

/// Writes the manifest of a checkpoint beside its folder's files.
fn write_manifest(path: &Path, to: &Path) -> PathBuf {
    let manifest = to.join("manifest.json");
    fs::write(&manifest, manifest_of(path, &[]).assert_ok()).expect("writes");
    manifest
}

fn verify(path: &Path, manifest: &Path, extra: &[&str]) -> Run {
    let arguments = ["verify", path.to_str().expect("UTF-8"), "--manifest", manifest.to_str().expect("UTF-8")];
    command::run([&arguments, extra].concat())
}

#[test]
fn a_manifest_has_the_checksums_that_plain_hashing_gives() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = Loader::new().manifest(folder.path()).expect("hashes");
    assert_is_of(&manifest, folder.path(), &["model-0.safetensors", "model-1.safetensors"]);
    // By whatever backend, in however little memory, it is the same, byte for byte.
    for place in places(folder.path()) {
        for backend in place.loading() {
            let loader = place.loader_by(backend).stream_options(StreamOptions::new().memory_limit(1 << 20));
            assert_eq!(loader.manifest(&place.path).expect("hashes"), manifest, "{backend:?}");
            let report = loader.verify(&place.path, &manifest).expect("valid");
            assert!(report.mismatches.is_empty(), "{backend:?}");
        }
    }
    for extra in [&[][..], &["--memory-limit", "1MiB"]] {
        assert_eq!(manifest_of(folder.path(), extra).assert_ok(), manifest.to_string());
    }
    let only = folder.path().join("model-1.safetensors");
    let manifest = Loader::new().manifest(&only).expect("hashes");
    assert_eq!((manifest.files().len(), manifest.tensors().len()), (1, 6));
}

#[test]
fn an_index_is_one_of_the_files() {
    let folder = folder();
    let single = folder.path().join("single");
    let shards = folder.path().join("shards");
    fs::create_dir(&single).expect("makes");
    fs::create_dir(&shards).expect("makes");
    small(&single.join("model.safetensors"));
    reshard(&single.join("model.safetensors"), &shards, 2);
    let names =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"];
    for place in places(&shards) {
        assert_is_of(&place.loader.manifest(&place.path).expect("hashes"), &shards, &names);
    }
    let checkpoint = folder.path().join("checkpoint");
    fs::create_dir(&checkpoint).expect("makes");
    serverlessllm_writer::write_tensors(&checkpoint, &[("a", "float32", &[2], &[1; 8]), ("b", "uint8", &[3], &[2; 3])]);
    let [manifest, of_memory] = places(&checkpoint).map(|place| place.loader.manifest(&place.path).expect("hashes"));
    assert_eq!(manifest, of_memory);
    let names: Vec<&str> = manifest.files().iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["tensor.data_0", "tensor_index.json"]);
    // Padding belongs to the file, not to the tensor.
    assert_eq!(manifest.tensor("b").expect("is there").blake3, Checksum::of(&[2; 3]));
    assert_eq!(verify(&checkpoint, &write_manifest(&checkpoint, folder.path()), &[]).code, 0);
}

#[test]
fn sha256sum_takes_the_lines() {
    let folder = folder();
    checkpoint(folder.path());
    let sums = folder.path().join("sums");
    let lines = manifest_of(folder.path(), &["--sha256sum"]);
    let expected: String = ["model-0.safetensors", "model-1.safetensors"]
        .iter()
        .map(|name| format!("{}  {name}\n", sha256(&folder.path().join(name))))
        .collect();
    assert_eq!(lines.assert_ok(), expected);
    fs::write(&sums, expected).expect("writes");
    match Command::new("sha256sum").args(["--check", "--strict", "sums"]).current_dir(folder.path()).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => println!("skipped: no sha256sum here ({error})"),
    }
}

/// A manifest cannot hold names with backslashes, but `sha256sum` escapes them.
#[test]
fn files_that_a_manifest_cannot_name_are_named_before_anything_is_hashed() {
    let folder = folder();
    let at = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    for (name, shown, why) in [
        (&b"m\xfe.safetensors"[..], "m\u{fffd}.safetensors", "not UTF-8"),
        (b"m\\x41.safetensors", "m\\\\x41", "a backslash"),
    ] {
        small(&at(name));
        let run = manifest_of(folder.path(), &[]);
        run.assert_error(1, &[shown, why, "rename it"]);
        let lines = manifest_of(folder.path(), &["--sha256sum"]);
        if why == "a backslash" {
            assert!(lines.assert_ok().starts_with('\\') && lines.stdout.contains("m\\\\x41"), "{lines:#?}");
        } else {
            lines.assert_error(1, &[shown, why, "rename it"]);
        }
        fs::remove_file(at(name)).expect("removes");
    }
    // The manifest does not contain the folder's name.
    for name in [&b"d\xff"[..], b"d\\x41"] {
        fs::create_dir(at(name)).expect("makes");
        small(&at(name).join("model.safetensors"));
        let run = command::run(["manifest".as_ref(), at(name).as_os_str()]);
        assert_eq!(run.json()["files"][0]["name"], "model.safetensors");
        fs::remove_dir_all(at(name)).expect("removes");
    }
}

/// A manifest with such a name, from before they were refused, matches no file.
#[test]
fn a_name_that_no_manifest_has_is_a_difference() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let manifest = write_manifest(&path, folder.path());
    let odd = folder.path().join(OsStr::from_bytes(b"model\xfe.safetensors"));
    fs::rename(&path, &odd).expect("renames");
    let arguments = ["verify".as_ref(), odd.as_os_str(), "--manifest".as_ref(), manifest.as_os_str()];
    let run = command::run(arguments);
    assert!(
        run.code == 1 && run.stdout.contains("model.safetensors") && run.stdout.contains("model\\xfe.safetensors"),
        "{run:#?}"
    );
}

#[test]
fn a_checkpoint_without_a_tensor_has_a_manifest() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, raw("{}", &[])).expect("writes");
    let manifest = Loader::new().manifest(&path).expect("hashes");
    assert_eq!((manifest.files().len(), manifest.tensors().len()), (1, 0));
    assert_eq!(verify(&path, &write_manifest(&path, folder.path()), &[]).code, 0);
}

#[test]
fn what_is_whole_is_said_to_be() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = write_manifest(folder.path(), folder.path());
    let run = verify(folder.path(), &manifest, &[]);
    for words in ["12 tensors in 2 files: valid", "match the manifest"] {
        assert!(run.assert_ok().contains(words), "{run:#?}");
    }
    let document = verify(folder.path(), &manifest, &["--json", "--memory-limit", "1MiB"]).json();
    assert_eq!((&document["valid"], &document["same"]), (&true.into(), &true.into()));
    assert_eq!(document["differences"].as_array().map(Vec::len), Some(0));
    // Without a manifest, only the structure is checked.
    let document = command::run(["verify", folder.path().to_str().expect("UTF-8"), "--json"]).json();
    assert_eq!((&document["valid"], &document["same"]), (&true.into(), &serde_json::Value::Null));
}

#[test]
fn a_byte_that_is_another_is_named_by_tensor_file_and_place() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = write_manifest(folder.path(), folder.path());
    let inspected = Loader::new().inspect(folder.path()).expect("valid");
    for (name, at) in [("0.0", 0), ("0.1", 3), ("1.3", 900_000), ("1.5", 4_500_000)] {
        let tensor = inspected.catalog.find(name).expect("is there");
        let path = PathBuf::from(&inspected.catalog.file(tensor.file).path);
        let whole = fs::read(&path).expect("reads");
        let mut damaged = whole.clone();
        damaged[tensor.range.start() as usize + at] ^= 4;
        fs::write(&path, &damaged).expect("writes");
        let run = verify(folder.path(), &manifest, &[]);
        let json = verify(folder.path(), &manifest, &["--json"]);
        fs::write(&path, &whole).expect("writes");
        assert_eq!((run.code, json.code, run.stderr.as_str()), (1, 1, ""), "{run:#?}");
        let place = format!("bytes {}..{}", tensor.range.start(), tensor.range.end());
        let file = path.file_name().expect("a name").to_str().expect("UTF-8");
        for words in [&format!("\"{name}\" in {file}"), &place, "2 differences", &sha256(&path)] {
            assert!(run.stdout.contains(words), "\"{words}\" is not in {run:#?}");
        }
        let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
        let rows = document["differences"].as_array().expect("a list");
        assert_eq!((&document["same"], rows.len()), (&false.into(), 2));
        assert_eq!((&rows[0]["kind"], &rows[0]["tensor"]), (&"tensor-content".into(), &name.into()));
        assert_eq!((&rows[0]["file"], &rows[0]["start"]), (&file.into(), &tensor.range.start().into()));
        assert_eq!((&rows[1]["kind"], &rows[1]["tensors"]), (&"file-content".into(), &true.into()));
    }
}

#[test]
fn a_header_that_says_the_same_in_other_words_is_another_file() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = Loader::new().manifest(folder.path()).expect("hashes");
    let path = folder.path().join("model-0.safetensors");
    let mut bytes = fs::read(&path).expect("reads");
    let brace = bytes.iter().position(|&byte| byte == b'{').expect("JSON");
    // Move a space from the end of the header to its start.
    let end = bytes.iter().position(|&byte| byte == b' ').expect("padding");
    bytes[brace..=end].rotate_right(1);
    fs::write(&path, bytes).expect("writes");
    let [report, of_memory] =
        places(folder.path()).map(|place| place.loader.verify(&place.path, &manifest).expect("valid"));
    assert_eq!(report.mismatches, of_memory.mismatches);
    let [Mismatch::FileContent { file, tensors: false, .. }] = &report.mismatches[..] else {
        panic!("{:?}", report.mismatches)
    };
    assert_eq!(file, "model-0.safetensors");
    assert!(report.mismatches[0].to_string().contains("outside its tensors"));
}

#[test]
fn what_is_missing_and_what_is_new_is_named() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = Loader::new().manifest(folder.path()).expect("hashes");
    let other =
        r#"{"0.0":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"n":{"dtype":"U8","shape":[],"data_offsets":[3,4]}}"#;
    fs::write(folder.path().join("model-0.safetensors"), raw(other, &[1; 4])).expect("writes");
    fs::rename(folder.path().join("model-1.safetensors"), folder.path().join("renamed.safetensors")).expect("renames");
    let [report, of_memory] =
        places(folder.path()).map(|place| place.loader.verify(&place.path, &manifest).expect("valid"));
    assert_eq!(report.mismatches, of_memory.mismatches);
    let kinds: Vec<(&str, String)> = report
        .mismatches
        .iter()
        .map(|mismatch| match mismatch {
            Mismatch::TensorKind { tensor, .. }
            | Mismatch::TensorMissing { tensor }
            | Mismatch::TensorAdded { tensor, .. } => (mismatch.kind(), tensor.clone()),
            Mismatch::FileLength { file, .. } | Mismatch::FileMissing { file } | Mismatch::FileAdded { file } => {
                (mismatch.kind(), file.clone())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let missing = |i: usize| ("tensor-missing", format!("0.{i}"));
    let expected = [
        ("tensor-kind", "0.0".to_owned()),
        missing(1),
        missing(2),
        missing(3),
        missing(4),
        missing(5),
        ("tensor-added", "n".to_owned()),
        ("file-length", "model-0.safetensors".to_owned()),
        ("file-missing", "model-1.safetensors".to_owned()),
        ("file-added", "renamed.safetensors".to_owned()),
    ];
    assert_eq!(kinds, expected);
    // The message is printable, and says which name is which.
    for mismatch in &report.mismatches {
        let text = mismatch.to_string();
        assert!(text.starts_with("tensor \"") || text.starts_with("file "), "{text}");
    }
}

#[test]
fn broken_structure_is_told_of_every_file() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = write_manifest(folder.path(), folder.path());
    for file in ["model-0.safetensors", "model-1.safetensors"] {
        let path = folder.path().join(file);
        let bytes = fs::read(&path).expect("reads");
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("writes");
    }
    for arguments in [vec!["verify"], vec!["verify", "--manifest", manifest.to_str().expect("UTF-8")]] {
        let run = command::run([&arguments[..], &[folder.path().to_str().expect("UTF-8")]].concat());
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:#?}");
        assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 2, "{run:#?}");
        assert!(run.stderr.contains("model-0.safetensors") && run.stderr.contains("model-1.safetensors"), "{run:#?}");
    }
    let run = command::run(["verify", "--json", folder.path().to_str().expect("UTF-8")]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((run.code, &document["valid"]), (1, &false.into()));
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_manifest_that_is_none_is_refused_by_every_command() {
    let folder = folder();
    let model = folder.path().join("model.safetensors");
    small(&model);
    let whole = manifest_of(&model, &[]).assert_ok().to_owned();
    let path = folder.path().join("broken.json");
    for (text, words) in [
        ("{}".to_owned(), "schema"),
        (whole[..whole.len() / 2].to_owned(), "EOF"),
        (whole.replacen("\"version\": 1", "\"version\": 9", 1), "version 9"),
        (whole.replacen("floodtide-manifest", "torrent", 1), "\"torrent\""),
        (whole.replacen("\"F32\"", "\"F31\"", 1), "\"F31\""),
        (whole.replacen("\"bytes\": 512", "\"bytes\": 511", 1), "511 bytes"),
        (whole.replacen("\"blake3\": \"", "\"blake3\": \"x", 1), "hexadecimal"),
        (whole.replacen("\"scale\"", "\"layer.bias\"", 1), "twice"),
        (whole.replacen("model.safetensors", "../model", 1), "plain name"),
    ] {
        assert_ne!(text, whole, "{words}");
        fs::write(&path, text).expect("writes");
        let (model, manifest) = (model.to_str().expect("UTF-8"), path.to_str().expect("UTF-8"));
        command::run(["verify", model, "--manifest", manifest]).assert_error(1, &["broken.json", words]);
        command::run(["load", model, "--verify", manifest]).assert_error(1, &["broken.json", words]);
    }
    let missing = folder.path().join("missing.json");
    let error = read_manifest(&missing).expect_err("is not there").to_string();
    assert!(error.contains("missing.json") && error.contains("read the manifest"), "{error}");
}

#[test]
fn a_manifest_that_is_too_long_is_refused_unread() {
    let folder = folder();
    let (model, path) = (folder.path().join("model.safetensors"), folder.path().join("long.json"));
    small(&model);
    fs::File::create(&path).and_then(|file| file.set_len((1 << 30) + 1)).expect("a sparse file");
    let mut verify = Command::new("sh");
    verify.args(["-c", r#"ulimit -v 800000; exec "$0" verify "$1" --manifest "$2""#]);
    verify.arg(command::path()).args([&model, &path]);
    command::finish(&mut verify).assert_error(1, &["long.json", "1073741825 bytes", "limit"]);
}

#[test]
fn a_manifest_may_come_through_a_pipe() {
    let folder = folder();
    let model = folder.path().join("model.safetensors");
    small(&model);
    let script = "\"$0\" manifest \"$1\" | \"$0\" verify \"$1\" --manifest /dev/stdin";
    let output = Command::new("sh").args(["-c", script]).arg(command::path()).arg(&model).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
}
