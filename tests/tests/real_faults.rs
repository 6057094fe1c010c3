//! Faults of real systems: a device that fails, stalls or brings less than was asked for, files that change under a reader,
//! and a system that gives no threads, descriptors, locked memory or memory. Every one ends in the right bytes or in an error
//! that says what is wrong, and the process goes on to load another file.
//!
//! What would hurt the other tests runs in a process of its own: this program again, for one function of it.

use floodtide_core::{Error as CoreError, Fault, Selection};
use floodtide_linux::{Backend, Error, Loader, Order, TensorStream};
use floodtide_tests::checkpoint::{folder, many, raw, reference_digest, reshard};
use floodtide_tests::command;
use floodtide_tests::faulty_fs::{Faults, FaultyFs, VICTIM, serve};
use floodtide_tests::layout::{drop_cache, reference};
use floodtide_tests::sandbox::{
    MemoryGroup, forbid_io_uring, forbid_io_uring_here, forbid_threads, forbid_threads_here, limit_locked_memory,
    limit_open_files,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;
/// `None` is the automatic choice.
const STREAMED: [Option<Backend>; 4] = [None, Some(Backend::Uring), Some(Backend::Pread), Some(Backend::Tokio)];
const LOADED: [Option<Backend>; 5] =
    [None, Some(Backend::Uring), Some(Backend::Pread), Some(Backend::Tokio), Some(Backend::Mmap)];
/// Rings are refused on FUSE, see [`rings_are_not_trusted_on_fuse`].
const ON_FUSE: [Option<Backend>; 4] = [None, Some(Backend::Pread), Some(Backend::Tokio), Some(Backend::Mmap)];
const STREAMED_ON_FUSE: [Option<Backend>; 3] = [None, Some(Backend::Pread), Some(Backend::Tokio)];
/// Past the page cache by direct reads, past it by plain ones, and through it.
const WAYS: [(bool, bool); 3] = [(true, true), (false, true), (false, false)];
/// The tensors of the checkpoint, in bytes: eight of a little over 1 MiB.
const TENSORS: [usize; 8] = [MB + 12_345; 8];

/// Serves the file system of the other tests; does nothing by itself.
#[test]
fn serves_faults() {
    serve();
}

/// The checkpoint, as the victim, and its bytes by name.
fn checkpoint(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (i, bytes) in TENSORS.into_iter().enumerate() {
        let begin = data.len();
        data.extend((begin..begin + bytes).map(|at| (at * 7 + at / 255 + at / 65_521) as u8));
        entries.push(format!(r#""t{i}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{begin},{}]}}"#, data.len()));
    }
    fs::write(folder.join(VICTIM), raw(&format!("{{{}}}", entries.join(",")), &data)).expect("writes");
    reference(folder)
}

/// Where a tensor's bytes are in the file.
fn place(folder: &Path, tensor: usize) -> Range<u64> {
    let file = fs::metadata(folder.join(VICTIM)).expect("is there").len();
    let data = file - TENSORS.iter().sum::<usize>() as u64;
    let begin = data + TENSORS[..tensor].iter().sum::<usize>() as u64;
    begin..begin + TENSORS[tensor] as u64
}

/// A file system with these faults; `None`, and a line that says so, where there can be none.
fn mounted(files: &Path, faults: Faults) -> Option<FaultyFs> {
    FaultyFs::mount(files, "serves_faults", faults)
        .inspect_err(|error| println!("skipped: FUSE cannot be used here ({error})"))
        .ok()
}

fn way((direct, uncached): (bool, bool)) -> Faults {
    Faults { direct, uncached, ..Faults::default() }
}

fn loader(backend: Option<Backend>) -> Loader {
    backend.map_or_else(Loader::new, |backend| Loader::new().backend(backend)).memory_limit(4 * MB as u64)
}

/// A whole load's bytes by name.
fn load(loader: &Loader, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let tensors = loader.load(path)?;
    Ok(tensors.iter().map(|tensor| (tensor.name().to_owned(), tensor.bytes().to_vec())).collect())
}

/// A stream's bytes by name; an error is its last word.
fn stream(loader: &Loader, path: &Path) -> Bytes {
    drain(loader.stream(path)?)
}

fn drain(mut stream: TensorStream) -> Bytes {
    let mut all = BTreeMap::new();
    while let Some(tensor) = stream.next() {
        match tensor {
            Ok(tensor) => all.insert(tensor.name().to_owned(), tensor.bytes().to_vec()),
            Err(error) => {
                assert!(stream.next().is_none() && stream.report().is_none(), "an error ends the stream");
                return Err(error);
            }
        };
    }
    assert!(stream.report().is_some());
    Ok(all)
}

type OnPath = fn(&Path);
type Bytes = Result<BTreeMap<String, Vec<u8>>, Error>;

/// Loads and streams by every backend; `check` gets what came of each, and its name.
fn by_every_backend(path: &Path, mut prepare: impl FnMut(), mut check: impl FnMut(Bytes, Option<Backend>, &str)) {
    for backend in ON_FUSE {
        prepare();
        check(load(&loader(backend), path), backend, &format!("load by {backend:?}"));
    }
    for backend in STREAMED_ON_FUSE {
        prepare();
        check(stream(&loader(backend), path), backend, &format!("stream by {backend:?}"));
    }
}

fn assert_right(bytes: Bytes, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
    let bytes = bytes.unwrap_or_else(|error| panic!("{what}: {error}"));
    // Never printed whole: they are megabytes.
    let other = bytes.iter().find(|(name, bytes)| expected[*name] != **bytes);
    assert!(other.is_none(), "{what}: {} differs", other.map_or("", |(name, _)| name));
    assert_eq!(bytes.len(), expected.len(), "{what}");
}

/// What went wrong, where something has to; the bytes are never printed.
fn error_of(bytes: Bytes, what: &str) -> Error {
    bytes.err().unwrap_or_else(|| panic!("{what}: no error"))
}

#[test]
fn a_device_error_that_stays_is_reported_with_file_tensor_and_offset() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    fs::copy(folder.path().join(VICTIM), folder.path().join("healthy.safetensors")).expect("copies");
    let tensor = place(folder.path(), 5);
    let bad = tensor.start + 100_000..tensor.start + 100_001;
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for through in WAYS {
        let prepare = || disk.fault(Faults { eio: Some(bad.clone()), ..way(through) });
        by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
            let start = Instant::now();
            let error = bytes.err().unwrap_or_else(|| panic!("{what}, {through:?}: no error"));
            let message = error.to_string();
            assert!(message.contains(VICTIM), "{what}, {through:?}: {message}");
            match &error {
                Error::Core(CoreError::Read { tensor, offset, fault: Fault::Io, .. }) => {
                    // A read fails as a whole, so its start is what is known.
                    let index: usize = tensor[1..].parse().expect("a number");
                    let place = place(folder.path(), index);
                    // A direct read starts up to its alignment before the tensor.
                    assert!((place.start - 512..place.end).contains(offset), "{what}, {through:?}: {message}");
                    assert!(*offset < bad.end && bad.start - offset < 4 * MB as u64, "{what}, {through:?}: {message}");
                    assert!(message.contains("EIO") && message.contains("disk's health"), "{message}");
                }
                Error::Core(CoreError::Platform { .. }) if backend == Some(Backend::Mmap) => {
                    assert!(message.contains("its device fails"), "{message}");
                }
                _ => panic!("{what}, {through:?}: {message}"),
            }
            assert!(start.elapsed() < Duration::from_secs(2), "{what}, {through:?}");
            // What is not wanted of a failing file does no harm.
            let other = loader(backend).selection(Selection::names(["t0"]));
            assert!(load(&other, &disk.victim()).expect("t0 is whole")["t0"] == expected["t0"], "{what}");
            assert_right(load(&loader(backend), &disk.file("healthy.safetensors")), &expected, what);
        });
    }
}

