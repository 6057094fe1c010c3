//! ServerlessLLM checkpoints: every backend loads what an independent script writes, byte for byte.
//! Every rule, broken once, is refused by core and by the command. Tied tensors are loaded once.

use floodtide::backend::URING;
use floodtide::format::SERVERLESSLLM;
use floodtide::{Loader, Order, StreamOptions, Tensor};
use floodtide_core::format::serverlessllm::{TensorIndex, count_partitions, partition_name};
use floodtide_core::{Selection, ShardRules};
use floodtide_tests::by_backend::{assert_right, load, loader, stream, stream_options};
use floodtide_tests::checkpoint::folder;
use floodtide_tests::command;
use floodtide_tests::layout::drop_cache;
use floodtide_tests::malformed::{self, assert_refused_by_command, assert_refused_by_core};
use floodtide_tests::over_storages::places;
use floodtide_tests::serverlessllm_writer::{ServerlessLlmData, checkpoints, write};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

fn python() -> OsString {
    std::env::var_os("FLOODTIDE_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Runs the script that writes a ServerlessLLM checkpoint. Returns dtype, shape, file, offset and
/// digest by name, or prints a message and returns `None` without Python.
fn golden(folder: &Path, dialect: &str, limit: u64) -> Option<BTreeMap<String, Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/serverlessllm.py");
    let mut python = Command::new(python());
    let status = python.arg(script).arg(folder).arg(dialect).arg(limit.to_string()).status();
    if let Err(error) = status {
        println!("skipped: python cannot be started: {error}");
        return None;
    }
    assert!(status.expect("starts").success(), "the script fails");
    let expected = fs::read(folder.join("expected.json")).expect("reads");
    Some(serde_json::from_slice(&expected).expect("an object"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assert_golden(tensor: &Tensor, expected: &BTreeMap<String, Value>, what: &str) {
    let known = &expected[tensor.name()];
    assert_eq!(known["dtype"], tensor.dtype().name(), "{what}: {}", tensor.name());
    assert_eq!(known["shape"], serde_json::json!(tensor.shape()), "{what}: {}", tensor.name());
    assert_eq!(known["sha256"], sha256(tensor.as_bytes()), "{what}: {}", tensor.name());
}

/// Partitions by a limit that most records pass together and one alone, by one that every record
/// but the first passes, and one partition.
const LAYOUTS: [(&str, u64, usize); 5] = [
    ("original", 2_000_000, 4),
    ("original", 1, 15),
    ("original", 10 << 30, 1),
    ("tensora", 2_000_000, 4),
    ("tensora", 10 << 30, 1),
];

#[test]
fn what_an_independent_script_lays_out_comes_back_by_every_way() {
    for (dialect, limit, partitions) in LAYOUTS {
        let folder = folder();
        let Some(expected) = golden(folder.path(), dialect, limit) else { return };
        for place in places(folder.path()) {
            let inspected = place.loader.clone().inspect(&place.path).expect("inspects");
            assert_eq!((inspected.catalog.format(), inspected.catalog.len()), (SERVERLESSLLM, expected.len()));
            assert_eq!(inspected.catalog.files().len(), partitions, "{dialect} {limit}");
            let opened = place.loader.clone().map(place.path.join("tensor_index.json")).expect("opens");
            opened.iter().for_each(|tensor| assert_golden(&tensor, &expected, &format!("{dialect} {limit}")));
            // Hashed once, the others are compared with that.
            let right = opened.iter().map(|tensor| (tensor.name().to_owned(), tensor.as_bytes().to_vec())).collect();
            for backend in place.loading() {
                drop_cache(folder.path());
                assert_right(
                    load(&place.loader_by(backend), &place.path),
                    &right,
                    &format!("{dialect} {limit} {backend:?}"),
                );
            }
            for backend in place.copying() {
                drop_cache(folder.path());
                let bytes = stream(
                    &place.loader_by(backend).stream_options(StreamOptions::new().memory_limit(16 << 20)),
                    &place.path,
                );
                assert_right(bytes, &right, &format!("stream {dialect} {limit} {backend:?}"));
            }
        }
    }
}

#[test]
fn the_command_finds_what_the_script_laid_out() {
    for (dialect, limit, _) in LAYOUTS {
        let folder = folder();
        let Some(expected) = golden(folder.path(), dialect, limit) else { return };
        let run = |verb: &str, more: &[&str]| {
            let fixed = [verb.as_ref(), folder.path().as_os_str(), "--json".as_ref()];
            command::run(fixed.into_iter().chain(more.iter().map(|argument| argument.as_ref()))).json()
        };
        let inspected = run("inspect", &[]);
        assert_eq!(inspected["format"], "serverlessllm");
        for tensor in inspected["tensors"].as_array().expect("an array") {
            let known = &expected[tensor["name"].as_str().expect("a string")];
            assert_eq!((&tensor["dtype"], &tensor["shape"]), (&known["dtype"], &known["shape"]));
            let path = folder.path().join(known["file"].as_str().expect("a string"));
            assert_eq!(tensor["file"], path.to_str().expect("UTF-8"));
            // What is empty may be at the end of one partition or the beginning of the next.
            if tensor["bytes"] != 0 {
                assert_eq!(tensor["offset"], known["offset"], "{tensor}");
            }
        }
        for backend in ["auto", "uring", "pread", "mmap", "tokio"] {
            let digests = run("digest", &["--backend", backend]);
            let digests = digests["tensors"].as_array().expect("an array");
            assert_eq!(digests.len(), expected.len());
            for digest in digests {
                assert_eq!(
                    digest["sha256"],
                    expected[digest["name"].as_str().expect("a string")]["sha256"],
                    "{backend}"
                );
            }
        }
        let distinct =
            inspected["tensors"].as_array().expect("an array").iter().filter(|tensor| tensor.get("tied_to").is_none());
        let distinct: u64 = distinct.map(|tensor| tensor["bytes"].as_u64().expect("a number")).sum();
        for (verb, more) in [("plan", &[][..]), ("load", &[]), ("load", &["--stream"])] {
            let json = run(verb, more);
            let bytes = json.get("selected_bytes").or(json.get("bytes"));
            assert_eq!(
                (bytes, &json["format"]),
                (Some(&distinct.into()), &"serverlessllm".into()),
                "{verb} {more:?}: {json}"
            );
        }
        // One tied tensor alone loads like any other.
        let alone = run("digest", &["--select", "lm_head.flat"]);
        assert_eq!(alone["tensors"].as_array().map(Vec::len), Some(1));
        assert_eq!(alone["tensors"][0]["sha256"], expected["lm_head.flat"]["sha256"]);
    }
}

#[test]
fn a_serverlessllm_checkpoint_is_benched_as_shards_are() {
    let folder = folder();
    let expected = write(
        folder.path(),
        &ServerlessLlmData { tensors: vec![(2, 8, 30_000, 1), (0, 5, 1000, 0)], limit: 500_000, tensora: false },
    );
    let run =
        command::run(["bench".as_ref(), folder.path().as_os_str(), "--json".as_ref(), "--runs".as_ref(), "1".as_ref()]);
    let json = run.json();
    assert_eq!((&json["agree"], &json["tensors"]), (&true.into(), &expected.len().into()), "{json}");
}

#[test]
fn large_partitions_are_read_past_the_page_cache() {
    let folder = folder();
    let checkpoint = ServerlessLlmData {
        tensors: vec![(2, 9, 40_000, 0), (2, 9, 40_000, 2), (2, 9, 40_000, 0)],
        limit: 3_000_000,
        tensora: false,
    };
    let expected = write(folder.path(), &checkpoint);
    drop_cache(folder.path());
    let planned = Loader::new().backend(URING).plan(folder.path());
    let Ok(planned) = planned else { return println!("skipped: no io_uring here") };
    if planned.signals.files.iter().any(|file| !file.direct) {
        return println!("skipped: the file system takes no direct reads");
    }
    let direct = |chunk: &&floodtide_core::Chunk| chunk.method == floodtide_core::Method::Direct;
    let direct: u64 = planned.plan.chunks().iter().filter(direct).map(|chunk| chunk.payload_len as u64).sum();
    assert!(direct >= 3 * 1_440_000 * 9 / 10 && planned.plan.read_bytes() < 3 * 1_440_000 + (1 << 20), "{direct}");
    assert_right(load(&loader(None), folder.path()), &expected, "load");
}

#[test]
fn tied_tensors_share_their_memory() {
    let folder = folder();
    let checkpoint = ServerlessLlmData {
        tensors: vec![(2, 8, 30_000, 2), (0, 5, 1001, 0), (3, 4, 30, 1)],
        limit: 10 << 30,
        tensora: false,
    };
    let expected = write(folder.path(), &checkpoint);
    for place in places(folder.path()) {
        let address = |tensor: &Tensor| tensor.as_bytes().as_ptr() as usize;
        for backend in place.loading() {
            let tensors = place.loader_by(backend).load(&place.path).expect("loads");
            let at = |name: &str| address(&tensors.get(name).expect("is there"));
            assert!(at("t0") == at("t0.1") && at("t0") == at("t0.2") && at("t2") == at("t2.1"), "{backend:?}");
            assert_eq!(tensors.report().bytes, 8 * 30_000 * 4 + 5 * 1001 + 4 * 30 * 8, "each byte counts once");
            assert_eq!(tensors.report().tensors, expected.len());
        }
        for backend in place.copying() {
            for order in [Order::Completion, Order::File] {
                let stream = place
                    .loader_by(backend)
                    .stream_options(stream_options().order(order))
                    .stream(&place.path)
                    .expect("opens");
                let tensors: Vec<Tensor> = stream.map(|tensor| tensor.expect("streams")).collect();
                let at = |name: &str| address(tensors.iter().find(|tensor| tensor.name() == name).expect("is there"));
                assert!(at("t0") == at("t0.1") && at("t2") == at("t2.1"), "{backend:?}");
                if order == Order::File {
                    let names: Vec<_> = tensors.iter().map(Tensor::name).collect();
                    assert_eq!(names, ["t0", "t0.1", "t0.2", "t1", "t2", "t2.1"]);
                }
            }
        }
        // Each rank has its part of them once.
        let shard = place
            .loader
            .clone()
            .selection(Selection::shard(1, 2, ShardRules::rows()))
            .load(&place.path)
            .expect("loads");
        let (first, tied) = (shard.get("t0").expect("is there"), shard.get("t0.1").expect("is there"));
        assert_eq!((address(&first), first.shape()), (address(&tied), &[4, 30_000][..]));
        assert!(first.as_bytes() == &expected["t0"][4 * 30_000 * 4..]);
    }
}

#[test]
fn a_stream_in_parts_brings_both_names_in_order() {
    let folder = folder();
    let checkpoint = ServerlessLlmData {
        tensors: vec![(0, 5, 1001, 0), (2, 11, 40_000, 1), (0, 5, 1001, 0)],
        limit: 10 << 30,
        tensora: true,
    };
    let expected = write(folder.path(), &checkpoint);
    for place in places(folder.path()) {
        for order in [Order::Completion, Order::File] {
            let (mut all, mut names) = (BTreeMap::<String, Vec<u8>>::new(), Vec::new());
            let stream = place
                .loader
                .clone()
                .stream_options(StreamOptions::new().memory_limit(1 << 20).order(order))
                .stream(&place.path)
                .expect("opens");
            let report = stream.for_each_part(|tensor, offset, bytes| {
                let whole = all.entry(tensor.name.to_owned()).or_default();
                whole.resize(whole.len().max(offset as usize + bytes.len()), 0);
                whole[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                names.push(tensor.name.to_owned());
            });
            report.expect("streams");
            assert!(all == expected);
            names.dedup();
            if order == Order::File {
                assert_eq!(names, ["t0", "t1", "t1.1", "t2"], "the first is over before the second begins");
            }
        }
    }
}

#[test]
fn an_index_is_one_under_any_name_and_a_file_of_safetensors_too() {
    let folder = folder();
    let expected =
        write(folder.path(), &ServerlessLlmData { tensors: vec![(2, 8, 300, 1)], limit: 10 << 30, tensora: false });
    for name in ["model.json", "no extension at all"] {
        let path = folder.path().join(name);
        fs::rename(folder.path().join("tensor_index.json"), &path).expect("renames");
        assert_right(load(&Loader::new(), &path), &expected, name);
        fs::rename(&path, folder.path().join("tensor_index.json")).expect("renames");
    }
    // No file name in the folder matches a format, but the checkpoint is found.
    let blobs = floodtide_tests::checkpoint::folder();
    floodtide_tests::checkpoint::small(&blobs.path().join("3f9a"));
    fs::write(blobs.path().join("README"), "words").expect("writes");
    fs::write(blobs.path().join("0empty"), "").expect("writes");
    let run = command::run(["inspect".as_ref(), blobs.path().as_os_str(), "--json".as_ref()]).json();
    assert_eq!((&run["format"], run["tensors"].as_array().map(Vec::len)), (&"safetensors".into(), Some(5)));
}

/// Returns core's result for the ServerlessLLM checkpoint in a folder.
fn by_core(folder: &Path) -> Result<(), String> {
    let names: Vec<String> = fs::read_dir(folder)
        .expect("lists")
        .filter_map(|entry| entry.expect("lists").file_name().into_string().ok())
        .collect();
    let count = count_partitions(names.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    let bytes = |number| fs::metadata(folder.join(partition_name(number))).expect("is there").len();
    let json = fs::read(folder.join("tensor_index.json")).expect("reads");
    let lengths: Vec<u64> = (0..count).map(bytes).collect();
    TensorIndex::parse(&json, &lengths).map(drop).map_err(|error| error.to_string())
}

#[test]
fn core_refuses_each_malformed_index_by_its_rule() {
    assert_refused_by_core(malformed::serverlessllm::indexes(), by_core);
}

#[test]
fn the_command_refuses_each_malformed_checkpoint() {
    assert_refused_by_command(
        1,
        malformed::serverlessllm::indexes(),
        &["inspect", "load", "plan", "digest"],
        &["tensor_index.json"],
    );
    assert_refused_by_command(1, malformed::serverlessllm::folders(), &["inspect", "load"], &[]);
    assert_refused_by_command(2, malformed::serverlessllm::ambiguous(), &["inspect", "load"], &[]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_checkpoint_comes_back_by_every_backend(checkpoint in checkpoints(), cold in any::<bool>()) {
        let folder = folder();
        let expected = write(folder.path(), &checkpoint);
for place in places(folder.path()) {
        for backend in place.loading() {
            if cold {
                drop_cache(folder.path());
            }
            assert_right(load(&place.loader_by(backend).stream_options(stream_options()), &place.path), &expected, &format!("load by {backend:?}"));
        }
        for backend in place.copying() {
            let bytes = stream(&place.loader_by(backend).stream_options(stream_options()), &place.path);
            assert_right(bytes, &expected, &format!("stream by {backend:?}"));
        }
}
    }
}
