//! `floodtide bench`, with checkpoints that are small enough to be quick.

use floodtide_tests::checkpoint::{folder, reshard, small, sparse};
use floodtide_tests::command::{self, Run};
use floodtide_tests::sandbox::{MemoryGroup, SmallDisk};
use serde_json::Value;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

const SUBJECTS: [&str; 7] = ["uring", "pread", "mmap", "tokio", "auto", "std::fs::read", "plain mmap"];

/// Writes two shards into a folder whose name must be escaped in every output.
fn shards(folder: &Path) -> PathBuf {
    let file = folder.join("whole.safetensors");
    small(&file);
    let shards = folder.join("a<b>&\"\u{1b}[31m");
    fs::create_dir(&shards).expect("makes");
    reshard(&file, &shards, 2);
    shards
}

fn bench(path: &Path, more: &[&str]) -> Run {
    let fixed = ["bench".as_ref(), path.as_os_str()];
    command::run(fixed.into_iter().chain(more.iter().map(|argument| argument.as_ref())))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

#[test]
fn every_way_is_measured_cold_and_warm_and_all_agree() {
    let folder = folder();
    let path = shards(folder.path());
    for more in [&["--json", "--runs", "2"][..], &["--json", "--runs", "2", "--cold"]] {
        let run = bench(&path, more);
        let json = run.json();
        assert_eq!((&json["agree"], &json["runs"], &json["files"]), (&true.into(), &2.into(), &2.into()), "{json}");
        assert_eq!(json["cold"], more.contains(&"--cold"));
        let subjects = json["subjects"].as_array().expect("an array");
        assert_eq!(
            subjects.iter().map(|subject| subject["name"].as_str().expect("a name")).collect::<Vec<_>>(),
            SUBJECTS
        );
        let measured = subjects.iter().filter(|subject| subject.get("error").is_none());
        for subject in measured.clone().chain([&json["roofline"]]) {
            let seconds = ["min_seconds", "seconds", "max_seconds"].map(|key| number(subject, key));
            assert!(seconds.is_sorted() && seconds[0] > 0.0, "{subject}");
            let rates = ["min_gib_per_second", "gib_per_second", "max_gib_per_second"].map(|key| number(subject, key));
            assert!(rates.is_sorted(), "{subject}");
            assert!(number(subject, "cpu_seconds") >= 0.0 && number(subject, "peak_rss_bytes") > 1e6, "{subject}");
        }
        assert!(measured.clone().count() >= SUBJECTS.len() - 1, "all but io_uring are everywhere: {json}");
        assert!(measured.clone().all(|subject| number(subject, "of_roofline") > 0.0));
        let machine = ["cpu", "kernel", "file_system"].map(|key| json["machine"][key].as_str().expect("a string"));
        assert!(machine.iter().all(|words| !words.is_empty()), "{json}");
        // Pages that stay in the page cache are reported.
        let disturbed = json["disturbed_share"].as_f64();
        assert_eq!(disturbed.is_none_or(|share| share >= 0.01), run.stderr.contains("warning"), "{run:?}");
    }
}

#[test]
fn results_for_people_and_the_figure_show_names_escaped() {
    let folder = folder();
    let path = shards(folder.path());
    let figure = folder.path().join("figure.svg");
    let run = bench(&path, &["--cold", "--runs", "1", "--plot", figure.to_str().expect("UTF-8")]);
    let text = run.assert_ok();
    for word in SUBJECTS.into_iter().chain(["roofline", "min to max", "CPU time", "peak memory", "agree", "auto chose"])
    {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let svg = fs::read_to_string(&figure).expect("is drawn");
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("a&lt;b&gt;&amp;&quot;") && !svg.contains('\u{1b}') && !text.contains('\u{1b}'), "{svg}");
    for word in ["std::fs::read", "roofline", "Linux", "GiB/s", "prefers-color-scheme"] {
        assert!(svg.contains(word), "{word} is not in {svg}");
    }
    assert!(!svg.contains("<script") && !svg.contains("@import") && !svg.contains("href"), "{svg}");
}

#[test]
fn backends_are_chosen_and_plain_ways_stay() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let json = bench(&path, &["--backends", "auto,pread", "--runs", "1", "--json"]).json();
    let names: Vec<&str> =
        json["subjects"].as_array().expect("an array").iter().filter_map(|subject| subject["name"].as_str()).collect();
    assert_eq!(names, ["pread", "auto", "std::fs::read", "plain mmap"]);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_measured() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let figure = folder.path().join("figure.svg");
    let plot = ["--plot", figure.to_str().expect("UTF-8")];
    bench(&folder.path().join("missing.safetensors"), &plot).assert_error(1, &["missing.safetensors"]);
    assert!(!figure.exists(), "nothing was drawn");
    bench(&path, &["--plot", path.to_str().expect("UTF-8")]).assert_error(2, &["must end in .svg"]);
    bench(&path, &["--plot", "no/such/folder/figure.svg"]).assert_error(1, &["no/such/folder", "figure"]);
    for wrong in [&["--runs", "0"][..], &["--backends", "teleport"]] {
        let run = bench(&path, wrong);
        assert!(run.code == 2 && run.stdout.is_empty(), "{run:#?}");
    }
    assert!(!command::run(["--help"]).assert_ok().contains("bench-one"), "is no command of its own");
}