#[test]
fn a_device_error_that_passes_is_not_noticed() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let bad = place(folder.path(), 5);
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for through in WAYS {
        for times in [1, 2] {
            let prepare = || {
                let eio = Some(bad.start + 100_000..bad.start + 100_001);
                disk.fault(Faults { eio, eio_times: Some(times), ..way(through) });
            };
            by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
                let what = format!("{what}, {through:?}, {times} times");
                // A mapping's pages are the kernel's to fill: it tries once.
                if backend != Some(Backend::Mmap) {
                    assert_right(bytes, &expected, &what);
                }
            });
        }
    }
}

#[test]
fn short_reads_are_read_on() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    // Through the page cache a short read is the end of the file.
    for through in [WAYS[0], WAYS[1]] {
        for short in [vec![100_000, 1, 70_001, 4096], vec![1 << 30, 512], vec![4095, 1 << 30, 131_072, 65_537]] {
            let prepare = || disk.fault(Faults { short: short.clone(), ..way(through) });
            by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
                if backend != Some(Backend::Mmap) {
                    assert_right(bytes, &expected, &format!("{what}, {through:?}, {short:?}"));
                }
            });
        }
    }
}

/// After a short read the kernel goes on at the wrong place there, unless the mount reads asynchronously: wrong bytes, which
/// nobody could tell from right ones.
#[test]
fn rings_are_not_trusted_on_fuse() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    // Through the page cache the kernel fills what a short read leaves with zeros, and calls it the end.
    for through in [WAYS[0], WAYS[1]] {
        let faults = Faults { short: vec![100_000, 1, 70_001, 4096], ..way(through) };
        let Some(disk) = mounted(folder.path(), faults) else { return };
        let error = error_of(load(&loader(Some(Backend::Uring)), &disk.victim()), "refused").to_string();
        assert!(error.contains("uring") && error.contains("FUSE") && error.contains("auto"), "{error}");
        assert_right(load(&Loader::new(), &disk.victim()), &expected, "auto");
        let report = Loader::new().load(disk.victim()).expect("loads").report().clone();
        assert_eq!(report.backend, Backend::Pread, "{}", report.reason);
    }
}

