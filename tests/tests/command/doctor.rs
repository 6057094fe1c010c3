//! `floodtide doctor` detects each refusal by trying, and reports it with its remedy.

use floodtide_tests::checkpoint::{folder, raw, small};
use floodtide_tests::command;
use floodtide_tests::sandbox::{
    MemoryGroup, forbid_huge_pages, forbid_io_uring, forbid_resource_limits, forbid_use_of_rings, limit_address_space,
    limit_data, limit_locked_memory, limit_open_files, limit_processors,
};
use serde_json::Value;
use std::fs;
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const CHECKS: [&str; 12] = [
    "kernel",
    "io_uring",
    "file system",
    "direct reads",
    "page cache",
    "device profile",
    "huge pages",
    "memory",
    "locked memory",
    "open files",
    "processors",
    "NUMA",
];

fn examine(path: &Path, prepare: impl FnOnce(&mut Command)) -> Value {
    let mut program = Command::new(command::path());
    program.args(["doctor", "--json"]).arg(path);
    prepare(&mut program);
    let run = command::finish(&mut program);
    assert_eq!(run.stderr, "");
    run.json()
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let checks = document["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["check"] == name).expect("every check is there")
}

fn text<'a>(check: &'a Value, key: &str) -> &'a str {
    check[key].as_str().unwrap_or_else(|| panic!("{key} of {check}"))
}

#[test]
fn every_check_is_in_the_json_and_in_the_text() {
    let folder = folder();
    small(&folder.path().join("model.safetensors"));
    let document = examine(folder.path(), |_| {});
    let names: Vec<&str> = document["checks"].as_array().expect("a list").iter().map(|c| text(c, "check")).collect();
    assert_eq!(names, CHECKS);
    let counted = ["good", "limited", "missing"].map(|status| document[status].as_u64().expect("a number"));
    assert_eq!(counted.iter().sum::<u64>(), 12);
    for check in document["checks"].as_array().expect("a list") {
        assert!(["good", "limited", "missing"].contains(&text(check, "status")));
        assert!(!text(check, "found").is_empty() && !text(check, "meaning").is_empty());
    }
    let run = command::run(["doctor".as_ref(), folder.path().as_os_str()]);
    let printed = run.assert_ok();
    assert!(CHECKS.iter().all(|name| printed.contains(name)), "{printed}");
    assert!(printed.trim_end().ends_with("missing"), "{printed}");
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "nothing is left behind");
}

#[test]
fn a_filter_against_io_uring_is_found_behind_a_sysctl_that_allows_it() {
    let folder = folder();
    let document = examine(folder.path(), forbid_io_uring);
    let check = check(&document, "io_uring");
    assert_eq!(text(check, "status"), "missing");
    assert!(text(check, "found").contains("EPERM"));
    assert!(text(check, "cost").contains("benches/RESULTS.md"));
    if text(check, "found").contains("kernel.io_uring_disabled: 0") {
        assert!(text(check, "remedy").contains("seccomp"));
    }
}

#[test]
fn a_filter_that_lets_rings_be_made_but_not_used_is_found() {
    let folder = folder();
    let document = examine(folder.path(), forbid_use_of_rings);
    let check = check(&document, "io_uring");
    assert_eq!(text(check, "status"), "missing");
    let words = ["io_uring_enter: EPERM", "io_uring_setup"];
    assert!(words.iter().any(|words| text(check, "found").contains(words)), "{check}");
}

#[test]
fn limits_of_locked_memory_and_open_files_are_found() {
    let folder = folder();
    let document = examine(folder.path(), |program| limit_locked_memory(program, 0));
    let none = check(&document, "locked memory");
    assert_eq!(text(none, "status"), "missing");
    assert!(text(none, "remedy").contains("ulimit -l"));
    let document = examine(folder.path(), |program| limit_locked_memory(program, 1 << 20));
    let some = check(&document, "locked memory");
    assert_eq!((text(some, "status"), text(some, "found")), ("limited", "a limit of 1.0 MiB"));
    let document = examine(folder.path(), |program| limit_open_files(program, 32, 64));
    let files = check(&document, "open files");
    assert_eq!(text(files, "status"), "limited");
    assert!(text(files, "found").contains("64") && text(files, "meaning").contains("16 shards"), "{files}");
}