#[test]
fn the_roofline_of_a_small_cold_file_goes_past_the_page_cache_too() {
    let folder = folder();
    let path = sparse(folder.path(), 3 << 20);
    let planned =
        command::run(["plan".as_ref(), "--json".as_ref(), "--backend=pread".as_ref(), path.as_os_str()]).json();
    let json = bench(&path, &["--cold", "--runs", "1", "--json"]).json();
    assert_eq!(json["roofline"]["direct"], planned["files"][0]["direct_reads"] != 0, "{json}");
}

#[test]
fn results_are_told_although_their_figure_cannot_be_written() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let disk = match SmallDisk::new(64 << 10) {
        Ok(disk) => disk,
        Err(error) => return println!("skipped: nothing can be mounted here ({error})"),
    };
    fs::write(disk.path().join("full"), vec![0; 64 << 10]).expect("fills");
    let figure = disk.path().join("figure.svg");
    let run = bench(&path, &["--runs", "1", "--plot", figure.to_str().expect("UTF-8")]);
    assert!(run.code == 1 && run.stderr.contains("cannot write the figure"), "{run:?}");
    assert!(run.stdout.contains("of roofline") && run.stdout.contains("auto chose"), "{run:?}");
    assert!(!figure.exists(), "half a figure is none");
}

#[test]
fn a_checkpoint_that_changes_meanwhile_has_no_results() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Repeat, because the program may not have examined it yet.
        let change = || {
            let file = fs::File::options().write(true).open(&path).expect("opens");
            for second in 0.. {
                std::thread::sleep(Duration::from_millis(300));
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).expect("sets");
            }
        };
        scope.spawn(change);
        let run = bench(&path, &["--runs", "1000"]);
        ended.store(true, Ordering::Relaxed);
        assert!(run.code == 1 && run.stdout.is_empty() && run.stderr.contains("has changed"), "{run:?}");
    });
}

#[test]
fn ways_that_need_no_memory_are_measured_where_it_is_short_and_names_that_are_no_text_are_refused() {
    let folder = folder();
    let path = sparse(folder.path(), 512 << 20);
    let group = match MemoryGroup::new(256 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    let mut program = Command::new(command::path());
    program.args(["bench", "--runs", "1", "--json", "--backends", "pread"]).arg(&path);
    group.confine(&mut program);
    let json = command::finish(&mut program).json();
    let subjects = json["subjects"].as_array().expect("an array");
    let [pread, mapped] =
        ["pread", "plain mmap"].map(|name| subjects.iter().find(|subject| subject["name"] == name).expect("is there"));
    assert!(pread["error"].as_str().is_some_and(|why| why.contains("512.0 MiB")), "{json}");
    assert!(number(mapped, "seconds") > 0.0 && number(&json, "bytes") == f64::from(512 << 20), "{json}");
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xff.safetensors"));
    small(&odd);
    bench(&odd, &["--runs", "1"]).assert_error(1, &["not UTF-8", "link"]);
}
