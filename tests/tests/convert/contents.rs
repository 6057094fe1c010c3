//! Conversions keep every byte, name, shape and dtype, for every target and memory limit.

use floodtide::convert::{Converted, Converter, OutputError, Rename, Split};
use floodtide::format::{GGUF, SAFETENSORS, SERVERLESSLLM};
use floodtide::storage::{LatencyClass, LocalStorage, SystemTimer, Throttle, Throttled};
use floodtide::{Error, Loader, Selection, StreamOptions, Warning};
use floodtide_core::{DType, Warning as CoreWarning};
use floodtide_tests::checkpoint::{folder, raw};
use floodtide_tests::over_storages::{Place, places};
use floodtide_tests::{command, serverlessllm_reader};
use proptest::prelude::*;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

const MB: usize = 1 << 20;

/// A tensor as every reader must find it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    dtype: String,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

type Checkpoint = BTreeMap<String, Known>;

/// Returns a tensor whose bytes differ everywhere.
fn known(dtype: DType, shape: &[u64], seed: usize) -> Known {
    let bytes = (shape.iter().product::<u64>() * dtype.bits() / 8) as usize;
    let bytes = (0..bytes).map(|i| (i * 7 + i / 255 + seed * 31) as u8).collect();
    Known { dtype: dtype.name().to_owned(), shape: shape.to_vec(), bytes }
}

/// Writes shards byte by byte, each with spaces after its header that break the alignment of its
/// data.
fn write(folder: &Path, checkpoint: &Checkpoint, shards: usize, padding: usize) {
    for shard in 0..shards {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        header.insert("__metadata__".to_owned(), serde_json::json!({"format": "pt", "trained": "well"}));
        for (name, tensor) in checkpoint.iter().skip(shard).step_by(shards) {
            let begin = data.len();
            data.extend_from_slice(&tensor.bytes);
            let entry =
                serde_json::json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()]});
            header.insert(name.clone(), entry);
        }
        let json = serde_json::Value::Object(header).to_string() + &" ".repeat(padding);
        fs::write(folder.join(format!("model-{shard}.safetensors")), raw(&json, &data)).expect("writes");
    }
}

/// Returns what the reference library finds in a folder, with the metadata of each file.
fn reference(folder: &Path) -> (Checkpoint, Vec<BTreeMap<String, String>>) {
    let (mut tensors, mut metadata) = (Checkpoint::new(), Vec::new());
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let file = fs::read(&path).expect("reads");
        let (_, header) = SafeTensors::read_metadata(&file).expect("valid");
        metadata.push(header.metadata().clone().unwrap_or_default().into_iter().collect());
        for (name, view) in SafeTensors::deserialize(&file).expect("valid").iter() {
            let dtype = serde_json::to_value(view.dtype()).expect("a name").as_str().expect("a name").to_owned();
            let shape = view.shape().iter().map(|&dim| dim as u64).collect();
            tensors.insert(name.to_owned(), Known { dtype, shape, bytes: view.data().to_vec() });
        }
    }
    (tensors, metadata)
}

