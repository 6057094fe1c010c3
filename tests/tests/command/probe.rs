//! `floodtide probe` measures a device, leaves nothing behind, and later loads use the stored
//! profile.

use floodtide_tests::checkpoint::{folder, sparse};
use floodtide_tests::command::{self, Run};
use floodtide_tests::sandbox::MemoryGroup;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn run(cache: &Path, verb: &[&str], path: &Path) -> Run {
    let mut program = Command::new(command::path());
    program.args(verb).arg(path).env("XDG_CACHE_HOME", cache);
    command::finish(&mut program)
}

/// Makes the next load read from the device again.
fn leave_the_cache(path: &Path) {
    let file = fs::File::open(path).expect("opens");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advises");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("lists");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// Measures a folder, or returns why it cannot.
fn measure(cache: &Path, folder: &Path, more: &[&str]) -> Option<Value> {
    let measured = run(cache, &[&["probe", "--json", "--seconds", "1"], more].concat(), folder);
    if measured.code == 1 && ["is in memory", "free;", "available;"].iter().any(|words| measured.stderr.contains(words))
    {
        println!("skipped: {}", measured.stderr);
        return None;
    }
    Some(measured.json())
}

#[test]
fn a_measurement_has_every_way_and_leaves_nothing_behind() {
    let (folder, cache) = (folder(), folder());
    let Some(document) = measure(cache.path(), folder.path(), &[]) else { return };
    assert!(names(folder.path()).is_empty());
    assert!(names(cache.path()).is_empty(), "nothing is stored unasked");
    assert!(document["read"].as_str().expect("text").contains("temporary"));
    let (cells, refused) =
        (document["cells"].as_array().expect("cells"), document["refused"].as_array().expect("ways"));
    for (engine, direct) in [("uring", true), ("threads", true), ("uring", false), ("threads", false)] {
        let way = |entry: &&Value| entry["engine"] == engine && entry["direct"] == direct;
        assert!(
            cells.iter().any(|cell| way(&cell)) != refused.iter().any(|refused| way(&refused)),
            "{engine} {direct}"
        );
    }
    for cell in cells {
        let rate = &cell["bytes_per_second"];
        let [min, median, max] = ["min", "median", "max"].map(|key| rate[key].as_f64().expect("a number"));
        assert!(min > 0.0 && min <= median && median <= max, "{cell}");
    }
    assert!(document["memory"]["copy_to_huge_pages"]["median"].as_f64().expect("a number") > 0.0);
    assert!(document["memory"]["fault_huge_pages"]["median"].as_f64().expect("a number") > 0.0);
    assert_eq!((&document["stored"], &document["store_error"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_measurement_bears_a_small_control_group() {
    let (folder, cache) = (folder(), folder());
    let group = match MemoryGroup::new(32 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    let mut program = Command::new(command::path());
    program.args(["probe", "--json", "--seconds", "1"]).arg(folder.path()).env("XDG_CACHE_HOME", cache.path());
    group.confine(&mut program);
    let measured = command::finish(&mut program);
    if measured.code == 1 {
        return println!("skipped: {}", measured.stderr);
    }
    let document = measured.json();
    assert!(!document["cells"].as_array().expect("cells").is_empty(), "{document}");
    assert!(document["memory"]["fault_huge_pages"]["median"].as_f64().expect("a number") > 0.0, "{document}");
}

#[test]
fn loads_take_what_is_stored_say_so_and_ignore_what_is_broken() {
    let (folder, cache) = (folder(), folder());
    let path = sparse(folder.path(), 1 << 30);
    let plain = run(cache.path(), &["plan", "--json"], &path).json();
    let Some(document) = measure(cache.path(), folder.path(), &["--store"]) else { return };
    let Some(stored) = document["stored"].as_str() else { return println!("skipped: the device has no identity") };
    if plain["files"][0]["direct_reads"] == 0 {
        return println!("skipped: there are no direct reads here");
    }
    // The measured values depend on the machine, but the decisions must not.
    let mut profile: Value = serde_json::from_str(&fs::read_to_string(stored).expect("reads")).expect("JSON");
    assert_eq!(profile["version"], 1);
    assert!(!profile["reads"].as_array().expect("a list").is_empty());
    let reads = [(true, true), (true, false), (false, true), (false, false)].map(|(ring, direct)| {
        let rate = if direct { 3_000_000_000_u64 } else { 1_000_000_000 };
        serde_json::json!({"ring": ring, "direct": direct, "chunk_bytes": 1 << 20, "in_flight": 20, "bytes_per_second": rate})
    });
    profile["reads"] = reads.to_vec().into();
    let write = |profile: &Value| fs::write(stored, profile.to_string()).expect("writes");
    write(&profile);
    let planned = run(cache.path(), &["plan", "--json"], &path).json();
    let reason = planned["reason"].as_str().expect("text");
    let measured = "reads of 1.0 MiB, 20 in flight gave 2.7 GiB/s, the best: this load starts with ";
    assert!(reason.contains("by the profile of ") && reason.contains(measured), "{reason}");
    let number = |key: &str| planned[key].as_u64().expect("a number");
    assert_eq!(number("chunk_bytes"), 1 << 20);
    assert!((20..=20 + number("workers")).contains(&(number("workers") * number("depth"))), "{planned}");
    let loaded = run(cache.path(), &["load", "--json", "--select", "t"], &path);
    assert!(loaded.json()["reason"].as_str().expect("text").contains("by the profile of "), "{loaded:?}");

    // A load whose direct reads are slower than profiled tries the page cache.
    for reads in profile["reads"].as_array_mut().expect("a list") {
        reads["bytes_per_second"] = if reads["direct"] == true { 1_000_000_000_000_000_u64 } else { 1 }.into();
    }
    write(&profile);
    leave_the_cache(&path);
    let trace = folder.path().join("trace.json");
    let trace = trace.to_str().expect("text");
    let loaded = run(cache.path(), &["load", "--json", "--trace", trace], &path).json();
    let reason = loaded["reason"].as_str().expect("text");
    assert!(
        reason.contains("; direct reads reached ") && reason.contains("through the page cache reached "),
        "{reason}"
    );
    let traced = fs::read_to_string(trace).expect("reads");
    assert!(
        traced.contains(r#""name":"direct I/O fallback""#) && traced.contains(r#""name":"target reads in flight""#),
        "{reason}"
    );
    leave_the_cache(&path);
    let ring = run(cache.path(), &["load", "--json", "--backend", "uring"], &path);
    assert!(!ring.stdout.contains("direct reads brought"), "the ring was asked for: {ring:?}");

    leave_the_cache(&path);
    for reads in profile["reads"].as_array_mut().expect("a list") {
        reads["bytes_per_second"] = if reads["direct"] == true { 1_000_000_000_u64 } else { 3_000_000_000 }.into();
    }
    write(&profile);
    let buffered = run(cache.path(), &["plan", "--json"], &path).json();
    let reason = buffered["reason"].as_str().expect("text");
    assert!(
        reason.contains("reads faster through the page cache") && buffered["files"][0]["direct_reads"] == 0,
        "{reason}"
    );

    for (text, words) in [("{\"version\": 2}", "version 2"), ("no JSON", "not a stored profile")] {
        fs::write(stored, text).expect("writes");
        let ignored = run(cache.path(), &["plan", "--json"], &path);
        assert!(ignored.stderr.starts_with("warning: ") && ignored.stderr.contains(words), "{ignored:?}");
        let ignored = ignored.json();
        assert_eq!((&ignored["chunk_bytes"], &ignored["reason"]), (&plain["chunk_bytes"], &plain["reason"]));
    }
}

#[test]
fn a_load_needs_no_home() {
    let folder = folder();
    let path = sparse(folder.path(), 1 << 30);
    for (name, value) in
        [("HOME", None), ("XDG_CACHE_HOME", Some("/dev/null")), ("XDG_CACHE_HOME", Some("not/absolute"))]
    {
        let mut program = Command::new(command::path());
        program.args(["plan", "--json"]).arg(&path).env_clear().env_remove("XDG_CACHE_HOME");
        value.map(|value| program.env(name, value));
        let run = command::finish(&mut program);
        assert_eq!(run.stderr, "", "{name} {value:?}");
        run.json();
    }
    let mut program = Command::new(command::path());
    program.args(["probe", "--store", "--seconds", "1"]).arg(folder.path()).env_clear().env_remove("XDG_CACHE_HOME");
    let run = command::finish(&mut program);
    if !run.stderr.contains("is memory") {
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("error: the profile was not stored") && !run.stdout.is_empty(), "{run:?}");
        if run.stdout.contains("no profile of it can be kept") {
            return println!("skipped: the device has no identity");
        }
        let run = self::run(Path::new("/dev/null/\u{1b}"), &["probe", "--store", "--seconds", "1"], folder.path());
        let words = ["reading for ", r"not stored: /dev/null/\u{1b}/floodtide: ", "set XDG_CACHE_HOME"];
        assert!(run.code == 1 && words.iter().all(|word| run.stderr.contains(word)), "{run:?}");
    }
    // The parent of the folder is a file.
    let place = folder.path().join("a\u{1b}file");
    fs::write(&place, "").expect("writes");
    let run = self::run(&place, &["probe", "--store", "--seconds", "1"], folder.path());
    if !run.stderr.contains("is memory") {
        assert!(run.code == 1 && run.stderr.contains(r"a\u{1b}file/floodtide: "), "{run:?}");
        assert!(run.stderr.contains("XDG_CACHE_HOME"), "{run:?}");
    }
}

#[test]
fn an_interrupted_measurement_leaves_nothing_behind() {
    let folder = folder();
    let mut program = Command::new(command::path());
    program.args(["probe", "--seconds", "60"]).arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = program.spawn().expect("starts");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) && child.try_wait().expect("waits").is_none() {
        // The temporary file has no name, so that even a kill leaves nothing behind.
        assert!(names(folder.path()).is_empty());
        std::thread::sleep(Duration::from_millis(20));
    }
    if child.try_wait().expect("waits").is_none() {
        kill_process(Pid::from_child(&child), Signal::INT).expect("signals");
    }
    child.wait().expect("ends");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let folder = folder();
    let missing = folder.path().join("missing\u{1b}");
    command::run(["probe".as_ref(), missing.as_os_str()])
        .assert_error(1, &[r"missing\u{1b}", "cannot open the folder"]);
    let file = folder.path().join("file");
    fs::write(&file, "text").expect("writes");
    // The argument is at fault.
    command::run(["probe".as_ref(), file.as_os_str()]).assert_error(2, &["expected a folder"]);
    for seconds in ["0", "601", "x"] {
        assert_eq!(command::run(["probe", "/", "--seconds", seconds]).code, 2);
    }
}
