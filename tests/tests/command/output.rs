//! The output of the commands: JSON with the documented fields, and digests that the reference
//! library confirms.

use floodtide_tests::checkpoint::{folder, reference_digest, reshard, small};
use floodtide_tests::command;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const BACKENDS: [&str; 5] = ["auto", "uring", "pread", "mmap", "tokio"];

fn run(verb: &str, path: &Path, more: &[&str]) -> command::Run {
    let fixed = [verb.as_ref(), path.as_os_str()];
    command::run(fixed.into_iter().chain(more.iter().map(|argument| argument.as_ref())))
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn digests_agree_with_the_reference_for_one_file_and_for_shards() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let expected = reference_digest(&path);
    assert!(expected.contains(r"evil\n\u{1b}[31mname"));
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("makes");
    reshard(&path, &shards, 3);
    for backend in BACKENDS {
        for path in [&path, &shards, &shards.join("model.safetensors.index.json")] {
            assert_eq!(
                run("digest", path, &["--backend", backend]).assert_ok(),
                expected,
                "{backend} of {}",
                path.display()
            );
        }
    }
    fs::remove_file(shards.join("model.safetensors.index.json")).expect("removes");
    assert_eq!(run("digest", &shards, &[]).assert_ok(), expected, "without an index");
    let json = run("digest", &path, &["--json"]).json();
    assert_eq!(json["tensors"][0]["name"], "empty");
    assert_eq!(json["tensors"][1]["name"], "evil\n\u{1b}[31mname");
}

#[test]
fn load_reports_in_json_and_for_people() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    for backend in BACKENDS {
        let report = run("load", &path, &["--json", "--backend", backend]).json();
        for key in [
            "path",
            "format",
            "files",
            "tensors",
            "bytes",
            "read_bytes",
            "seconds",
            "gib_per_second",
            "backend",
            "reason",
            "decisions",
            "peak_rss_bytes",
        ] {
            assert!(report.get(key).is_some(), "{key} is not in {report}");
        }
        assert_eq!((&report["files"], &report["tensors"]), (&1.into(), &5.into()));
        assert!(backend == "auto" || report["backend"] == backend);
        let decisions = report["decisions"].as_array().expect("a list");
        let why: Vec<&str> = decisions.iter().map(|decision| decision["why"].as_str().expect("text")).collect();
        assert_eq!(report["reason"], why.join("; "), "{report}");
        assert!(decisions.iter().all(|decision| decision["what"].as_str().is_some_and(|what| !what.is_empty())));
    }
    let text = run("load", &path, &["--mlock", "--threads", "2"]);
    for word in ["5 tensors", "1 file", "GiB/s", "backend", "peak memory", "locked"] {
        assert!(text.assert_ok().contains(word), "{text:?}");
    }
    let time = text.stdout.lines().find_map(|line| line.strip_prefix("time ")).expect("a time").trim();
    let (number, unit) = time.split_once(',').and_then(|(time, _)| time.split_once(' ')).expect("a number and a unit");
    assert!(number.parse::<f64>().is_ok_and(|number| number > 0.0) && ["µs", "ms", "s"].contains(&unit), "{time}");
    let part = run("load", &path, &["--json", "--select", "layer.*", "--select", "sc?le"]).json();
    assert_eq!(part["tensors"], 3);
}

#[test]
fn a_stream_is_reported_with_its_limit_and_order() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let report = run("load", &path, &["--stream", "--memory-limit", "2MiB", "--order", "file", "--json"]).json();
    assert_eq!(report["stream"], serde_json::json!({"memory_limit": 2 << 20, "order": "file"}));
    assert_eq!((&report["tensors"], &report["files"]), (&5.into(), &1.into()));
    let load = run("load", &path, &["--stream", "--select", "scale", "--select", "layer.*", "--order", "selection"]);
    let text = load.assert_ok();
    assert!(text.starts_with("streamed ") && text.contains("3 tensors") && text.contains("order selection"), "{text}");
    assert!(!run("load", &path, &["--json"]).json().as_object().expect("an object").contains_key("stream"));
    run("load", &path, &["--stream", "--memory-limit", "1000"]).assert_error(2, &["1000 bytes", "at least 1048576"]);
    run("load", &path, &["--stream", "--backend", "mmap"]).assert_error(2, &["mmap", "stream"]);
    for (wrong, words) in [
        (&["--memory-limit", "2MiB"][..], "--stream"),
        (&["--order", "file"], "--stream"),
        (&["--stream", "--memory-limit", "much"], "512MiB"),
        (&["--stream", "--memory-limit=-1"], "512MiB"),
        (&["--stream", "--memory-limit", "99999999TB"], "less than 8 EiB"),
    ] {
        let run = run("load", &path, wrong);
        assert!(run.code == 2 && run.stdout.is_empty() && run.stderr.contains(words), "{run:#?}");
    }
}

#[test]
fn inspect_lists_what_the_reference_reads() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let json = run("inspect", &path, &["--json"]).json();
    assert_eq!(keys(&json), ["files", "format", "metadata", "tensors"]);
    assert_eq!(keys(&json["files"][0]), ["bytes", "path"]);
    let file = fs::read(&path).expect("reads");
    let reference = safetensors::SafeTensors::deserialize(&file).expect("valid");
    let tensors = json["tensors"].as_array().expect("an array");
    assert_eq!(tensors.len(), reference.len());
    for tensor in tensors {
        assert_eq!(keys(tensor), ["bytes", "dtype", "file", "name", "offset", "shape"]);
        let view = reference.tensor(tensor["name"].as_str().expect("a string")).expect("is there");
        let number = |key: &str| tensor[key].as_u64().expect("a number") as usize;
        assert_eq!(&file[number("offset")..number("offset") + number("bytes")], view.data());
        assert_eq!(tensor["shape"], serde_json::json!(view.shape()));
        assert_eq!(tensor["dtype"], format!("{:?}", view.dtype()));
        assert_eq!(tensor["file"], json["files"][0]["path"]);
    }
    let table = run("inspect", &path, &[]);
    for word in ["layer.weight", "[16, 8]", "BF16", r"evil\n\u{1b}[31mname", "5 tensors"] {
        assert!(table.assert_ok().contains(word), "{word} is not in {}", table.stdout);
    }
    assert!(!table.stdout.contains('\u{1b}'), "control characters are escaped");
}

