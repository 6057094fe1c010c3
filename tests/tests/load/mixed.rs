//! One checkpoint whose files lie in several storages or on several devices.

use floodtide::pool::Pool;
use floodtide::storage::{Layered, LocalStorage, MemoryStorage, StorageError};
use floodtide::{Error, Loader, Order, StreamOptions};
use floodtide_core::middleware::{Faults, Injection};
use floodtide_core::{ReadOp, RouteId};
use floodtide_tests::by_backend::{Bytes, MB, assert_right, drain};
use floodtide_tests::checkpoint::{folder, plain, raw};
use floodtide_tests::over_storages::faulty;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The tensors of a file: eight of a little over 1 MiB.
fn tensors(prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let seed = usize::from(prefix.as_bytes()[0]);
    let tensor = |i: usize| (0..MB + 777).map(|at| (at * 7 + at / 255 + i * 31 + seed) as u8).collect();
    (0..8).map(|i| (format!("{prefix}.{i}"), tensor(i))).collect()
}

fn file(tensors: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let (json, data) = plain(tensors.clone());
    raw(&json, &data)
}

/// A checkpoint of a local file and one in memory, and another on a memory file system where there
/// is one.
struct Mixed {
    loader: Loader,
    memory: MemoryStorage,
    local: PathBuf,
    paths: Vec<PathBuf>,
    expected: BTreeMap<String, Vec<u8>>,
    _folders: Vec<tempfile::TempDir>,
}

impl Mixed {
    fn new() -> Self {
        let (a, b, c) = (tensors("a"), tensors("b"), tensors("c"));
        let memory = MemoryStorage::new();
        memory.insert("model/b.safetensors", file(&b));
        let disk = folder();
        let local = disk.path().join("a.safetensors");
        fs::write(&local, file(&a)).expect("writes");
        fs::File::open(&local).expect("opens").sync_all().expect("syncs");
        let mut paths = vec![local.clone(), PathBuf::from("mem://model/b.safetensors")];
        let (mut folders, mut expected) = (vec![disk], a);
        expected.extend(b);
        match tempfile::tempdir_in("/dev/shm") {
            Ok(shm) => {
                paths.push(shm.path().join("c.safetensors"));
                fs::write(&paths[2], file(&c)).expect("writes");
                folders.push(shm);
                expected.extend(c);
            }
            Err(error) => println!("without a memory file system: {error}"),
        }
        let loader = Loader::new()
            .storage("mem", memory.clone())
            .stream_options(StreamOptions::new().memory_limit(8 * MB as u64));
        Self { loader, memory, local, paths, expected, _folders: folders }
    }

    fn load(&self, loader: &Loader) -> Bytes {
        let tensors = loader.load_files(&self.paths)?;
        Ok(tensors.iter().map(|tensor| (tensor.name().to_owned(), tensor.as_bytes().to_vec())).collect())
    }

    fn stream(&self, loader: &Loader) -> Bytes {
        drain(loader.stream_files(&self.paths)?)
    }
}

#[test]
fn files_of_several_storages_are_one_checkpoint() {
    let mixed = Mixed::new();
    assert_right(mixed.load(&mixed.loader), &mixed.expected, "load");
    for order in [Order::Completion, Order::File, Order::Selection] {
        let options = StreamOptions::new().memory_limit(8 * MB as u64).order(order);
        let loader = mixed.loader.clone().stream_options(options);
        assert_right(mixed.stream(&loader), &mixed.expected, &format!("{order:?}"));
        if order == Order::File {
            let names =
                loader.stream_files(&mixed.paths).expect("opens").map(|t| t.expect("streams").name().to_owned());
            assert!(names.eq(mixed.expected.keys().cloned()), "the files are in the order in which they are given");
        }
    }
    let tensors = mixed.loader.load_files(&mixed.paths).expect("loads");
    let report = tensors.report();
    assert_eq!((report.files, report.tensors), (mixed.paths.len(), mixed.expected.len()));
}

#[test]
fn a_decision_names_the_files_that_it_concerns() {
    let mixed = Mixed::new();
    // A stream has no decisions about the memory of the tensors.
    let mut stream = mixed.loader.stream_files(&mixed.paths).expect("opens");
    assert!(stream.by_ref().all(|tensor| tensor.is_ok()));
    for report in
        [stream.report().expect("it has ended"), mixed.loader.load_files(&mixed.paths).expect("loads").report()]
    {
        let decided = |what: &str, file: &str| {
            let mut of_file = report.decisions.iter().filter(|decision| {
                let route = decision.route.map(|route| &report.routes[route.index()]);
                decision.what == what && route.is_some_and(|route| route.files == [file])
            });
            let decision = of_file.next().unwrap_or_else(|| panic!("no {what} of {file}: {:?}", report.decisions));
            assert!(of_file.next().is_none(), "{:?}", report.decisions);
            decision.why.clone()
        };
        let local = mixed.local.to_str().expect("Unicode");
        assert_eq!(report.routes.len(), mixed.paths.len());
        assert_eq!(decided("reads", "model/b.safetensors"), "the bytes are in memory and are copied from there");
        assert!(!decided("reads", local).contains("the bytes are in memory"));
        assert_eq!(decided("backend", "model/b.safetensors"), "processors copy the bytes, so threads share them");
        decided("backend", local);
        let of_load = report.decisions.iter().filter(|decision| decision.route.is_none());
        let about_memory = ["memory", "huge pages", "NUMA", "threads"];
        assert!(of_load.clone().all(|decision| about_memory.contains(&decision.what)), "{:?}", report.decisions);
        let shared = report.reason().matches("are in memory and are copied").count();
        assert_eq!(shared, 1, "{}", report.reason());
    }
}

