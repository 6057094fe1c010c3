//! `floodtide diff` compares two checkpoints across shards and formats.

use floodtide::{Change, Diff, Loader, StreamOptions, TensorDiff};
use floodtide_core::{GgmlType, Selection};
use floodtide_tests::checkpoint::{folder, raw, reshard, small};
use floodtide_tests::gguf::Draft;
use floodtide_tests::over_storages::Place;
use floodtide_tests::{command, serverlessllm_writer};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tensor: name, dtype as safetensors and as PyTorch has it, shape, bytes.
type Tensor = (String, (&'static str, &'static str), Vec<u64>, Vec<u8>);

fn tensor(name: &str, dtype: (&'static str, &'static str), shape: &[u64], seed: usize) -> Tensor {
    let size = match dtype.0 {
        "U8" => 1,
        "F16" | "BF16" => 2,
        _ => 4,
    };
    let bytes = shape.iter().product::<u64>() as usize * size;
    (name.to_owned(), dtype, shape.to_vec(), (0..bytes).map(|at| (at * 13 + at / 251 + seed) as u8).collect())
}

const U8: (&str, &str) = ("U8", "uint8");
const F16: (&str, &str) = ("F16", "float16");
const BF16: (&str, &str) = ("BF16", "bfloat16");
const F32: (&str, &str) = ("F32", "float32");

fn tensors() -> Vec<Tensor> {
    vec![
        tensor("a.weight", F16, &[1000, 1500], 1),
        tensor("b.bias", BF16, &[17], 2),
        tensor("c.empty", F32, &[0, 3], 3),
        tensor("d.scalar", F32, &[], 4),
        tensor("e.large", U8, &[9_000_001], 5),
        tensor("f.small", U8, &[3], 6),
    ]
}

fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let dtype = dtype.0;
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            data.len()
        ));
    }
    fs::write(path, raw(&format!("{{{}}}", entries.join(",")), &data)).expect("writes");
}

/// The same in the other format, in another order.
fn write_serverlessllm(folder: &Path, tensors: &[Tensor]) {
    fs::create_dir_all(folder).expect("makes");
    let turned: Vec<_> = tensors
        .iter()
        .rev()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), dtype.1, shape.as_slice(), bytes.as_slice()))
        .collect();
    serverlessllm_writer::write_tensors(folder, &turned);
}

/// Compares two checkpoints in local files, and the same in memory and in both.
fn compare(loader: &Loader, a: &Path, b: &Path) -> Diff {
    let place = Place::memory(a);
    place.update(b);
    let loader = loader.clone().storage("mem", place.memory.clone().expect("it is"));
    let local = loader.diff(a, b).expect("compares");
    for (a, b) in [(place.at(a), place.at(b)), (a.to_owned(), place.at(b)), (place.at(a), b.to_owned())] {
        let found = loader.diff(a, b).expect("compares");
        assert_eq!((found.same, found.bytes), (local.same, local.bytes));
        // Names in memory begin without a slash.
        let shown = |diff: &Diff| format!("{:?}", diff.tensors).replace("\"/", "\"");
        assert_eq!(shown(&found), shown(&local));
    }
    local
}

fn diff(a: &Path, b: &Path, extra: &[&str]) -> command::Run {
    command::run([&["diff", a.to_str().expect("UTF-8"), b.to_str().expect("UTF-8")], extra].concat())
}

#[test]
fn the_same_tensors_are_the_same_in_other_shards_and_in_another_format() {
    let folder = folder();
    let (file, shards, other) = (folder.path().join("m.safetensors"), folder.path().join("s"), folder.path().join("t"));
    write_safetensors(&file, &tensors());
    fs::create_dir(&shards).expect("makes");
    reshard(&file, &shards, 3);
    write_serverlessllm(&other, &tensors());
    let all = [&file, &shards, &other];
    for a in all {
        for b in all {
            for limit in [&[][..], &["--memory-limit", "2MiB"]] {
                let run = diff(a, b, limit);
                assert!(run.assert_ok().contains("6 same"), "{run:#?}");
            }
            let document = diff(a, b, &["--json"]).json();
            assert_eq!((&document["same"], &document["same_tensors"]), (&true.into(), &6.into()));
            let bytes: usize = tensors().iter().map(|tensor| tensor.3.len()).sum();
            assert_eq!(document["bytes"], bytes);
        }
    }
    let document = diff(&file, &other, &["--json"]).json();
    assert_eq!((&document["a"]["format"], &document["b"]["format"]), (&"safetensors".into(), &"serverlessllm".into()));
}

