//! Verified loads, with every backend, whole and streamed, mapped and of one small file: each
//! difference is found and named, and no tensor that differs is returned whole.

use floodtide::backend::{MMAP, PREAD, URING};
use floodtide::{Error, Loader, Manifest, Order};
use floodtide_core::checksum::Checksum;
use floodtide_core::middleware::Injection;
use floodtide_core::{Error as CoreError, Selection};
use floodtide_sim::Draw;
use floodtide_sim::faults::{FaultState, Scripted, SimFaults, Swarm};
use floodtide_tests::by_backend::{MB, TENSORS, checkpoint, load, stream, stream_options, tensor_range};
use floodtide_tests::checkpoint::{folder, small, sparse};
use floodtide_tests::command;
use floodtide_tests::faulty_fs::VICTIM;
use floodtide_tests::layout::drop_cache;
use floodtide_tests::over_storages::{Place, places};
use floodtide_tests::serverlessllm_writer;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Flips a bit of a byte.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 2], at).expect("writes");
    // Dirty pages cannot be dropped from the page cache.
    file.sync_all().expect("syncs");
}

/// Asserts that the error is the mismatch of this tensor of the victim.
fn assert_mismatch(error: &Error, folder: &Path, tensor: usize, what: &str) {
    let Error::Core(CoreError::Mismatch { file, tensor: name, start, end, expected, found }) = error else {
        panic!("{what}: {error}")
    };
    assert_eq!(*name, format!("t{tensor}"), "{what}");
    assert!(file.ends_with(VICTIM) && expected != found, "{what}: {error}");
    assert_eq!(*start..*end, tensor_range(folder, tensor), "{what}");
}

/// A loader of these tests that reads there.
fn loader_in(place: &Place, backend: Option<floodtide::Backend>) -> Loader {
    place.loader_by(backend).stream_options(stream_options())
}

/// Without a ring where there is none.
fn is_refused(error: &Error) -> bool {
    let refused = matches!(error, Error::Core(CoreError::BackendUnavailable { .. }));
    if refused {
        println!("skipped: {error}");
    }
    refused
}

#[test]
fn what_is_as_it_was_loads_by_every_backend_warm_and_cold() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    for place in places(folder.path()) {
        let manifest = place.loader.clone().manifest(&place.path).expect("hashes");
        for cold in [true, false] {
            for backend in place.loading() {
                if cold {
                    drop_cache(folder.path());
                }
                let loader = loader_in(&place, backend).verify_with(manifest.clone());
                match load(&loader, &place.path) {
                    Ok(bytes) => assert!(bytes == expected, "{backend:?}"),
                    Err(error) => assert!(is_refused(&error), "{backend:?}: {error}"),
                }
            }
            for backend in place.copying() {
                if cold {
                    drop_cache(folder.path());
                }
                match stream(&loader_in(&place, backend).verify_with(manifest.clone()), &place.path) {
                    Ok(bytes) => assert!(bytes == expected, "{backend:?}"),
                    Err(error) => assert!(is_refused(&error), "{backend:?}: {error}"),
                }
            }
        }
        let tensors = place.loader.clone().verify_with(manifest.clone()).load(&place.path).expect("loads");
        assert!(tensors.report().verified);
        assert!(!place.loader.clone().load(&place.path).expect("loads").report().verified);
        let mapped = place.loader.clone().verify_with(manifest).map(&place.path).expect("opens");
        assert!(mapped.report().verified && mapped.get("t3").expect("is there").as_bytes() == expected["t3"]);
    }
}

