//! Faults of real devices, which fail, stall or return short reads, and files that change under a
//! reader. Each ends in the right bytes or in a precise error, and the process can load another
//! file.

use floodtide::backend::{MMAP, PREAD, URING};
use floodtide::{Backend, Error, Loader, Order};
use floodtide_core::{Error as CoreError, Fault, Selection};
use floodtide_tests::by_backend::{
    Bytes, MB, ON_FUSE, STREAMED_ON_FUSE, TENSORS, assert_right, by_every_backend, checkpoint, drain, error_of, load,
    loader, stream_options, tensor_range,
};
use floodtide_tests::checkpoint::{folder, plain, raw, reference_digest};
use floodtide_tests::command;
use floodtide_tests::faulty_fs::{Faults, FaultyFs, VICTIM, serve};
use floodtide_tests::layout::drop_cache;

use floodtide_tests::roles::{OnPath, in_process, run_role};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Direct reads, plain reads that bypass the page cache, and reads through it.
const WAYS: [(bool, bool); 3] = [(true, true), (false, true), (false, false)];

/// Serves the file system in a child process; does nothing otherwise.
#[test]
fn serves_faults() {
    serve();
}

/// Mounts a file system with these faults, or prints a line and returns `None` if it cannot.
fn mounted(files: &Path, faults: Faults) -> Option<FaultyFs> {
    FaultyFs::mount(files, (module_path!(), "serves_faults"), faults)
        .inspect_err(|error| println!("skipped: FUSE cannot be used here ({error})"))
        .ok()
}

fn way((direct, uncached): (bool, bool)) -> Faults {
    Faults { direct, uncached, ..Faults::default() }
}

#[test]
fn a_device_error_that_stays_is_reported_with_file_tensor_and_offset() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    fs::copy(folder.path().join(VICTIM), folder.path().join("healthy.safetensors")).expect("copies");
    let tensor = tensor_range(folder.path(), 5);
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
                    // A read fails as a whole, so only its start is known.
                    let index: usize = tensor[1..].parse().expect("a number");
                    let place = tensor_range(folder.path(), index);
                    // A direct read starts up to its alignment before the tensor.
                    assert!((place.start - 512..place.end).contains(offset), "{what}, {through:?}: {message}");
                    assert!(*offset < bad.end && bad.start - offset < 4 * MB as u64, "{what}, {through:?}: {message}");
                    assert!(message.contains("EIO") && message.contains("disk's health"), "{message}");
                }
                Error::Core(CoreError::Platform { .. }) if backend == Some(MMAP) => {
                    assert!(message.contains("its device fails"), "{message}");
                }
                _ => panic!("{what}, {through:?}: {message}"),
            }
            assert!(start.elapsed() < Duration::from_secs(2), "{what}, {through:?}");
            // Tensors that are not selected from a failing file do no harm.
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
    let bad = tensor_range(folder.path(), 5);
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    for through in WAYS {
        for times in [1, 2] {
            let prepare = || {
                let eio = Some(bad.start + 100_000..bad.start + 100_001);
                disk.fault(Faults { eio, eio_times: Some(times), ..way(through) });
            };
            by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
                let what = format!("{what}, {through:?}, {times} times");
                // The kernel fills the pages of a mapping, and tries once.
                if backend != Some(MMAP) {
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
                if backend != Some(MMAP) {
                    assert_right(bytes, &expected, &format!("{what}, {through:?}, {short:?}"));
                }
            });
        }
    }
}

/// After a short read the kernel continues at the wrong offset there, unless the mount reads
/// asynchronously, and returns wrong bytes without an error.
#[test]
fn rings_are_not_trusted_on_fuse() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    // In the page cache, the kernel fills the rest of a short read with zeros, and reports the end
    // of the file.
    for through in [WAYS[0], WAYS[1]] {
        let faults = Faults { short: vec![100_000, 1, 70_001, 4096], ..way(through) };
        let Some(disk) = mounted(folder.path(), faults) else { return };
        let error = error_of(load(&loader(Some(URING)), &disk.victim()), "refused").to_string();
        assert!(error.contains("uring") && error.contains("FUSE") && error.contains("let floodtide choose"), "{error}");
        assert_right(load(&Loader::new(), &disk.victim()), &expected, "auto");
        let report = Loader::new().load(disk.victim()).expect("loads").report().clone();
        assert_eq!(report.backend, PREAD, "{}", report.reason());
    }
}