/// Returns the digests that the command prints, by name.
fn digest(path: &Path) -> String {
    let mut lines: Vec<String> =
        command::run([Path::new("digest"), path]).assert_ok().lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

/// Converts local files, and the same files in memory, of which the same must come.
fn convert(from: &Path, to: &Path, target: floodtide::FormatId, split: Split) -> Result<Converted, Error> {
    let of_memory = to.with_extension("of-memory");
    let [local, memory] = places(from).map(|place| {
        let to = if place.memory.is_some() { &of_memory } else { to };
        Converter::new(place.loader.stream_options(StreamOptions::new().memory_limit(MB as u64)), target)
            .split(split)
            .convert(&place.path, to)
    });
    match (&local, memory) {
        (Ok(local), Ok(memory)) => {
            assert_eq!((&memory.files, &memory.copied), (&local.files, &local.copied));
            for (name, _) in local.files.iter().chain(&local.copied) {
                let [here, there] = [to, &of_memory].map(|folder| fs::read(folder.join(name)).expect("reads"));
                assert!(here == there, "{name} differs");
            }
            fs::remove_dir_all(&of_memory).expect("removes");
        }
        (Err(local), Err(memory)) => assert_eq!(memory.to_string(), local.to_string()),
        (local, memory) => panic!("{local:?}, but of memory {memory:?}"),
    }
    local
}

fn tensors(dtypes: Vec<DType>) -> impl Strategy<Value = Checkpoint> {
    let shape = prop_oneof![
        4 => prop::collection::vec(0_u64..6, 0..4),
        2 => (1_u64..30_000).prop_map(|n| vec![n]),
        1 => (1_u64..400, 1_u64..1500).prop_map(|(rows, columns)| vec![rows, columns]),
    ];
    prop::collection::btree_map("[a-c.]{1,4}", (prop::sample::select(dtypes), shape), 0..14).prop_map(|tensors| {
        let tensors = tensors.into_iter().enumerate().map(|(seed, (name, (dtype, mut shape)))| {
            if dtype.bits() < 8 {
                // Whole bytes of the packed types.
                shape.push(4);
            }
            (name, known(dtype, &shape, seed))
        });
        tensors.collect()
    })
}

fn splits() -> impl Strategy<Value = Split> {
    prop_oneof![
        Just(Split::Usual),
        (1_u64..2_000_000).prop_map(|bytes| Split::Bytes(NonZeroU64::new(bytes).expect("some"))),
        (1_u32..5).prop_map(|files| Split::Files(NonZeroU32::new(files).expect("some"))),
    ]
}

fn expressible() -> Vec<DType> {
    use DType::{BF16, F16, F32, F64, I8, I16, I32, I64, U8};
    vec![BF16, F16, F32, F64, I8, I16, I32, I64, U8]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn resharding_keeps_every_tensor_of_every_dtype(
        checkpoint in tensors(DType::ALL.to_vec()), shards in 1_usize..4, padding in 0_usize..9, split in splits(),
    ) {
        let folder = folder();
        let (from, to) = (folder.path().join("in"), folder.path().join("out"));
        fs::create_dir(&from).expect("makes");
        write(&from, &checkpoint, shards, padding);
        let filled = checkpoint.values().filter(|tensor| !tensor.bytes.is_empty()).count();
        match convert(&from, &to, SAFETENSORS, split) {
            Err(error) => {
                let too_many = matches!(split, Split::Files(files) if files.get() as usize > filled);
                prop_assert!(too_many, "{}", error);
                prop_assert!(!to.exists());
            }
            Ok(converted) => {
                let (found, metadata) = reference(&to);
                prop_assert_eq!(&found, &checkpoint);
                for pairs in &metadata {
                    prop_assert_eq!(pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "), "format=pt trained=well");
                }
                prop_assert_eq!(converted.tensors, checkpoint.len());
                // The command also checks its own rules, including those of the index.
                command::run([Path::new("inspect"), &to]).assert_ok();
            }
        }
    }

    #[test]
    fn a_round_trip_through_serverlessllm_gives_the_same_digests(
        checkpoint in tensors(expressible()), shards in 1_usize..4, padding in 0_usize..9, limit in 8_u64..2_000_000,
    ) {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).expect("makes");
        write(&at("in"), &checkpoint, shards, padding);
        let limit = Split::Bytes(NonZeroU64::new(limit / 8 * 8).expect("some"));
        convert(&at("in"), &at("serverlessllm"), SERVERLESSLLM, limit).expect("converts");
        let found = serverlessllm_reader::read(&at("serverlessllm"));
        let names: Vec<&String> = found.keys().collect();
        prop_assert_eq!(names, checkpoint.keys().collect::<Vec<_>>());
        for (name, tensor) in &found {
            prop_assert_eq!((&tensor.shape, &tensor.bytes), (&checkpoint[name].shape, &checkpoint[name].bytes), "{}", name);
        }
        let back = convert(&at("serverlessllm"), &at("back"), SAFETENSORS, Split::Usual).expect("converts back");
        prop_assert_eq!((back.from, back.tensors), (SERVERLESSLLM, checkpoint.len()));
        prop_assert_eq!(reference(&at("back")).0, checkpoint);
        let digests = digest(&at("in"));
        prop_assert_eq!(&digest(&at("serverlessllm")), &digests);
        prop_assert_eq!(&digest(&at("back")), &digests);
    }
}

/// Writes a checkpoint with a tensor larger than the memory limit, small ones before and after it,
/// and an empty one.
fn sample() -> Checkpoint {
    let tensors = [
        ("a.bias", known(DType::F32, &[3], 1)),
        ("b.weight", known(DType::BF16, &[3000, 1001], 2)),
        ("c.empty", known(DType::F16, &[0, 4], 3)),
        ("d.scalar", known(DType::F64, &[], 4)),
        ("e.weight", known(DType::I8, &[1, 7], 5)),
    ];
    tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()
}

fn written(checkpoint: &Checkpoint) -> tempfile::TempDir {
    let folder = folder();
    fs::create_dir(folder.path().join("in")).expect("makes");
    write(&folder.path().join("in"), checkpoint, 2, 3);
    folder
}

#[test]
fn what_is_selected_is_written_under_its_new_name() {
    let folder = written(&sample());
    let at = |name: &str| folder.path().join(name);
    let arguments =
        ["--select", "*.weight", "--select", "d*", "--rename", "b.*=model.*", "--rename", "*=m.*", "--json"];
    let paths = [at("in"), at("out")];
    let paths = paths.iter().map(|path| path.to_str().expect("text"));
    let run = command::run(["convert"].into_iter().chain(paths).chain(["--to", "safetensors"]).chain(arguments));
    let report = run.json();
    let found = reference(&at("out")).0;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["m.d.scalar", "m.e.weight", "model.weight"]);
    assert_eq!(found["model.weight"], sample()["b.weight"]);
    assert_eq!((&report["from"], &report["to"]), (&"safetensors".into(), &"safetensors".into()));
    assert_eq!((&report["tensors"], &report["files"][0]["name"]), (&3.into(), &"model.safetensors".into()));
    let bytes: usize = found.values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!(report["bytes"], bytes);
    assert_eq!(report["files"][0]["bytes"], fs::metadata(at("out/model.safetensors")).expect("there").len());
}