#[test]
fn a_byte_that_is_another_fails_the_load_by_every_backend() {
    let folder = folder();
    checkpoint(folder.path());
    for place in places(folder.path()) {
        let manifest = place.loader.clone().manifest(&place.path).expect("hashes");
        // The first byte of all, one in the middle of a read, one at a read's end, the last.
        for (tensor, at) in [(0, 0), (3, 777_777), (5, TENSORS[5] - 1), (7, TENSORS[7] - 1)] {
            let victim = tensor_range(folder.path(), tensor).start + at as u64;
            flip(&folder.path().join(VICTIM), victim);
            place.update(folder.path());
            for cold in [true, false] {
                for backend in place.loading() {
                    if cold {
                        drop_cache(folder.path());
                    }
                    let error = load(&loader_in(&place, backend).verify_with(manifest.clone()), &place.path)
                        .expect_err("differs");
                    if !is_refused(&error) {
                        assert_mismatch(&error, folder.path(), tensor, &format!("load by {backend:?}"));
                    }
                }
                for backend in place.copying() {
                    if cold {
                        drop_cache(folder.path());
                    }
                    let error = stream(&loader_in(&place, backend).verify_with(manifest.clone()), &place.path)
                        .expect_err("differs");
                    if !is_refused(&error) {
                        assert_mismatch(&error, folder.path(), tensor, &format!("stream by {backend:?}"));
                    }
                }
            }
            let error = place.loader.clone().verify_with(manifest.clone()).map(&place.path).expect_err("differs");
            assert_mismatch(&error, folder.path(), tensor, "mapped");
            flip(&folder.path().join(VICTIM), victim);
            place.update(folder.path());
        }
        assert!(place.loader.clone().verify_with(manifest).load(&place.path).is_ok(), "all is as it was");
    }
}

#[test]
fn no_tensor_that_differs_is_handed_out_whole() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    for place in places(folder.path()) {
        let manifest = place.loader.clone().manifest(&place.path).expect("hashes");
        flip(&folder.path().join(VICTIM), tensor_range(folder.path(), 4).end - 1);
        place.update(folder.path());
        for order in [Order::Completion, Order::File, Order::Selection] {
            for buffer in [64 << 10, 2 * MB as u64, 4 * MB as u64] {
                let loader = loader_in(&place, None)
                    .stream_options(stream_options().order(order).buffer_bytes(buffer))
                    .verify_with(manifest.clone());
                let mut stream = loader.stream(&place.path).expect("opens");
                let mut failed = false;
                for tensor in stream.by_ref() {
                    match tensor {
                        Ok(tensor) => assert!(tensor.as_bytes() == expected[tensor.name()], "{}", tensor.name()),
                        Err(error) => {
                            assert_mismatch(&error, folder.path(), 4, &format!("{order:?}, {buffer}"));
                            failed = true;
                        }
                    }
                }
                assert!(failed && stream.report().is_none());
            }
        }
        // In parts, what comes before the last one cannot be known; the end tells.
        let parts = loader_in(&place, None)
            .stream_options(stream_options().buffer_bytes(64 << 10))
            .verify_with(manifest)
            .stream(&place.path)
            .expect("opens");
        let error = parts.for_each_part(|_, _, _| ()).expect_err("differs");
        assert_mismatch(&error, folder.path(), 4, "parts");
        flip(&folder.path().join(VICTIM), tensor_range(folder.path(), 4).end - 1);
    }
}

#[test]
fn a_small_file_is_verified_where_it_lies() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let manifest = Loader::new().manifest(&path).expect("hashes");
    let tensors = Loader::new().verify_with(manifest.clone()).load(&path).expect("loads");
    assert!(tensors.report().verified && tensors.len() == 5);
    let scale = tensors.catalog().find("scale").expect("is there").range;
    drop(tensors);
    flip(&path, scale.end() - 1);
    for loader in [Loader::new(), Loader::new().backend(PREAD), Loader::new().backend(MMAP)] {
        let error = loader.verify_with(manifest.clone()).load(&path).expect_err("differs");
        let Error::Core(CoreError::Mismatch { tensor, start, end, .. }) = &error else { panic!("{error}") };
        assert_eq!((tensor.as_str(), *start, *end), ("scale", scale.start(), scale.end()));
    }
}