#[test]
fn limits_that_cannot_be_queried_are_reported_as_unknown() {
    let folder = folder();
    let document = examine(folder.path(), forbid_resource_limits);
    for name in ["locked memory", "open files"] {
        assert!(text(check(&document, name), "found").contains("does not report the limit"), "{document:#}");
    }
    let memory = text(check(&document, "memory"), "found");
    assert!(!memory.contains("ulimit -v,") && !memory.contains("(the address-space limit"), "{memory}");
}

#[test]
fn huge_pages_that_are_forbidden_are_found_although_the_mode_allows_them() {
    let folder = folder();
    let document = examine(folder.path(), forbid_huge_pages);
    let check = check(&document, "huge pages");
    assert_eq!(text(check, "status"), "missing", "{check}");
    assert!(text(check, "cost").contains("two thirds") && text(check, "found").contains("mode "));
}

#[test]
fn fewer_processors_than_there_are_is_limited() {
    if std::thread::available_parallelism().map_or(1, |cpus| cpus.get()) < 2 {
        return println!("skipped: there is one processor");
    }
    let folder = folder();
    let document = examine(folder.path(), limit_processors);
    let check = check(&document, "processors");
    assert_eq!(text(check, "status"), "limited");
    assert!(text(check, "found").starts_with("1 of "), "{check}");
}

#[test]
fn a_file_system_in_memory_needs_no_direct_reads() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return println!("skipped: there is no /dev/shm") };
    small(&folder.path().join("model.safetensors"));
    let document = examine(folder.path(), |_| {});
    let check = check(&document, "direct reads");
    if !text(check, "found").contains("tmpfs") {
        return println!("skipped: /dev/shm is no tmpfs");
    }
    assert_eq!((text(check, "status"), &check["cost"]), ("good", &Value::Null));
}