#[test]
fn plan_says_what_and_why_without_reading_tensors() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let json = run("plan", &path, &["--json"]).json();
    for key in [
        "backend",
        "reason",
        "decisions",
        "workers",
        "chunk_bytes",
        "reads",
        "arena_bytes",
        "selected_bytes",
        "read_bytes",
        "sliced_tensors",
        "gathered_reads",
        "files",
        "memory_available",
    ] {
        assert!(json.get(key).is_some(), "{key} is not in {json}");
    }
    assert_eq!(json["selected_bytes"], 512 + 16 + 8 + 3);
    assert_eq!(json["files"][0]["buffered_bytes"], json["read_bytes"]);
    let small = run("plan", &path, &[]);
    let words = ["not checked", "read through the page cache", "contiguous in the file", "available ("];
    assert!(words.iter().all(|word| small.assert_ok().contains(word)), "{small:?}");
    let mapped = run("plan", &path, &["--backend", "mmap", "--select", "layer.weight"]);
    // The lines below `backend` are its decisions.
    let lines = mapped.assert_ok().lines().filter(|line| !line.starts_with("         "));
    let rows: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        rows,
        ["backend", "workers", "tensors", "mapped", "memory", "size", rows[6]],
        "no reads and runs of none"
    );
    assert!(mapped.stdout.contains("512 B, as views of the page cache"), "{mapped:#?}");
    assert!(command::run(["plan", "--help"]).assert_ok().contains("without --stream"), "a stream is planned otherwise");
}

#[test]
fn a_total_size_that_disagrees_is_a_warning() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("makes");
    reshard(&path, &shards, 2);
    let index = shards.join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).expect("reads").replace("\"total_size\":539", "\"total_size\":540");
    fs::write(&index, &text).expect("writes");
    let loaded = run("load", &shards, &["--json"]);
    assert!(
        loaded.stderr.starts_with("warning: ") && loaded.stderr.contains("540") && loaded.stderr.contains("539"),
        "{loaded:?}"
    );
    assert_eq!(loaded.json()["warnings"].as_array().map(Vec::len), Some(1));
    // Of a fraction of zero it is the number before it, and the warning cannot act on a terminal.
    let text = text.replace("\"total_size\":540", "\"total_size\":541.0");
    let hostile = folder.path().join("\u{1b}[2J");
    fs::rename(&shards, &hostile).expect("renames");
    fs::write(hostile.join("model.safetensors.index.json"), text).expect("writes");
    let loaded = run("load", &hostile, &["--json"]);
    assert!(loaded.stderr.contains("541") && loaded.stderr.contains(r"\u{1b}[2J"), "{loaded:?}");
    assert!(!loaded.stderr.contains('\u{1b}'), "{loaded:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    let path = floodtide_tests::checkpoint::many(&folder.path().join("many.safetensors"), 20_000);
    let mut child = Command::new(command::path())
        .args(["inspect".as_ref(), path.as_os_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("reads");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_stderr_that_takes_nothing_changes_no_exit_code() {
    let folder = folder();
    let path = folder.path().join("missing.safetensors");
    for (verb, code) in [("load", 1), ("inspect", 1), ("demo --keep . --scale 0.01", 2)] {
        // In a folder that is not empty, so that the demo fails.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!(r#"exec "$0" {verb} "$1" 2>/dev/full"#)).arg(command::path());
        let path = if verb.starts_with("demo") { "--json".as_ref() } else { path.as_os_str() };
        let run = command::finish(shell.arg(path).current_dir(env!("CARGO_MANIFEST_DIR")));
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{verb}: {run:?}");
    }
}

#[test]
fn the_demo_keeps_its_checkpoint_under_a_path_alone() {
    let folder = folder();
    let uri = format!("file://{}/gpt2", folder.path().display());
    let mut demo = Command::new(command::path());
    demo.current_dir(&folder).args(["demo", "--scale", "0.01", "--keep", &uri]);
    command::finish(&mut demo).assert_error(2, &["--keep", "path", "URI"]);
    assert_eq!(fs::read_dir(&folder).expect("lists").count(), 0, "nothing was written");
}

#[test]
fn the_demo_compares_every_way_and_cleans_up() {
    let folder = folder();
    let kept = folder.path().join("kept");
    let kept_path = kept.to_str().expect("UTF-8");
    let text = command::run(["demo", "--scale", "0.02", "--keep", kept_path]);
    for word in ["uring", "pread", "mmap", "tokio", "auto", "std::fs::read", "auto chose", "agree"] {
        assert!(text.assert_ok().contains(word), "{text:?}");
    }
    assert!(kept.join("model.safetensors.index.json").exists());
    run("load", &kept, &[]).assert_ok();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).expect("makes");
    let mut demo = Command::new(command::path());
    demo.args(["demo", "--scale", "0.02", "--json"]).env("TMPDIR", &scratch);
    let json = command::finish(&mut demo).json();
    assert_eq!(json["subjects"].as_array().map(Vec::len), Some(7));
    assert_eq!(fs::read_dir(&scratch).expect("lists").count(), 0, "the demo removes what it wrote");
}