#[test]
fn reads_that_bring_wrong_bytes_are_found_by_real_workers() {
    let folder = folder();
    checkpoint(folder.path());
    let manifest = Loader::new().manifest(folder.path()).expect("hashes");
    for backend in [URING, PREAD] {
        for nth in [1, 3] {
            drop_cache(folder.path());
            let script = vec![Scripted { file: 0, nth, injection: Injection::Corrupt(100_000) }];
            let faults = move || SimFaults::new(FaultState::new(Swarm::none(), script.clone()), Draw::new(1));
            let threads = std::num::NonZeroUsize::MIN;
            let place = Place::local(folder.path()).with_faults(faults);
            let loader = place.loader_by(Some(backend)).threads(threads).verify_with(manifest.clone());
            let error = loader.load(folder.path()).expect_err("is wrong");
            if !is_refused(&error) {
                assert!(matches!(error, Error::Core(CoreError::Mismatch { .. })), "{backend}: {error}");
            }
        }
    }
}

#[test]
fn what_cannot_be_verified_is_refused_before_the_first_read() {
    let folder = folder();
    // Reading it would take minutes.
    let path = sparse(folder.path(), 64 << 30);
    let zeros = Manifest::parse(
        format!(
            r#"{{"schema":"floodtide-manifest","version":1,"files":[],"tensors":[{{"name":"t","dtype":"U8","shape":[{0}],"bytes":{0},"blake3":"{1}"}}]}}"#,
            64_u64 << 30,
            Checksum::of(b"")
        )
        .as_bytes(),
    )
    .expect("valid");
    let nothing = Manifest::new(vec![], vec![]).expect("valid");
    let started = Instant::now();
    let error = |loader: Loader| {
        let loaded = loader.load(&path).expect_err("refused");
        let streamed = loader.stream(&path).expect("opens").for_each_part(|_, _, _| ()).expect_err("refused");
        assert_eq!(loaded.to_string(), streamed.to_string());
        let Error::Core(error) = loaded else { panic!("{loaded}") };
        error
    };
    let slice = || Loader::new().selection(Selection::slice("t", 0, 0..1000));
    assert!(
        matches!(error(slice().verify_with(zeros.clone())), CoreError::SliceUnverifiable { tensor } if tensor == "t")
    );
    let shard = Selection::shard(0, 1 << 20, floodtide::ShardRules::rows());
    let sharded = Loader::new().selection(shard).verify_with(zeros);
    assert!(matches!(error(sharded), CoreError::SliceUnverifiable { .. }));
    let some = slice().verify_with(nothing);
    let missing = error(some.selection(Selection::slice("t", 0, 0..1)));
    assert!(matches!(missing, CoreError::SliceUnverifiable { .. } | CoreError::NotInManifest { .. }));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_manifest_of_something_else_is_refused() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    for place in places(&path) {
        let manifest = place.loader.clone().manifest(&place.path).expect("hashes");
        let without = |name: &str| {
            let tensors = manifest.tensors().iter().filter(|tensor| tensor.name != name).cloned().collect();
            Manifest::new(tensors, vec![]).expect("valid")
        };
        let missing = place.loader.clone().verify_with(without("scale")).load(&place.path).expect_err("is not there");
        assert!(matches!(&missing, Error::Core(CoreError::NotInManifest { tensor }) if tensor == "scale"), "{missing}");
        // What is not loaded need not be there.
        let others = place.loader.clone().selection(Selection::names(["layer.bias"])).verify_with(without("scale"));
        assert_eq!(others.load(&place.path).expect("loads").len(), 1);
        let mut tensors = manifest.tensors().to_vec();
        tensors
            .iter_mut()
            .filter(|tensor| tensor.name == "scale")
            .for_each(|tensor| tensor.dtype = floodtide::DType::I64.into());
        let other = place
            .loader
            .clone()
            .verify_with(Manifest::new(tensors, vec![]).expect("valid"))
            .load(&place.path)
            .expect_err("differs");
        assert!(other.to_string().contains("\"scale\" has dtype F64") && other.to_string().contains("I64"), "{other}");
    }
}