#[test]
fn tied_tensors_are_one_record_and_two_tensors() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("in")).expect("makes");
    let data: Vec<u8> = (0..24).collect();
    fs::write(at("in/tensor.data_0"), &data).expect("writes");
    let index = r#"{"head": [0, 16, [2, 2], [2, 1], "torch.float32"], "n": [16, 8, [1], [1], "torch.int64"],
                    "embed": [0, 16, [2, 2], [2, 1], "torch.float32"]}"#;
    fs::write(at("in/tensor_index.json"), index).expect("writes");
    let converted = convert(&at("in"), &at("serverlessllm"), SERVERLESSLLM, Split::Usual).expect("converts");
    let found = serverlessllm_reader::read(&at("serverlessllm"));
    assert_eq!(found["head"].offset, found["embed"].offset);
    assert_eq!(
        (converted.tensors, converted.tensor_bytes, serverlessllm_reader::partitions(&at("serverlessllm"))),
        (3, 24, vec![24])
    );
    let files = convert(&at("in"), &at("files"), SAFETENSORS, Split::Usual).expect("converts");
    let (found, metadata) = reference(&at("files"));
    assert_eq!((found.len(), files.tensor_bytes), (3, 40));
    assert_eq!((&found["head"].bytes[..], &found["embed"].bytes[..]), (&data[..16], &data[..16]));
    assert_eq!(metadata[0]["format"], "pt", "torch wrote it");
}