/// The same holds if only one of the files is there, behind a link.
#[test]
fn rings_are_not_trusted_where_any_file_is_on_fuse() {
    let (folder, served) = (folder(), folder());
    let mut expected = checkpoint(served.path());
    let (json, data) = plain([("beside".to_owned(), vec![5; 8 * MB])]);
    let beside = folder.path().join("a.safetensors");
    fs::write(&beside, raw(&json, &data)).expect("writes");
    fs::File::open(&beside).expect("opens").sync_all().expect("syncs");
    expected.insert("beside".to_owned(), data);
    let faults = Faults { short: vec![100_000, 1, 70_001, 4096], ..way(WAYS[0]) };
    let Some(disk) = mounted(served.path(), faults) else { return };
    std::os::unix::fs::symlink(disk.victim(), folder.path().join("b.safetensors")).expect("links");
    drop_cache(folder.path());
    let error = error_of(load(&loader(Some(URING)), folder.path()), "refused").to_string();
    assert!(error.contains("uring") && error.contains("FUSE"), "{error}");
    assert_right(load(&Loader::new(), folder.path()), &expected, "auto");
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
        assert!(tensors.report().reason().contains("refused direct reads"), "{}", tensors.report().reason());
    }
}

/// Changes of the victim under a reader, and words of the possible errors.
const CHANGES: [(OnPath, &[&str]); 4] = [
    (
        |path| fs::File::options().write(true).open(path).expect("opens").set_len(5 * MB as u64).expect("cuts"),
        &["its length changed", "the file ends at byte", "shorter than when it was opened"],
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
    // In the last read, because the first read that meets the end is reported.
    let cut = tensor_range(folder.path(), 7).end - 50_000;
    let Some(disk) = mounted(folder.path(), Faults::default()) else { return };
    // The page cache and a mapping fill missing bytes of a file system with zeros.
    for through in [WAYS[0], WAYS[1]] {
        let prepare = || disk.fault(Faults { cut: Some(cut), ..way(through) });
        by_every_backend(&disk.victim(), prepare, |bytes, backend, what| {
            if backend == Some(MMAP) {
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
            for (order, listed) in
                [(Order::File, ["t1", "t2", "t4", "t7"]), (Order::Selection, ["t4", "t1", "t7", "t2"])]
            {
                let loader = loader(backend)
                    .stream_options(stream_options().order(order))
                    .selection(Selection::names(["t4", "t1", "t7", "t2"]));
                let tensors = loader.stream(disk.victim()).expect("opens").map(|tensor| tensor.expect("streams"));
                let names: Vec<String> = tensors
                    .inspect(|tensor| assert!(tensor.as_bytes() == expected[tensor.name()], "{backend:?}"))
                    .map(|tensor| tensor.name().to_owned())
                    .collect();
                assert_eq!(names, listed, "{backend:?}, {through:?}");
            }
        }
    }
}

/// Runs one of the roles in a child process; does nothing otherwise.
#[test]
fn started_by_other_tests() {
    run_role(&[("drops what is under way", drops_what_is_under_way)]);
}

fn loader_threads() -> usize {
    let is_ours =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "floodtide");
    fs::read_dir("/proc/self/task").expect("lists").flatten().filter(is_ours).count()
}

/// Fails if `work` waits for a device that no longer answers.
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
        // A held read through the page cache may be read-ahead, which no worker waits for yet.
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
            let mut stream = loader(backend)
                .stream_options(stream_options().order(Order::File))
                .stream(disk.victim())
                .expect("opens");
            let first = stream.next().expect("one").expect("streams");
            disk.wait_until_held();
            at_once("dropping a stream", || drop(stream));
            ends(backend, through);
            assert_eq!(first.as_bytes().len(), TENSORS[0], "what was taken stays");
        }
    }
}

#[test]
fn dropping_a_load_or_a_stream_does_not_wait_for_a_device_that_hangs() {
    let folder = folder();
    checkpoint(folder.path());
    in_process(module_path!(), "drops what is under way", folder.path(), |_| {});
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
    let at = tensor_range(folder.path(), 5).start + 100_000;
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
