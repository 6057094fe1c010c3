//! A system that refuses threads, descriptors, locked memory, rings or memory. Each refusal ends in
//! the right bytes or in a precise error, and the process can load another file.

use floodtide::backend::{TOKIO, URING};
use floodtide::{Backend, Error, Loader, StreamOptions};
use floodtide_tests::by_backend::{
    Bytes, LOADED, MB, STREAMED, TENSORS, assert_right, by_every_backend, checkpoint, error_of, load, loader, stream,
};
use floodtide_tests::checkpoint::{folder, many, raw, reshard, sparse};
use floodtide_tests::command;
use floodtide_tests::faulty_fs::VICTIM;
use floodtide_tests::layout::{drop_cache, reference};
use floodtide_tests::roles::{in_process, run_role};
use floodtide_tests::sandbox::{
    MemoryGroup, forbid_io_uring, forbid_io_uring_here, forbid_threads, forbid_threads_here, limit_address_space,
    limit_locked_memory, limit_open_files,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs one of the roles in a child process; does nothing otherwise.
#[test]
fn started_by_other_tests() {
    run_role(&[
        ("locks little", locks_little),
        ("opens few files", opens_few_files),
        ("has little address space", has_little_address_space),
        ("is in a control group", is_in_a_control_group),
        ("loads more than before", loads_more_than_before),
    ]);
}

/// With 1.25 GiB of address space, which is less than the kept memory and the next load take
/// together.
fn loads_more_than_before(folder: &Path) {
    let loader = Loader::new().arena_cache_limit(u64::MAX);
    let load = |mib: u64| loader.load(sparse(folder, mib << 20)).expect("fits").report().bytes >> 20;
    assert_eq!(load(512), 512);
    assert!(loader.arena_cache_len() >= 512 << 20, "for the next");
    assert_eq!(load(800), 800);
}

#[test]
fn memory_that_is_kept_is_given_up_where_it_is_in_the_way() {
    let folder = folder();
    in_process(module_path!(), "loads more than before", folder.path(), |program| {
        limit_address_space(program, 1280 << 20);
    });
}

/// With 1 MiB that may be locked: too little for a load, enough for some of a stream's buffers.
fn locks_little(folder: &Path) {
    let path = folder.join(VICTIM);
    let total = TENSORS.iter().sum::<usize>() as u64;
    // The memory of rings counts as locked.
    let has_ring = floodtide::probe::uring_refusal().is_none();
    let usable = |backend: &&Option<Backend>| has_ring || **backend != Some(URING);
    if !has_ring {
        let error = error_of(load(&loader(Some(URING)), &path), "no ring").to_string();
        assert!(error.contains("ulimit -l"), "{error}");
    }
    for &backend in LOADED.iter().filter(usable) {
        let report = loader(backend).mlock(true).load(&path).expect("loads").report().clone();
        assert_eq!(
            (report.locked_bytes, report.warnings.len(), report.bytes),
            (0, 1, total),
            "{backend:?}: {report:?}"
        );
        assert!(report.warnings[0].to_string().contains("ulimit -l"), "{report:?}");
    }
    for &backend in STREAMED.iter().filter(usable) {
        let mut stream = loader(backend).mlock(true).stream(&path).expect("opens");
        assert_eq!(stream.by_ref().map(|tensor| tensor.expect("streams").as_bytes().len() as u64).sum::<u64>(), total);
        let report = stream.report().expect("has ended");
        assert!(report.locked_bytes <= MB as u64 && report.warnings.len() == 1, "{backend:?}: {report:?}");
        assert!(report.warnings[0].to_string().contains("ulimit -l"), "{report:?}");
    }
}

#[test]
fn memory_that_may_not_be_locked_is_a_warning_and_is_counted() {
    let folder = folder();
    checkpoint(folder.path());
    for bytes in [0, MB as u64] {
        in_process(module_path!(), "locks little", folder.path(), |program| limit_locked_memory(program, bytes));
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

/// Loads more shards than descriptors, then with enough descriptors.
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
    in_process(module_path!(), "opens few files", &shards, |program| limit_open_files(program, 64, 1024));
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

/// Runs `work` on its own thread, which may be restricted.
fn apart(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn where_no_thread_can_be_started_a_load_does_without_and_a_stream_says_so() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let path = folder.path().join(VICTIM);
    // tokio's pool panics without a thread.
    let without_tokio = |backend: &&Option<Backend>| **backend != Some(TOKIO);
    apart(|| {
        forbid_threads_here();
        for &backend in LOADED.iter().filter(without_tokio) {
            assert_right(load(&loader(backend), &path), &expected, &format!("load by {backend:?}"));
            let report = loader(backend).load(&path).expect("loads").report().clone();
            assert!(report.reason().contains("no more threads"), "{backend:?}: {}", report.reason());
        }
        for backend in STREAMED {
            let error = error_of(stream(&loader(backend), &path), "no thread reads").to_string();
            assert!(error.contains("start a thread") && error.contains("ulimit -u"), "{backend:?}: {error}");
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
    run(&["--stream"]).assert_error(1, &["cannot start a thread", "ulimit -u"]);
}

#[test]
fn where_io_uring_is_forbidden_a_stream_goes_on_or_says_so() {
    let folder = folder();
    let expected = checkpoint(folder.path());
    let path = folder.path().join(VICTIM);
    apart(|| {
        forbid_io_uring_here();
        drop_cache(folder.path());
        for &backend in STREAMED.iter().filter(|&&backend| backend != Some(URING)) {
            assert_right(stream(&loader(backend), &path), &expected, &format!("stream by {backend:?}"));
        }
        let error = error_of(stream(&loader(Some(URING)), &path), "refused").to_string();
        assert!(
            ["uring", "EPERM", "seccomp", "let floodtide choose"].iter().all(|words| error.contains(words)),
            "{error}"
        );
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

/// First too little address space for anything, then enough for everything. (In between, the
/// allocator may abort for lack of memory beside the buffers.)
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
    in_process(module_path!(), "has little address space", folder.path(), |_| {});
}

/// In 192 MiB, with a checkpoint of 512 MiB in two tensors beside the small one.
fn is_in_a_control_group(folder: &Path) {
    let large = folder.join("large.safetensors");
    let refused = |result: Result<(), Error>, what: &str| {
        let message = result.err().unwrap_or_else(|| panic!("{what}: no error")).to_string();
        assert!(message.contains("cgroup") && message.contains("available"), "{what}: {message}");
    };
    for backend in LOADED {
        refused(loader(backend).load(&large).map(|_| ()), &format!("load by {backend:?}"));
    }
    for backend in STREAMED {
        let limited = loader(backend).stream_options(StreamOptions::new().memory_limit(1 << 30));
        let first = limited.stream(&large).expect("opens").next().expect("an error").map(|_| ());
        refused(first, &format!("stream by {backend:?}"));
        let parts = limited.stream(&large).expect("opens").for_each_part(|_, _, _| {}).map(|_| ());
        refused(parts, &format!("stream in parts by {backend:?}"));
        let mut seen = 0;
        let loader = loader(backend).stream_options(StreamOptions::new().memory_limit(64 << 20));
        loader.stream(&large).expect("opens").for_each_part(|_, _, bytes| seen += bytes.len()).expect("streams");
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
    in_process(module_path!(), "is in a control group", folder.path(), |program| group.confine(program));
    let run = |arguments: &[&str]| {
        let mut program = Command::new(command::path());
        program.arg("load").arg(&large).args(["--stream", "--json"]).args(arguments);
        group.confine(&mut program);
        command::finish(&mut program)
    };
    run(&["--memory-limit", "1GiB"]).assert_error(1, &["available", "cgroup"]);
    assert_eq!(run(&[]).json()["bytes"], whole);
}