#[test]
fn the_models_other_files_come_along_and_nothing_else_does() {
    let folder = written(&sample());
    let at = |name: &str| folder.path().join(name);
    let copied = ["config.json", "generation_config.json", "tokenizer.json", "vocab.txt"];
    for name in copied {
        fs::write(at("in").join(name), name.repeat(1000)).expect("writes");
        fs::set_permissions(at("in").join(name), PermissionsExt::from_mode(0o400)).expect("allows");
    }
    fs::write(at("in/notes.md"), "mine").expect("writes");
    fs::write(at("secret"), "not the model's").expect("writes");
    fs::create_dir(at("in/tokenizer.model")).expect("makes");
    symlink("../secret", at("in/special_tokens_map.json")).expect("links");
    symlink("tokenizer.json", at("in/added_tokens.json")).expect("links");
    let fifo = at("in/tokenizer_config.json");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("makes");
    let converted = Converter::new(Loader::new(), SERVERLESSLLM).convert(at("in"), at("out")).expect("converts");
    let names: Vec<&str> = converted.copied.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["added_tokens.json", "config.json", "generation_config.json", "tokenizer.json", "vocab.txt"]);
    fs::write(at("fresh"), "").expect("writes");
    let fresh = fs::metadata(at("fresh")).expect("there").mode();
    for name in copied {
        assert_eq!(fs::read_to_string(at("out").join(name)).expect("reads"), name.repeat(1000));
        assert_eq!(fs::metadata(at("out").join(name)).expect("there").mode(), fresh, "{name}");
    }
    assert_eq!(fs::metadata(at("out/tensor.data_0")).expect("there").mode(), fresh);
    assert!(fs::symlink_metadata(at("out/added_tokens.json")).expect("there").is_file(), "what the link means");
    assert_eq!(fs::read_dir(at("out")).expect("lists").count(), 5 + 2);
    for words in [
        &["special_tokens_map.json", "link out of its folder", "copy it yourself"][..],
        &["tokenizer_config.json", "found a FIFO", "convert again"],
        &["\"trained\""],
    ] {
        let mut texts = converted.warnings.iter().map(ToString::to_string);
        let warned = texts.any(|text| words.iter().all(|word| text.contains(word)));
        assert!(warned, "{words:?} is not in {:?}", converted.warnings);
    }
}

#[test]
fn the_models_other_files_come_from_the_storage_of_the_checkpoint() {
    let folder = written(&sample());
    let at = |name: &str| folder.path().join(name);
    fs::write(at("in/config.json"), "{}").expect("writes");
    fs::write(at("in/tokenizer.json"), vec![b'x'; 3 * MB + 1]).expect("writes");
    fs::write(at("in/notes.md"), "mine").expect("writes");
    let place = Place::memory(&at("in"));
    let throttle = Throttle { latency: 0, bytes_per_second: 0, class: LatencyClass::Local };
    let slow = Throttled::new(LocalStorage::new(), throttle, SystemTimer::new());
    let loader = place.loader.storage("slow", slow);
    let slow = at("in");
    let slow = format!("slow://{}", slow.to_str().expect("Unicode"));
    for (from, to) in [(place.path, at("of memory")), (slow.into(), at("of a slow one"))] {
        let converted = Converter::new(loader.clone(), SAFETENSORS).convert(from, &to).expect("converts");
        assert_eq!(converted.copied, [("config.json".to_owned(), 2), ("tokenizer.json".to_owned(), 3 * MB as u64 + 1)]);
        assert_eq!(fs::read(to.join("tokenizer.json")).expect("reads"), vec![b'x'; 3 * MB + 1]);
        assert_eq!(reference(&to).0, sample());
    }
    // It is the source too by another scheme.
    let slow = format!("slow://{}", at("of memory").to_str().expect("Unicode"));
    let error = Converter::new(loader, SAFETENSORS).force(true).convert(slow, at("of memory")).expect_err("the source");
    assert!(matches!(error, Error::Output(OutputError::IsSource { .. })), "{error}");
}