#[test]
fn equal_decisions_of_two_storages_are_two_decisions() {
    let (first, second) = (MemoryStorage::new(), MemoryStorage::new());
    first.insert("a.safetensors", file(&tensors("a")));
    second.insert("b.safetensors", file(&tensors("b")));
    let loader = Loader::new().storage("first", first).storage("second", second);
    let tensors = loader.load_files(["first://a.safetensors", "second://b.safetensors"]).expect("loads");
    let report = tensors.report();
    let routes: Vec<_> = report.decisions.iter().filter(|d| d.what == "backend").map(|d| d.route).collect();
    assert_eq!(routes, [Some(RouteId(0)), Some(RouteId(1))], "{:?}", report.decisions);
    let files: Vec<_> = report.routes.iter().map(|route| &route.files[..]).collect();
    assert_eq!(files, [["a.safetensors".to_owned()], ["b.safetensors".to_owned()]]);
}

#[test]
fn the_same_tensor_in_two_files_is_an_error_that_names_both() {
    let mixed = Mixed::new();
    mixed.memory.insert("model/b.safetensors", file(&tensors("a")));
    let error = mixed.load(&mixed.loader).expect_err("twice").to_string();
    assert!(error.contains("\"a.0\"") && error.contains("b.safetensors") && error.contains("a.safetensors"), "{error}");
}

/// Does something before the first read.
#[derive(Clone)]
struct AtFirstRead<F>(Arc<AtomicBool>, F);

impl<F: Fn() + Clone + Send + Sync + 'static> Faults for AtFirstRead<F> {
    fn inject(&mut self, _: &ReadOp) -> Injection {
        if !self.0.swap(true, Ordering::SeqCst) {
            (self.1)();
        }
        Injection::None
    }
}

/// A loader that changes something once reads have begun.
fn changing(mixed: &Mixed, change: impl Fn() + Clone + Send + Sync + 'static) -> Loader {
    let done = Arc::new(AtomicBool::new(false));
    let layer = || {
        let (done, change) = (Arc::clone(&done), change.clone());
        faulty(move || AtFirstRead(Arc::clone(&done), change.clone()))
    };
    let loader = mixed.loader.clone().storage("file", Layered::new(LocalStorage::new(), layer()));
    loader.storage("mem", Layered::new(mixed.memory.clone(), layer()))
}

fn append(path: &Path) {
    let file = fs::OpenOptions::new().append(true).open(path).expect("opens");
    std::io::Write::write_all(&mut &file, b"x").expect("writes");
}

#[test]
fn a_file_that_changes_in_one_of_the_storages_is_reported() {
    for way in [Mixed::load, Mixed::stream] {
        let mixed = Mixed::new();
        let memory = mixed.memory.clone();
        let change = move || memory.insert("model/b.safetensors", vec![0; 100]);
        let error = way(&mixed, &changing(&mixed, change)).expect_err("changed");
        let Error::Storage(StorageError::Changed { name, .. }) = &error else { panic!("{error}") };
        assert_eq!(name, "model/b.safetensors");
        let mixed = Mixed::new();
        let path = mixed.local.clone();
        let error = way(&mixed, &changing(&mixed, move || append(&path))).expect_err("changed");
        let Error::Storage(StorageError::Changed { name, .. }) = &error else { panic!("{error}") };
        assert_eq!(Path::new(name), mixed.local);
    }
}

#[test]
fn a_stream_of_several_storages_can_be_given_up() {
    let mixed = Mixed::new();
    let pool = Pool::builder().limit(8 * MB).build();
    let loader = mixed.loader.clone().stream_options(StreamOptions::new().pool(pool.clone()));
    for taken in [0, 1, 5] {
        let mut stream = loader.stream_files(&mixed.paths).expect("opens");
        assert!(stream.by_ref().take(taken).all(|tensor| tensor.is_ok()));
        drop(stream);
        let end = Instant::now() + Duration::from_secs(20);
        while pool.stats().lent > 0 {
            assert!(Instant::now() < end, "buffers are left");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // And a load, by what watches it.
    let watched = mixed.loader.clone().on_progress(|_| panic!("enough"));
    let given_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(mixed.load(&watched))));
    assert!(given_up.is_err());
    assert_right(mixed.load(&mixed.loader), &mixed.expected, "afterwards");
}

#[test]
fn a_list_of_files_takes_uris_and_refuses_what_it_does_not_know() {
    let mixed = Mixed::new();
    let uri = format!("file://{}", mixed.local.display());
    let tensors = mixed.loader.load_files([&uri, "mem://model/b.safetensors"]).expect("loads");
    assert_eq!(tensors.len(), 16);
    let error = mixed.loader.load_files([&*uri, "s3://bucket/b.safetensors"]).expect_err("unknown");
    assert!(matches!(error, Error::UnknownScheme { .. }), "{error}");
    let error = mixed.loader.load_files([&*uri, "mem://model"]).expect_err("a folder");
    assert!(error.to_string().contains("model") && error.to_string().contains("folder"), "{error}");
    let error = mixed.loader.load_files([&*uri, "mem://model/none"]).expect_err("nothing").to_string();
    assert!(error.contains("model/none") && error.contains("no such file"), "{error}");
    assert!(mixed.loader.load_files::<&str>([]).is_err(), "no file is no checkpoint");
}