#[test]
fn bytes_that_differ_are_counted_and_placed() {
    let folder = folder();
    let (file, other) = (folder.path().join("m.safetensors"), folder.path().join("t"));
    write_safetensors(&file, &tensors());
    let mut changed = tensors();
    // At both ends of a large tensor, whose parts come one after another, and in a small one.
    for at in [5, 6, 8_999_990] {
        changed[4].3[at] ^= 0x40;
    }
    changed[5].3[2] ^= 1;
    write_serverlessllm(&other, &changed);
    let diff_of = compare(&Loader::new(), &file, &other);
    let [large, small] = &diff_of.tensors[..] else { panic!("{:?}", diff_of.tensors) };
    assert_eq!((large.name.as_str(), small.name.as_str(), diff_of.same), ("e.large", "f.small", 4));
    let Change::Content { range, bytes, locations: places } = &large.change else { panic!("{large:?}") };
    assert_eq!((range.clone(), *bytes), (5..8_999_991, 3));
    for place in places {
        let (path, other_path) = (&places[0].file, &places[1].file);
        let at = |path: &str, offset: u64| fs::read(path).expect("reads")[offset as usize];
        assert_ne!(at(path, places[0].range.start), at(other_path, places[1].range.start));
        assert_ne!(at(path, places[0].range.end - 1), at(other_path, places[1].range.end - 1));
        assert_eq!(place.range.end - place.range.start, range.end - range.start);
    }
    let Change::Content { range, bytes: 1, .. } = &small.change else { panic!("{small:?}") };
    assert_eq!(*range, 2..3);
    let run = diff(&file, &other, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (1, ""), "{run:#?}");
    for words in
        ["content  e.large: 3 bytes differ within 5..8999991", "content  f.small", "4 same", "2 with different content"]
    {
        assert!(run.stdout.contains(words), "\"{words}\" is not in {run:#?}");
    }
}

#[test]
fn what_was_added_removed_or_changed_is_named() {
    let folder = folder();
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    write_safetensors(&a, &tensors());
    let mut other = tensors();
    other.remove(1);
    other[0].1 = BF16;
    other[3].2 = vec![1, 9_000_001];
    other.push(tensor("new", F32, &[2], 7));
    write_safetensors(&b, &other);
    let found = compare(&Loader::new(), &a, &b);
    let changes: Vec<(&str, &Change)> =
        found.tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.change)).collect();
    let [
        ("a.weight", Change::Kind { dtypes, .. }),
        ("b.bias", Change::Removed),
        ("e.large", Change::Kind { shapes, .. }),
        ("new", Change::Added),
    ] = changes[..]
    else {
        panic!("{changes:?}")
    };
    assert_eq!(dtypes.map(|dtype| dtype.name()), ["F16", "BF16"]);
    assert_eq!(*shapes, [vec![9_000_001], vec![1, 9_000_001]]);
    assert_eq!((found.same, compare(&Loader::new(), &b, &a).same), (3, 3));
    let run = diff(&a, &b, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).expect("one document");
    assert_eq!((run.code, &document["same"]), (1, &false.into()));
    let kinds: Vec<&str> = document["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["change"].as_str().expect("text"))
        .collect();
    assert_eq!(kinds, ["kind", "removed", "kind", "added"]);
    let text = diff(&a, &b, &[]).stdout;
    for words in ["changed  a.weight: F16 [1000, 1500] became BF16", "removed  b.bias", "added    new"] {
        assert!(text.contains(words), "\"{words}\" is not in {text}");
    }
}

#[test]
fn a_plain_tensor_of_gguf_is_the_same_in_safetensors_and_a_quantised_one_is_not() {
    let folder = folder();
    let draft = Draft::new().tensor("a", &[1500, 300], GgmlType::F16).tensor("b", &[7], GgmlType::F32).tensor(
        "q",
        &[64, 2],
        GgmlType::Q8_0,
    );
    let gguf = draft.write(folder.path(), "model.gguf");
    let loaded = Loader::new().load(&gguf).expect("loads");
    let bytes = |name: &str| loaded.get(name).expect("is there").as_bytes().to_vec();
    // Row-major: ggml's first dimension is the last one here.
    let mut tensors = vec![
        ("a".to_owned(), F16, vec![300, 1500], bytes("a")),
        ("b".to_owned(), F32, vec![7], bytes("b")),
        ("q".to_owned(), U8, vec![2, 68], bytes("q")),
    ];
    let plain = folder.path().join("plain.safetensors");
    write_safetensors(&plain, &tensors);
    let found = compare(&Loader::new(), &gguf, &plain);
    assert_eq!(found.same, 2);
    let [TensorDiff { name, change: Change::Kind { dtypes, shapes }, .. }] = &found.tensors[..] else {
        panic!("{:?}", found.tensors)
    };
    assert_eq!((name.as_str(), dtypes.map(|dtype| dtype.name())), ("q", ["GGML_Q8_0", "U8"]));
    assert_eq!(*shapes, [vec![2, 64], vec![2, 68]]);
    // So it is for a manifest.
    let manifest = Loader::new().manifest(&gguf).expect("hashes");
    assert_eq!(floodtide::Manifest::parse(manifest.to_string().as_bytes()).as_ref(), Ok(&manifest));
    Loader::new().verify_with(manifest.clone()).load(&gguf).expect("is what it is");
    let some = Loader::new().selection(Selection::names(["a", "b"])).verify_with(manifest);
    some.load(&plain).expect("has the same elements");
    tensors[0].3[77] ^= 1;
    write_safetensors(&plain, &tensors);
    let error = some.load(&plain).expect_err("differs").to_string();
    assert!(error.contains("\"a\"") && error.contains("BLAKE3"), "{error}");
    assert_eq!(compare(&Loader::new(), &gguf, &plain).same, 1);
}

