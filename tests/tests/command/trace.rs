//! Traces of loads, with the command and the library: each is valid JSON, has every read once, and
//! its spans nest.

use floodtide::Loader;
use floodtide::trace::TraceFile;
use floodtide_tests::checkpoint::{folder, raw};
use floodtide_tests::command;
use floodtide_tests::layout::drop_cache;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A shard's name that is hard to escape.
const EVIL: &str = "model-\"},{\n\\u{1b}<b>.safetensors";

/// Writes two shards of several reads each.
fn checkpoint(folder: &Path) -> PathBuf {
    for (name, tensor) in [("model-a.safetensors", "a"), (EVIL, "b")] {
        let bytes = 9_000_000;
        let json = format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
        fs::write(folder.join(name), raw(&json, &vec![7; bytes])).expect("writes");
    }
    folder.to_owned()
}

/// Returns the events of a trace, which must be one JSON document.
fn events(file: &Path) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&fs::read(file).expect("is there")).expect("JSON");
    document["traceEvents"].as_array().expect("an array").clone()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["name"] == name).collect()
}

/// Returns a span in nanoseconds, which the file has as microseconds with three decimals.
fn span(event: &Value) -> (u64, u64) {
    let nanos = |key: &str| (event[key].as_f64().expect("a number") * 1000.0).round() as u64;
    (nanos("ts"), nanos("ts") + nanos("dur"))
}

/// Asserts that the spans of one track nest or are disjoint.
fn assert_nested(events: &[Value]) {
    let mut tracks: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let number = |key: &str| event[key].as_u64().expect("a number");
        tracks.entry((number("pid"), number("tid"))).or_default().push(span(event));
    }
    for (track, mut spans) in tracks {
        spans.sort_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
        let mut open: Vec<u64> = Vec::new();
        for (start, end) in spans {
            while open.last().is_some_and(|&last| last <= start) {
                open.pop();
            }
            assert!(open.last().is_none_or(|&last| end <= last), "{track:?}: {start}..{end} in {open:?}");
            open.push(end);
        }
    }
}

/// Asserts what holds for the trace of every undisturbed load.
fn assert_whole(events: &[Value], what: &str) {
    assert_nested(events);
    let process = named(events, "process_name");
    assert_eq!(process.len(), 1, "{what}");
    for event in events {
        for key in ["name", "ph", "pid", "tid", "ts"] {
            assert!(event.get(key).is_some(), "{what}: {key} is not in {event}");
        }
    }
    let tracks: BTreeSet<u64> = named(events, "thread_name").iter().filter_map(|track| track["tid"].as_u64()).collect();
    let spans: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert!(spans.iter().all(|span| tracks.contains(&span["tid"].as_u64().expect("a number"))), "{what}");
    let phases: Vec<&str> =
        spans.iter().filter(|span| span["cat"] == "phase").filter_map(|s| s["name"].as_str()).collect();
    for phase in ["headers", "plan", "load", "settle"] {
        assert!(phases.contains(&phase), "{what}: {phases:?}");
    }
    let (start, end) = span(named(events, "load")[0]);
    let reads = named(events, "read").into_iter().chain(named(events, "populate"));
    for read in reads.clone() {
        let (from, to) = span(read);
        assert!(start <= from && to <= end, "{what}: {read} is outside of the phase");
        let file = read["args"]["file"].as_str().expect("a name");
        assert!(["model-a.safetensors", EVIL].contains(&file), "{what}: {file:?}");
    }
    let brought: u64 =
        reads.map(|read| read["args"].get("got").unwrap_or(&read["args"]["bytes"]).as_u64().expect("a number")).sum();
    let counted = named(events, "bytes loaded").into_iter().filter_map(|count| count["args"]["bytes"].as_u64()).max();
    assert_eq!(counted, Some(brought), "{what}");
    assert!(brought >= 18_000_000, "{what}: {brought}");
    let last = named(events, "reads in flight").pop().expect("is counted")["args"]["reads"].clone();
    assert_eq!(last, 0, "{what}: nothing is left in flight");
}

/// Asserts that each chunk occurs once, with the offset and the length of the plan.
fn assert_planned(events: &[Value], path: &Path, backend: &str) {
    let planned = match backend {
        "auto" => Loader::new(),
        name => Loader::new()
            .backend(*floodtide::backends().iter().find(|backend| backend.name() == name).expect("is known")),
    };
    let plan = planned.plan(path).expect("plans").plan;
    let mut chunks: Vec<(u64, u64)> = named(events, "read")
        .iter()
        .map(|read| {
            (read["args"]["chunk"].as_u64().expect("a number"), read["args"]["offset"].as_u64().expect("a number"))
        })
        .collect();
    chunks.sort_unstable();
    let expected: Vec<(u64, u64)> =
        plan.chunks().iter().enumerate().map(|(i, chunk)| (i as u64, chunk.offset)).collect();
    assert_eq!(chunks, expected, "{backend}");
}