#[test]
fn a_checkpoint_that_does_not_fit_is_reported_with_the_tightest_limit() {
    let folder = folder();
    let bytes = 512_u64 << 20;
    let json = format!(r#"{{"t":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let start = raw(&json, &[]);
    let path = folder.path().join("sparse.safetensors");
    fs::write(&path, &start).expect("writes");
    fs::File::options().write(true).open(&path).expect("opens").set_len(start.len() as u64 + bytes).expect("grows");
    let limited = |prepare: &dyn Fn(&mut Command), word: &str| {
        let document = examine(&path, prepare);
        let check = check(&document, "memory");
        assert_eq!(text(check, "status"), "limited", "{check}");
        assert!(text(check, "meaning").contains("512.0 MiB do not fit"), "{check}");
        assert!(text(check, "found").contains(word) && text(check, "remedy").contains("--stream"), "{check}");
    };
    limited(&|program| limit_address_space(program, 400 << 20), "ulimit -v");
    limited(&|program| limit_data(program, 400 << 20), "ulimit -d");
    match MemoryGroup::new(256 << 20) {
        Ok(group) => limited(&|program| group.confine(program), "cgroup"),
        Err(error) => println!("skipped: no control group can be made here ({error})"),
    }
}

#[test]
fn an_examination_works_in_a_small_control_group() {
    let folder = folder();
    for bytes in [12_u64 << 20, 32 << 20] {
        let group = match MemoryGroup::new(bytes) {
            Ok(group) => group,
            Err(error) => return println!("skipped: no control group can be made here ({error})"),
        };
        let document = examine(folder.path(), |program| group.confine(program));
        assert_eq!(text(check(&document, "memory"), "status"), "limited", "{document:#}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_a_finding() {
    let folder = folder();
    small(&folder.path().join("model-1.safetensors"));
    // As in a Hugging Face cache with an incomplete download.
    std::os::unix::fs::symlink("../blobs/miss\u{1b}ing", folder.path().join("model-2.safetensors")).expect("links");
    let document = examine(folder.path(), |_| {});
    let check = check(&document, "access");
    assert_eq!(text(check, "status"), "missing", "{check}");
    let found = text(check, "found");
    assert!(found.contains("model-2.safetensors") && !found.contains('\u{1b}'), "{check}");
}

#[test]
fn only_a_path_that_cannot_be_examined_is_an_error() {
    let folder = folder();
    let missing = folder.path().join("evil\n\u{1b}[31mname");
    let run = command::run(["doctor".as_ref(), missing.as_os_str()]);
    run.assert_error(1, &[r"evil\n\u{1b}[31mname", "examine the path"]);
    command::run(["doctor", "/dev/null"]).assert_error(1, &["/dev/null", "a character device"]);
    let file = folder.path().join("notes.txt");
    fs::write(&file, "no checkpoint").expect("writes");
    command::run(["doctor".as_ref(), file.as_os_str()]).assert_ok();
}

/// Runs the command as a user who owns nothing, if this process is root. For other users, a file
/// without permissions is enough.
fn as_nobody(program: &mut Command) {
    if rustix::process::geteuid().is_root() {
        program.uid(65_534).gid(65_534);
    }
}

#[test]
fn files_that_cannot_be_read_are_the_first_finding() {
    let folder = folder();
    let (path, other) = (folder.path().join("evil\u{1b}.safetensors"), folder.path().join("other.safetensors"));
    small(&path);
    small(&other);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("is ours");
    for path in [&path, &other] {
        fs::set_permissions(path, Permissions::from_mode(0o000)).expect("is ours");
    }
    let examine = |path: &Path, arguments: &[&str]| {
        let mut program = Command::new(command::path());
        program.args(arguments).arg(path);
        as_nobody(&mut program);
        command::finish(&mut program)
    };
    let mut program = Command::new(command::path());
    as_nobody(program.arg("--version").stdout(Stdio::null()));
    let (starts, seen) = (program.status().is_ok_and(|status| status.success()), examine(folder.path(), &["doctor"]));
    if !starts || seen.stderr.contains("cannot examine the path") {
        return println!("skipped: another user cannot come here");
    }
    for (path, more) in [(folder.path(), "nor can 1 of its other files"), (&path, "")] {
        let document = examine(path, &["doctor", "--json"]).json();
        let first = &document["checks"][0];
        assert_eq!((text(first, "check"), text(first, "status")), ("access", "missing"));
        let found = text(first, "found");
        assert!(found.starts_with("cannot be read: ") && found.contains("Permission denied"), "{first}");
        assert!(found.ends_with(more) && text(first, "remedy").contains("chmod o+r"), "{first}");
        assert_eq!(document["checks"].as_array().map(Vec::len), Some(1 + CHECKS.len()));
        let shown = examine(path, &["doctor"]);
        assert!(shown.assert_ok().starts_with("missing  access ") && !shown.stdout.contains('\u{1b}'), "{shown:?}");
        assert!(!shown.stdout.contains("there is no file"), "{shown:?}");
    }
}

#[test]
fn an_unusable_profile_is_reported_with_its_path_escaped() {
    let folder = folder();
    let cache = folder.path().join(std::ffi::OsStr::from_bytes(b"\x1b[31mcache"));
    let run = |arguments: &[&str]| {
        let mut program = Command::new(command::path());
        program.args(arguments).arg(folder.path()).env("XDG_CACHE_HOME", &cache);
        command::finish(&mut program)
    };
    let document = run(&["doctor", "--json"]).json();
    let found = text(check(&document, "device profile"), "found");
    if !found.contains("none is stored for") {
        return println!("skipped: no profile of this device can be stored");
    }
    let stored = run(&["probe", "--seconds", "1", "--store", "--json"]);
    if stored.stderr.contains("there is no room for one") {
        return println!("skipped: the disk is too full to be measured");
    }
    let stored = stored.json();
    let path = stored["stored"].as_str().expect("a path");
    let document = run(&["doctor", "--json"]).json();
    assert!(text(check(&document, "device profile"), "found").contains("measured 0 days ago"));
    fs::write(path, "{").expect("writes");
    let broken = run(&["doctor"]);
    assert!(broken.assert_ok().contains(r"\u{1b}[31mcache") && !broken.stdout.contains('\u{1b}'), "{broken:?}");
}