#[test]
fn direct_reads_refused_only_when_they_are_made_go_through_the_page_cache() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for until in [MB as u64, 3 * MB as u64] {
        let prepare = || disk.fault(Faults { direct_until: Some(until), ..way(WAYS[0]) });
        by_every_backend(&disk.victim(), prepare, |bytes, _, what| assert_right(bytes, &expected, what));
        prepare();
        let tensors = loader(None).load(disk.victim()).expect("loads");
        assert!(tensors.report().reason.contains("refused direct reads"), "{}", tensors.report().reason);
    }
}

/// Changes of the victim under a reader, and words of the errors that may come of them.
const CHANGES: [(OnPath, &[&str]); 4] = [
    (
        |path| fs::File::options().write(true).open(path).expect("opens").set_len(5 * MB as u64).expect("cuts"),
        &["its length is another", "the file ends at byte", "shorter than when it was opened"],
    ),
    (|path| fs::remove_file(path).expect("removes"), &["it was removed"]),
    (
        |path| {
            fs::write(path.with_extension("new"), fs::read(path).expect("reads")).expect("writes");
            fs::rename(path.with_extension("new"), path).expect("renames");
        },
        &["another file"],
    ),
    (
        |path| {
            let file = fs::File::options().write(true).open(path).expect("opens");
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], 6 * MB as u64).expect("writes");
        },
        &["written to"],
    ),
];