#[test]
fn very_many_files_are_written_with_few_open() {
    let tensors = (0..300).map(|i| (format!("t{i:03}"), known(DType::U8, &[5], i)));
    let checkpoint: Checkpoint = tensors.collect();
    let folder = written(&checkpoint);
    let out = folder.path().join("out");
    let each = Split::Bytes(NonZeroU64::MIN);
    let converted = convert(&folder.path().join("in"), &out, SAFETENSORS, each).expect("converts");
    assert_eq!((converted.files.len(), reference(&out).0), (301, checkpoint));
}

#[test]
fn memory_stays_within_the_limit() {
    let folder = folder();
    let path = folder.path().join("in.safetensors");
    let (rows, columns) = (40, 4 * MB);
    let bytes = rows * columns;
    let json = format!(r#"{{"t":{{"dtype":"U8","shape":[{rows},{columns}],"data_offsets":[0,{bytes}]}}}}"#);
    let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 255) as u8).collect();
    fs::write(&path, raw(&json, &data)).expect("writes");
    for (target, out) in [("serverlessllm", "serverlessllm"), ("safetensors", "files")] {
        let to = folder.path().join(out);
        let [from, to] = [&path, &to].map(|path| path.to_str().expect("text"));
        let arguments = ["convert", from, to, "--to", target, "--memory-limit", "32MiB", "--json"];
        let report = command::run(arguments).json();
        let peak = report["peak_rss_bytes"].as_u64().expect("a number");
        assert!(peak < 64 * MB as u64, "{peak}");
        assert_eq!(report["memory_limit"], 32 * MB as u64);
    }
    assert!(serverlessllm_reader::read(&folder.path().join("serverlessllm"))["t"].bytes == data);
    assert!(reference(&folder.path().join("files")).0["t"].bytes == data);
}

#[test]
fn progress_ends_with_every_byte_written() {
    let folder = written(&sample());
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    Converter::new(Loader::new(), SAFETENSORS)
        .on_progress(move |written| *seen.lock().expect("no panic") = Some(written))
        .convert(folder.path().join("in"), folder.path().join("out"))
        .expect("converts");
    let last = last.lock().expect("no panic").take().expect("called");
    let bytes: usize = sample().values().map(|tensor| tensor.bytes.len()).sum();
    assert_eq!((last.bytes_done, last.bytes_total), (bytes as u64, bytes as u64));
}

#[test]
fn what_cannot_be_expressed_is_refused_before_anything_is_written() {
    let mut checkpoint = sample();
    checkpoint.insert("f.scale".to_owned(), known(DType::F8_E8M0, &[3], 1));
    checkpoint.insert("f.weight".to_owned(), known(DType::F4, &[3, 2], 1));
    let folder = written(&checkpoint);
    let out = folder.path().join("out");
    let [from, to] = [&folder.path().join("in"), &out].map(|path| path.to_str().expect("text").to_owned());
    let run = command::run(["convert", &from, &to, "--to", "serverlessllm"]);
    run.assert_error(2, &["2 tensors", "\"f.scale\" (F8_E8M0)", "\"f.weight\" (F4)", "--select"]);
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    for (rename, words) in [
        ("a.bias=d.scalar", ["\"a.bias\"", "\"d.scalar\""]),
        ("x.*=*", ["x.*=*", "matches no selected tensor"]),
        ("a.bias=__metadata__", ["\"a.bias\"", "metadata"]),
    ] {
        command::run(["convert", &from, &to, "--to", "safetensors", "--rename", rename]).assert_error(2, &words);
    }
    command::run(["convert", &from, &to, "--to", "safetensors", "--partitions", "7"])
        .assert_error(2, &["7 files", "6"]);
    assert!(
        Converter::new(Loader::new().selection(Selection::slice("b.weight", 0, 0..2)), SAFETENSORS)
            .convert(&from, &to)
            .is_err_and(|error| error.to_string().contains("slice"))
    );
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    assert!(Rename::new("a*", "b").is_err());
}