#[test]
fn checkpoints_without_a_common_tensor_are_not_read() {
    let folder = folder();
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    write_safetensors(&a, &tensors()[..2]);
    write_safetensors(&b, &tensors()[2..]);
    let found = compare(&Loader::new(), &a, &b);
    assert_eq!((found.tensors.len(), found.same, found.bytes), (6, 0, 0));
    write_safetensors(&b, &[]);
    write_safetensors(&a, &[]);
    assert_eq!(diff(&a, &b, &[]).code, 0);
}

#[test]
fn trouble_is_told_from_a_difference() {
    let folder = folder();
    let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    small(&a);
    fs::write(&b, "not one").expect("writes");
    diff(&a, &b, &[]).assert_error(2, &["b.safetensors"]);
    diff(&folder.path().join("missing"), &a, &["--json"]).assert_error(2, &["missing"]);
    diff(&a, &a, &["--memory-limit", "1MiB"]).assert_error(2, &["2097152"]);
    assert_eq!(command::run(["diff", a.to_str().expect("UTF-8")]).code, 2);
    assert_eq!(diff(&a, &a, &[]).code, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_byte_that_differs_is_found_wherever_it_lies(
        sizes in proptest::collection::vec(prop_oneof![0_u64..300, 0_u64..400_000], 1..12),
        victim in any::<usize>(),
        at in any::<usize>(),
        limit in prop_oneof![Just(2_u64 << 20), Just(16 << 20)],
    ) {
        let folder = folder();
        let (a, b) = (folder.path().join("a.safetensors"), folder.path().join("b"));
        let mut tensors: Vec<Tensor> =
            sizes.iter().enumerate().map(|(i, &size)| tensor(&format!("t{i}"), U8, &[size], i)).collect();
        write_safetensors(&a, &tensors);
        write_serverlessllm(&b, &tensors);
        let loader = Loader::new().stream_options(StreamOptions::new().memory_limit(limit));
        prop_assert!(compare(&loader, &a, &b).tensors.is_empty());
        let victim = victim % tensors.len();
        if tensors[victim].3.is_empty() {
            return Ok(());
        }
        let at = at % tensors[victim].3.len();
        tensors[victim].3[at] ^= 8;
        write_serverlessllm(&b, &tensors);
        let found = compare(&loader, &b, &a);
        prop_assert_eq!(found.tensors.len(), 1);
        prop_assert_eq!(&found.tensors[0].name, &format!("t{victim}"));
        let Change::Content { range, bytes, .. } = &found.tensors[0].change else { panic!("{:?}", found.tensors) };
        prop_assert_eq!((range.start, range.end, *bytes), (at as u64, at as u64 + 1, 1));
    }
}

#[test]
fn the_exit_code_does_not_depend_on_the_reader_of_the_output() {
    let folder = folder();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(format!("{name}.safetensors")));
    let mut other = tensors();
    other[5].3[1] ^= 1;
    write_safetensors(&a, &tensors());
    write_safetensors(&b, &other);
    write_safetensors(&c, &tensors());
    let manifest = folder.path().join("manifest.json");
    let made = command::run(["manifest".as_ref(), a.as_os_str()]);
    fs::write(&manifest, made.assert_ok()).expect("writes");
    let unread = |arguments: &[&std::ffi::OsStr]| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut program = Command::new(command::path());
        program.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
        program.status().expect("runs").code()
    };
    for json in [&[][..], &["--json".as_ref()]] {
        for (path, code) in [(&b, Some(1)), (&c, Some(0))] {
            assert_eq!(unread(&[&["diff".as_ref(), a.as_os_str(), path.as_os_str()], json].concat()), code);
            let with = ["--manifest".as_ref(), manifest.as_os_str()];
            // The file has another name in the manifest.
            let renamed = folder.path().join("other").join("a.safetensors");
            fs::create_dir_all(renamed.parent().expect("has one")).expect("makes");
            fs::copy(path, &renamed).expect("copies");
            assert_eq!(unread(&[&["verify".as_ref(), renamed.as_os_str()], &with[..], json].concat()), code);
        }
    }
    let told = command::run(["diff".as_ref(), a.as_os_str(), b.as_os_str()]);
    assert!(told.stdout.contains("f.small: 1 byte differs within 1..2"), "{told:?}");
}