#[test]
fn a_file_that_changes_while_it_is_read_is_reported() {
    let folder = folder();
    checkpoint(folder.path());
    let victim = folder.path().join(VICTIM);
    let bytes = fs::read(&victim).expect("reads");
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for (change, words) in CHANGES {
        for through in WAYS {
            let prepare = || {
                fs::write(&victim, &bytes).expect("writes");
                disk.fault(Faults { hold_from: Some(2 * MB as u64), ..way(through) });
            };
            let check = |bytes: Bytes, what: String| {
                let error = bytes.err().unwrap_or_else(|| panic!("{what}, {through:?}: no error, {words:?}"));
                let message = error.to_string();
                assert!(message.contains(VICTIM), "{what}, {through:?}: {message}");
                assert!(words.iter().any(|words| message.contains(words)), "{what}, {through:?}: {message}");
            };
            let change = || {
                disk.wait_until_held();
                change(&victim);
                disk.release();
            };
            for backend in ON_FUSE {
                prepare();
                let load = loader(backend).start(disk.victim()).expect("starts");
                change();
                check(load.wait().map(|_| BTreeMap::new()), format!("load by {backend:?}"));
            }
            for backend in STREAMED_ON_FUSE {
                prepare();
                let opened = loader(backend).stream(disk.victim()).expect("opens");
                let result = std::thread::scope(|scope| {
                    let reader = scope.spawn(|| drain(opened));
                    change();
                    reader.join().expect("no panic")
                });
                check(result, format!("stream by {backend:?}"));
            }
        }
    }
}

#[test]
fn a_file_whose_end_is_gone_although_its_length_is_the_same_is_cut_off() {
    let folder = folder();
    checkpoint(folder.path());
    // In the last read, as the first one that meets the end is reported.
    let cut = place(folder.path(), 7).end - 50_000;
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    // The page cache fills up with zeros what a file system leaves out, and so does a mapping.
    for through in [WAYS[0], WAYS[1]] {
        let prepare = || disk.fault(Faults { cut: Some(cut), ..way(through) });
        by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
            if backend == Some(Backend::Mmap) {
                return;
            }
            let error = bytes.err().unwrap_or_else(|| panic!("{what}, {through:?}: no error"));
            match &error {
                Error::Core(CoreError::Truncated { tensor, found, .. }) => {
                    assert_eq!((tensor.as_str(), *found), ("t7", cut), "{what}, {through:?}: {error}");
                }
                _ => panic!("{what}, {through:?}: {error}"),
            }
        });
    }
}

#[test]
fn a_slow_device_does_not_disturb_the_order() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let delays = [0, 30, 5, 0, 45, 15, 1].map(Duration::from_millis).to_vec();
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for through in WAYS {
        disk.fault(Faults { delays: delays.clone(), ..way(through) });
        for backend in STREAMED_ON_FUSE {
            for (order, listed) in [(Order::File, ["t1", "t2", "t4", "t7"]), (Order::Listed, ["t4", "t1", "t7", "t2"])]
            {
                let loader = loader(backend).order(order).selection(Selection::names(["t4", "t1", "t7", "t2"]));
                let tensors = loader.stream(disk.victim()).expect("opens").map(|tensor| tensor.expect("streams"));
                let names: Vec<String> = tensors
                    .inspect(|tensor| assert!(tensor.bytes() == expected[tensor.name()], "{backend:?}"))
                    .map(|tensor| tensor.name().to_owned())
                    .collect();
                assert_eq!(names, listed, "{backend:?}, {through:?}");
            }
        }
    }
}

/// Which function a started program is to run, and on which folder.
const ROLE: &str = "FLOODTIDE_TEST_ROLE";
const FOLDER: &str = "FLOODTIDE_TEST_FOLDER";

/// What runs in a process of its own: named by the tests below.
const ROLES: [(&str, OnPath); 5] = [
    ("drops what is under way", drops_what_is_under_way),
    ("locks little", locks_little),
    ("opens few files", opens_few_files),
    ("has little address space", has_little_address_space),
    ("is in a control group", is_in_a_control_group),
];