#[test]
fn tied_tensors_are_verified_each_by_its_name() {
    let folder = folder();
    // Two names of one record, as PyTorch's tied weights are stored.
    let bytes: Vec<u8> = (0..3 * MB).map(|at| (at / 3) as u8).collect();
    let shape = [3 * MB as u64];
    serverlessllm_writer::write_tensors(
        folder.path(),
        &[("head", "uint8", &shape, &bytes), ("other", "uint8", &[5], &[9; 5])],
    );
    let index = folder.path().join("tensor_index.json");
    let mut json: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(&index).expect("reads")).expect("JSON");
    json.insert("embed".to_owned(), json["head"].clone());
    fs::write(&index, serde_json::to_string(&json).expect("JSON")).expect("writes");
    let manifest = Loader::new().manifest(folder.path()).expect("hashes");
    assert_eq!(manifest.tensor("embed").map(|t| t.blake3), manifest.tensor("head").map(|t| t.blake3));
    let tries = [Loader::new(), Loader::new().backend(MMAP), Loader::new().backend(PREAD)];
    for loader in tries.clone() {
        assert_eq!(loader.verify_with(manifest.clone()).load(folder.path()).expect("loads").len(), 3);
    }
    flip(&folder.path().join("tensor.data_0"), 2_000_000);
    for loader in tries {
        let error = loader.verify_with(manifest.clone()).load(folder.path()).expect_err("differs");
        let Error::Core(CoreError::Mismatch { tensor, .. }) = &error else { panic!("{error}") };
        assert!(["head", "embed"].contains(&tensor.as_str()), "{error}");
    }
}

#[test]
fn the_command_verifies_while_it_loads() {
    let folder = folder();
    checkpoint(folder.path());
    let path = folder.path().to_str().expect("UTF-8");
    let manifest = folder.path().join("manifest.json");
    fs::write(&manifest, command::run(["manifest", path]).assert_ok()).expect("writes");
    let manifest = manifest.to_str().expect("UTF-8");
    for extra in [&[][..], &["--stream"], &["--backend", "mmap"], &["--backend", "pread"], &["--select", "t[0-3]"]] {
        let arguments = [&["load", path, "--verify", manifest][..], extra].concat();
        assert!(command::run(&arguments).assert_ok().contains("verified"), "{extra:?}");
        let document = command::run([&arguments[..], &["--json"]].concat()).json();
        assert_eq!(document["verified"], true, "{extra:?}");
    }
    let shard = command::run(["load", path, "--verify", manifest, "--shard", "0/2"]);
    shard.assert_error(2, &["in part", "cannot be verified"]);
    flip(&folder.path().join(VICTIM), tensor_range(folder.path(), 2).start + 5);
    for extra in [&[][..], &["--stream"], &["--backend", "mmap"], &["--json"]] {
        let run = command::run([&["load", path, "--verify", manifest][..], extra].concat());
        let range = tensor_range(folder.path(), 2);
        run.assert_error(1, &[VICTIM, "\"t2\"", &format!("{}..{}", range.start, range.end), "BLAKE3"]);
    }
}

#[cfg(test)]
mod asynchronous {
    use super::*;

    #[test]
    fn a_load_in_a_runtime_is_verified() {
        let folder = folder();
        let expected = checkpoint(folder.path());
        let manifest = Loader::new().manifest(folder.path()).expect("hashes");
        let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("starts");
        let load = || runtime.block_on(Loader::new().verify_with(manifest.clone()).load_async(folder.path()));
        let tensors = load().expect("loads");
        assert!(tensors.report().verified);
        assert!(tensors.iter().all(|tensor| tensor.as_bytes() == expected[tensor.name()]));
        drop(tensors);
        flip(&folder.path().join(VICTIM), tensor_range(folder.path(), 6).start);
        assert_mismatch(&load().expect_err("differs"), folder.path(), 6, "async");
    }
}