#[test]
fn every_backend_has_each_read_once_and_its_spans_nest() {
    let folder = folder();
    let path = checkpoint(folder.path());
    let file = folder.path().join("trace.json");
    for backend in ["auto", "uring", "pread", "mmap", "tokio"] {
        // The file must be cold for the load and for the plan to compare with.
        drop_cache(&path);
        let load = command::run(
            ["load", "--backend", backend, "--json", "--trace"]
                .map(AsRef::as_ref)
                .into_iter()
                .chain([file.as_os_str(), path.as_os_str()]),
        );
        if load.code != 0 && load.stderr.contains("cannot be used here") {
            println!("skipped: {}", load.stderr);
            continue;
        }
        load.assert_ok();
        let events = events(&file);
        assert_whole(&events, backend);
        drop_cache(&path);
        assert_planned(&events, &path, backend);
        let reads = named(&events, "read");
        assert_eq!(named(&events, "populate").is_empty(), backend != "mmap");
        for read in &reads {
            let args = &read["args"];
            assert_eq!((&args["attempt"], &args["outcome"]), (&0.into(), &"read".into()), "{backend}: {read}");
            assert!(args["direct"].is_boolean() && args["worker"].is_u64(), "{read}");
            let micros = |key: &str| args[key].as_f64().expect("a number");
            let (from, to) = span(read);
            assert_eq!(((micros("queue_us") + micros("service_us")) * 1000.0).round() as u64, to - from, "{read}");
            assert!(backend != "pread" || micros("queue_us") == 0.0, "{read}");
        }
        let decided = named(&events, "decided");
        assert!(backend == "auto" || decided[0]["args"]["backend"] == backend, "{decided:?}");
    }
}

#[test]
fn a_stream_is_traced_too() {
    let folder = folder();
    let path = checkpoint(folder.path());
    let file = folder.path().join("trace.json");
    for backend in ["auto", "tokio"] {
        let arguments =
            ["load", "--stream", "--memory-limit", "4MiB", "--backend", backend, "--trace"].map(AsRef::as_ref);
        command::run(arguments.into_iter().chain([file.as_os_str(), path.as_os_str()])).assert_ok();
        assert_whole(&events(&file), backend);
    }
}

#[test]
fn loads_that_fail_or_are_given_up_leave_whole_files() {
    let folder = folder();
    let path = checkpoint(folder.path());
    let file = folder.path().join("trace.json");
    let missing = folder.path().join("missing.safetensors");
    let arguments =
        |path: &Path| ["load".into(), "--trace".into(), file.clone().into_os_string(), path.as_os_str().to_owned()];
    command::run(arguments(&missing)).assert_error(1, &["missing.safetensors"]);
    assert!(named(&events(&file), "read").is_empty());

    let trace = TraceFile::create(&file).expect("is a trace");
    let loader = Loader::new().trace(trace.clone());
    let loads: Vec<_> = (0..4).map(|_| loader.start(&path).expect("starts")).collect();
    loads.into_iter().for_each(floodtide::Load::cancel);
    drop((trace, loader));
    let events = events(&file);
    assert_nested(&events);
    let loads: BTreeSet<u64> = named(&events, "load").iter().filter_map(|event| event["pid"].as_u64()).collect();
    assert_eq!(loads.len(), 4, "the phase of each ends, in a process of its own");
}

#[test]
fn a_trace_that_cannot_be_written_stops_the_load_before_it_begins() {
    let folder = folder();
    let path = checkpoint(folder.path());
    let run = |file: &Path| command::run(["load".as_ref(), "--trace".as_ref(), file.as_os_str(), path.as_os_str()]);
    run(&folder.path().join("no/such/folder")).assert_error(1, &["no/such/folder", "write the trace"]);
    let shard = path.join("model-a.safetensors");
    let before = fs::metadata(&shard).expect("is there").len();
    run(&shard).assert_error(2, &["model-a.safetensors", "not a trace"]);
    assert_eq!(fs::metadata(&shard).expect("is there").len(), before);
    let full = run(Path::new("/dev/full"));
    assert!(full.code == 1 && full.stdout.contains("loaded") && full.stderr.contains("/dev/full"), "{full:?}");
}

#[test]
fn a_pipe_that_nobody_reads_does_not_keep_an_interrupted_load() {
    let folder = folder();
    let path = checkpoint(folder.path());
    let pipe = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).expect("makes");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let reader = rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty()).expect("opens");
    // SAFETY: takes a number, and touches no memory.
    let room = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(room > 0, "{}", std::io::Error::last_os_error());
    for signals in [1, 2] {
        let mut load = Command::new(command::path());
        // Enough reads that the trace is longer than the pipe.
        load.args(["load", "--stream", "--memory-limit", "1MiB", "--trace"]).arg(&pipe).arg(&path);
        let mut child = load.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        let started = Instant::now();
        while rustix::io::ioctl_fionread(&reader).expect("tells") < room as u64 {
            assert!(started.elapsed() < Duration::from_secs(60), "the pipe is not filled");
            std::thread::sleep(Duration::from_millis(1));
        }
        let id = rustix::process::Pid::from_child(&child);
        let interrupted = Instant::now();
        for _ in 0..signals {
            rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("is there");
            // Pending signals of one kind count as one.
            std::thread::sleep(Duration::from_millis(300));
        }
        let status = loop {
            if let Some(status) = child.try_wait().expect("waits") {
                break status;
            }
            if interrupted.elapsed() > Duration::from_secs(30) {
                child.kill().expect("kills");
                panic!("{signals} signals did not end it");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(status.code(), Some(130));
        assert!(signals == 1 || interrupted.elapsed() < Duration::from_secs(2), "the second one ends it at once");
        // Empty the pipe for the next one.
        let mut taken = [0; 4096];
        rustix::io::read(&reader, &mut taken).expect("reads");
    }
}

#[test]
fn an_interrupted_load_leaves_a_whole_file() {
    let folder = folder();
    // The signal may arrive before, during or after the load; the file is complete in any case.
    let path = checkpoint(folder.path());
    let file = folder.path().join("trace.json");
    for delay in [0, 5, 10, 20] {
        drop_cache(&path);
        let mut load = Command::new(command::path());
        let mut load = load.args(["load", "--trace"]).arg(&file).arg(&path);
        load = load.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = load.spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(delay));
        let id = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let status = child.wait().expect("ends");
        // It was killed before it installed the handler.
        if status.code().is_some() && file.exists() {
            assert_nested(&events(&file));
        }
    }
}