/// Runs one of the roles; does nothing by itself.
#[test]
fn started_by_other_tests() {
    let (Some(role), Some(path)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else { return };
    let (_, run) = ROLES.into_iter().find(|(name, _)| role == *name).expect("a role");
    run(Path::new(&path));
}

/// Runs a role in a process of its own; returns what it printed.
fn in_process(role: &str, path: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(["--exact", "started_by_other_tests", "--nocapture", "--test-threads=1"]);
    program.env(ROLE, role).env(FOLDER, path);
    prepare(&mut program);
    let run = command::finish(&mut program);
    println!("{}", run.stdout);
    run.assert_ok().to_owned()
}

fn loader_threads() -> usize {
    let is_ours =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "floodtide");
    fs::read_dir("/proc/self/task").expect("lists").flatten().filter(is_ours).count()
}

/// Fails if `work` waits for a device that answers no more.
fn at_once<R>(what: &str, work: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < Duration::from_millis(500), "{what} took {:?}", start.elapsed());
    result
}

fn drops_what_is_under_way(folder: &Path) {
    let Some(disk) = mounted(folder, Faults::default()) else { return };
    let hold = |through| disk.fault(Faults { hold_from: Some(2 * MB as u64), ..way(through) });
    let ends = |backend: Option<Backend>, (_, uncached): (bool, bool)| {
        // What is held in the page cache's name may be read ahead, for which no worker waits yet.
        assert!(!uncached || loader_threads() > 0, "{backend:?}: a worker waits for what the kernel has");
        disk.release();
        let end = Instant::now() + Duration::from_secs(10);
        while loader_threads() > 0 {
            assert!(Instant::now() < end, "{backend:?}: threads are left");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(load(&loader(backend), &disk.victim()).expect("loads").len(), TENSORS.len());
    };
    for through in WAYS {
        for backend in ON_FUSE {
            hold(through);
            let load = loader(backend).start(disk.victim()).expect("starts");
            disk.wait_until_held();
            at_once("dropping a load", || drop(load));
            ends(backend, through);
        }
        for backend in STREAMED_ON_FUSE {
            hold(through);
            let mut stream = loader(backend).order(Order::File).stream(disk.victim()).expect("opens");
            let first = stream.next().expect("one").expect("streams");
            disk.wait_until_held();
            at_once("dropping a stream", || drop(stream));
            ends(backend, through);
            assert_eq!(first.bytes().len(), TENSORS[0], "what was taken stays");
        }
    }
}

#[test]
fn dropping_a_load_or_a_stream_does_not_wait_for_a_device_that_hangs() {
    let folder = folder();
    checkpoint(folder.path());
    in_process("drops what is under way", folder.path(), |_| {});
}

#[test]
fn a_dropped_future_does_not_wait_for_a_device_that_hangs() {
    let folder = folder();
    checkpoint(folder.path());
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_time().worker_threads(1).build().expect("a runtime");
    for backend in ON_FUSE {
        disk.fault(Faults { hold_from: Some(2 * MB as u64), ..way(WAYS[0]) });
        let loader = loader(backend);
        at_once("a dropped future", || {
            let load =
                async { tokio::time::timeout(Duration::from_millis(50), loader.load_async(disk.victim())).await };
            assert!(runtime.block_on(load).is_err(), "{backend:?}: it waits");
        });
        disk.release();
        let tensors = runtime.block_on(loader.load_async(disk.victim())).expect("loads");
        assert_eq!(tensors.len(), TENSORS.len());
    }
}

#[test]
fn the_command_says_what_is_wrong_and_reads_through_what_passes() {
    let folder = folder();
    checkpoint(folder.path());
    let expected = reference_digest(&folder.path().join(VICTIM));
    let at = place(folder.path(), 5).start + 100_000;
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for backend in ["auto", "pread", "tokio", "mmap"] {
        disk.fault(Faults { eio: Some(at..at + 1), ..way(WAYS[0]) });
        let load = |stream: &[&str]| {
            let mut program = Command::new(command::path());
            command::finish(program.arg("load").arg(disk.victim()).args(["--backend", backend]).args(stream))
        };
        if backend == "mmap" {
            load(&[]).assert_error(1, &[VICTIM, "its device fails"]);
            continue;
        }
        for stream in [&[][..], &["--stream", "--memory-limit", "4MiB"]] {
            load(stream).assert_error(1, &[VICTIM, "tensor \"t", "at byte", "EIO", "disk's health"]);
        }
        for faults in [
            Faults { eio: Some(at..at + 1), eio_times: Some(2), ..way(WAYS[0]) },
            Faults { short: vec![70_001, 4096, 1], ..way(WAYS[1]) },
        ] {
            disk.fault(faults);
            let digest = ["digest".into(), disk.victim().into_os_string(), "--backend".into(), backend.into()];
            assert_eq!(command::run(digest).assert_ok(), expected, "{backend}");
        }
    }
}

/// With 1 MiB that may be locked: too little for a load, enough for some of a stream's buffers.
fn locks_little(folder: &Path) {
    let path = folder.join(VICTIM);
    let total = TENSORS.iter().sum::<usize>() as u64;
    // The memory of rings counts as locked.
    let has_ring = floodtide_linux::probe::uring_refusal().is_none();
    let usable = |backend: &&Option<Backend>| has_ring || **backend != Some(Backend::Uring);
    if !has_ring {
        let error = error_of(load(&loader(Some(Backend::Uring)), &path), "no ring").to_string();
        assert!(error.contains("ulimit -l"), "{error}");
    }
    for &backend in LOADED.iter().filter(usable) {
        let report = loader(backend).mlock(true).load(&path).expect("loads").report().clone();
        assert_eq!(
            (report.locked_bytes, report.warnings.len(), report.bytes),
            (0, 1, total),
            "{backend:?}: {report:?}"
        );
        assert!(report.warnings[0].contains("ulimit -l"), "{report:?}");
    }
    for &backend in STREAMED.iter().filter(usable) {
        let mut stream = loader(backend).mlock(true).stream(&path).expect("opens");
        assert_eq!(stream.by_ref().map(|tensor| tensor.expect("streams").bytes().len() as u64).sum::<u64>(), total);
        let report = stream.report().expect("has ended");
        assert!(report.locked_bytes <= MB as u64 && report.warnings.len() == 1, "{backend:?}: {report:?}");
        assert!(report.warnings[0].contains("ulimit -l"), "{report:?}");
    }
}

#[test]
fn memory_that_may_not_be_locked_is_a_warning_and_is_counted() {
    let folder = folder();
    checkpoint(folder.path());
    for bytes in [0, MB as u64] {
        in_process("locks little", folder.path(), |program| limit_locked_memory(program, bytes));
    }
    for stream in [&[][..], &["--stream", "--memory-limit", "4MiB"]] {
        let mut program = Command::new(command::path());
        program.arg("load").arg(folder.path().join(VICTIM)).args(["--mlock", "--json"]).args(stream);
        limit_locked_memory(&mut program, 0);
        let report = command::finish(&mut program).json();
        assert_eq!(report["locked_bytes"], 0, "{report}");
        assert!(report["warnings"][0].as_str().is_some_and(|warning| warning.contains("ulimit -l")), "{report}");
    }
}

/// More shards than descriptors; then as many as are needed.
fn opens_few_files(folder: &Path) {
    let descriptors = || fs::read_dir("/proc/self/fd").expect("lists").count();
    let before = descriptors();
    let fails = |result: Bytes, what: &str| {
        let message = result.err().unwrap_or_else(|| panic!("{what}: no error")).to_string();
        for words in ["model-000", "open", "ulimit -n"] {
            assert!(message.contains(words), "{what}: {message}");
        }
        assert_eq!(descriptors(), before, "{what}: all are closed");
    };
    LOADED.iter().for_each(|&backend| fails(load(&loader(backend), folder), &format!("load by {backend:?}")));
    STREAMED.iter().for_each(|&backend| fails(stream(&loader(backend), folder), &format!("stream by {backend:?}")));
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raises");
    let expected = load(&loader(None), folder).expect("loads");
    by_every_backend(folder, || {}, |bytes, _, what| assert_right(bytes, &expected, what));
    let end = Instant::now() + Duration::from_secs(10);
    while descriptors() > before {
        assert!(Instant::now() < end, "descriptors are left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn fewer_descriptors_than_shards_are_an_error_and_the_command_asks_for_more() {
    let folder = folder();
    let file = many(&folder.path().join("one"), 200);
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("makes");
    reshard(&file, &shards, 200);
    in_process("opens few files", &shards, |program| limit_open_files(program, 64, 1024));
    for backend in ["auto", "uring", "pread", "tokio"] {
        let stream = |hard| {
            let mut program = Command::new(command::path());
            program.arg("load").arg(&shards).args(["--stream", "--json", "--backend", backend]);
            limit_open_files(&mut program, 64, hard);
            command::finish(&mut program)
        };
        assert_eq!(stream(1024).json()["files"], 200, "{backend}");
        stream(64).assert_error(1, &["model-000", "open", "ulimit -n"]);
    }
}

/// Runs `work` on a thread of its own, which may be restricted.
fn apart(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn where_no_thread_can_be_started_a_load_does_without_and_a_stream_says_so() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let path = folder.path().join(VICTIM);
    // tokio's pool panics when it gets no thread.
    let without_tokio = |backend: &&Option<Backend>| **backend != Some(Backend::Tokio);
    apart(|| {
        forbid_threads_here();
        for &backend in LOADED.iter().filter(without_tokio) {
            assert_right(load(&loader(backend), &path), &expected, &format!("load by {backend:?}"));
            let report = loader(backend).load(&path).expect("loads").report().clone();
            assert!(report.reason.contains("no more threads"), "{backend:?}: {}", report.reason);
        }
        for backend in STREAMED {
            let error = error_of(stream(&loader(backend), &path), "no thread reads").to_string();
            assert!(error.contains("no thread") && error.contains("ulimit -u"), "{backend:?}: {error}");
        }
    });
    by_every_backend(&path, || {}, |bytes, _, what| assert_right(bytes, &expected, what));
    let run = |stream: &[&str]| {
        let mut program = Command::new(command::path());
        program.arg("load").arg(&path).arg("--json").args(stream);
        forbid_threads(&mut program);
        command::finish(&mut program)
    };
    assert_eq!(run(&[]).json()["tensors"], TENSORS.len());
    run(&["--stream"]).assert_error(1, &["no thread", "ulimit -u"]);
}

#[test]
fn where_io_uring_is_forbidden_a_stream_goes_on_or_says_so() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let path = folder.path().join(VICTIM);
    apart(|| {
        forbid_io_uring_here();
        drop_cache(folder.path());
        for &backend in STREAMED.iter().filter(|&&backend| backend != Some(Backend::Uring)) {
            assert_right(stream(&loader(backend), &path), &expected, &format!("stream by {backend:?}"));
        }
        let error = error_of(stream(&loader(Some(Backend::Uring)), &path), "refused").to_string();
        assert!(["uring", "EPERM", "seccomp", "auto"].iter().all(|words| error.contains(words)), "{error}");
    });
    let run = |backend: &str| {
        let mut program = Command::new(command::path());
        program.arg("load").arg(&path).args(["--stream", "--json", "--backend", backend]);
        forbid_io_uring(&mut program);
        command::finish(&mut program)
    };
    assert_eq!(run("auto").json()["backend"], "pread");
    run("uring").assert_error(1, &["uring", "EPERM", "seccomp", "auto"]);
}

/// So little address space that nothing fits, then so much that all of it does. (In between, what is left beside the buffers may
/// be too little for the allocator, which aborts.)
fn has_little_address_space(folder: &Path) {
    let path = folder.join(VICTIM);
    let expected = reference(folder);
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    let used = || {
        let pages = fs::read_to_string("/proc/self/statm").expect("is there");
        pages.split(' ').next().expect("a number").parse::<u64>().expect("a number") * 4096
    };
    let (mut whole, mut refused) = (0, 0);
    for room in [1, 2, 256].map(|mib| mib << 20) {
        let mut one = |name: String, run: &dyn Fn() -> Bytes| {
            println!("{name} in {room}");
            setrlimit(Resource::As, Rlimit { current: Some(used() + room), maximum }).expect("lowers");
            let result = run();
            setrlimit(Resource::As, Rlimit { current: maximum, maximum }).expect("raises");
            match result {
                Ok(bytes) => {
                    whole += 1;
                    assert_right(Ok(bytes), &expected, &name);
                }
                Err(error) => {
                    refused += 1;
                    let message = error.to_string();
                    println!("{message}");
                    assert!(!message.contains("report this"), "{name} in {room}: {message}");
                }
            }
        };
        for backend in LOADED {
            one(format!("load by {backend:?}"), &|| load(&loader(backend), &path));
        }
        for backend in STREAMED {
            one(format!("stream by {backend:?}"), &|| stream(&loader(backend), &path));
        }
    }
    let kinds = LOADED.len() + STREAMED.len();
    assert_eq!((whole, refused), (kinds, 2 * kinds));
    by_every_backend(&path, || {}, |bytes, _, what| assert_right(bytes, &expected, what));
}

#[test]
fn too_little_address_space_is_an_error() {
    let folder = folder();
    checkpoint(folder.path());
    in_process("has little address space", folder.path(), |_| {});
}

/// In 192 MiB, with a checkpoint of 512 MiB in two tensors beside the small one.
fn is_in_a_control_group(folder: &Path) {
    let large = folder.join("large.safetensors");
    let refused = |result: Result<(), Error>, what: &str| {
        let message = result.err().unwrap_or_else(|| panic!("{what}: no error")).to_string();
        assert!(message.contains("cgroup") && message.contains("only"), "{what}: {message}");
    };
    for backend in LOADED {
        refused(loader(backend).load(&large).map(|_| ()), &format!("load by {backend:?}"));
    }
    for backend in STREAMED {
        let limited = loader(backend).memory_limit(1 << 30);
        let first = limited.stream(&large).expect("opens").next().expect("an error").map(|_| ());
        refused(first, &format!("stream by {backend:?}"));
        let parts = limited.stream(&large).expect("opens").for_each_chunk(|_, _, _| {}).map(|_| ());
        refused(parts, &format!("stream in parts by {backend:?}"));
        let mut seen = 0;
        let loader = loader(backend).memory_limit(64 << 20);
        loader.stream(&large).expect("opens").for_each_chunk(|_, _, bytes| seen += bytes.len()).expect("streams");
        assert_eq!(seen, 512 << 20, "{backend:?}");
    }
    let expected = reference(&folder.join("small"));
    by_every_backend(&folder.join("small").join(VICTIM), || {}, |bytes, _, what| assert_right(bytes, &expected, what));
}

#[test]
fn a_control_group_that_is_too_small_is_an_error_for_loads_and_for_streams() {
    let folder = folder();
    fs::create_dir(folder.path().join("small")).expect("makes");
    checkpoint(&folder.path().join("small"));
    let (half, whole) = (256_u64 << 20, 512_u64 << 20);
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[{half}],"data_offsets":[0,{half}]}},"b":{{"dtype":"U8","shape":[{half}],"data_offsets":[{half},{whole}]}}}}"#
    );
    let (large, start) = (folder.path().join("large.safetensors"), raw(&json, &[]));
    fs::write(&large, &start).expect("writes");
    fs::File::options().write(true).open(&large).expect("opens").set_len(start.len() as u64 + whole).expect("grows");
    let group = match MemoryGroup::new(192 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    in_process("is in a control group", folder.path(), |program| group.confine(program));
    let run = |arguments: &[&str]| {
        let mut program = Command::new(command::path());
        program.arg("load").arg(&large).args(["--stream", "--json"]).args(arguments);
        group.confine(&mut program);
        command::finish(&mut program)
    };
    run(&["--memory-limit", "1GiB"]).assert_error(1, &["only", "cgroup"]);
    assert_eq!(run(&[]).json()["bytes"], whole);
}