/// Writes a GGUF file with a text and an array as metadata, and tensors of these types (ggml's
/// numbers) and dimensions, fastest first.
fn gguf(tensors: &[(&str, u32, &[u64], Vec<u8>)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = [b"GGUF", &3_u32.to_le_bytes()[..]].concat();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(2_u64.to_le_bytes());
    file.extend([&text("general.architecture")[..], &8_u32.to_le_bytes(), &text("llama")].concat());
    let tokens = [&9_u32.to_le_bytes()[..], &8_u32.to_le_bytes(), &1_u64.to_le_bytes(), &text("a")].concat();
    file.extend([&text("tokenizer.ggml.tokens")[..], &tokens].concat());
    let mut data: Vec<u8> = Vec::new();
    for (name, ggml, dims, bytes) in tensors {
        file.extend(text(name));
        file.extend((dims.len() as u32).to_le_bytes());
        file.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        file.extend(ggml.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0xee);
    }
    file.resize(file.len().next_multiple_of(32), 0xee);
    [file, data].concat()
}

#[test]
fn plain_tensors_of_gguf_are_converted_and_blocks_are_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let bytes = |n: usize, seed: usize| -> Vec<u8> { (0..n).map(|i| (i * 7 + seed) as u8).collect() };
    let plain = [
        ("norm", 0, &[3_u64][..], bytes(12, 1)),
        ("half", 1, &[4, 2], bytes(16, 2)),
        ("brain", 30, &[5, 3], bytes(30, 3)),
        ("count", 27, &[2], bytes(16, 4)),
    ];
    fs::write(at("model.gguf"), gguf(&plain)).expect("writes");
    let converted = convert(&at("model.gguf"), &at("files"), SAFETENSORS, Split::Usual).expect("converts");
    assert_eq!((converted.from, converted.tensors), (GGUF, 4));
    let (found, metadata) = reference(&at("files"));
    for (name, dtype, shape) in
        [("norm", "F32", &[3][..]), ("half", "F16", &[2, 4]), ("brain", "BF16", &[3, 5]), ("count", "I64", &[2])]
    {
        let (_, _, _, bytes) = plain.iter().find(|(other, ..)| *other == name).expect("written");
        let expected = Known { dtype: dtype.to_owned(), shape: shape.to_vec(), bytes: bytes.clone() };
        assert_eq!(found[name], expected, "{name}");
    }
    assert_eq!(metadata[0]["general.architecture"], "llama");
    let [Warning::Core(CoreWarning::MetadataLost { keys, .. })] = &converted.warnings[..] else {
        panic!("{:?}", converted.warnings)
    };
    assert_eq!(keys, &["tokenizer.ggml.tokens"]);
    convert(&at("model.gguf"), &at("serverlessllm"), SERVERLESSLLM, Split::Usual).expect("converts");
    assert_eq!(serverlessllm_reader::read(&at("serverlessllm"))["brain"].dtype, "torch.bfloat16");
    let digests = digest(&at("model.gguf"));
    assert_eq!((digest(&at("files")), digest(&at("serverlessllm"))), (digests.clone(), digests));

    let quantised = [("norm", 0, &[3_u64][..], bytes(12, 1)), ("blocks", 2, &[32], bytes(18, 2))];
    fs::write(at("quantised.gguf"), gguf(&quantised)).expect("writes");
    for target in [SAFETENSORS, SERVERLESSLLM] {
        let error = convert(&at("quantised.gguf"), &at("none"), target, Split::Usual).expect_err("blocks");
        assert!(error.to_string().contains("1 tensor: \"blocks\" (GGML_Q4_0)"), "{error}");
    }
    let only = Loader::new().selection(Selection::names(["norm"]));
    Converter::new(only, SAFETENSORS).convert(at("quantised.gguf"), at("norm")).expect("a plain one");
    assert_eq!(reference(&at("norm")).0["norm"], found["norm"]);
}
