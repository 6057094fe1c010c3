//! Problems that users of other loaders have reported, if they concern local files and no other
//! suite covers them.
//!
//! Some tests need their own process, for its limits or its peak memory: such a test starts this
//! program again to run one function.

use floodtide::backend::MMAP;
use floodtide::{Loader, Tensors};
use floodtide_tests::checkpoint::{folder, many, raw, reshard, small};
use floodtide_tests::command;
use floodtide_tests::roles::this_program;
use floodtide_tests::sandbox::MemoryGroup;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const BACKENDS: [&str; 5] = ["auto", "uring", "pread", "mmap", "tokio"];

/// The environment variable that names the checkpoint for the started program.
const CHECKPOINT: &str = "FLOODTIDE_TEST_CHECKPOINT";

/// Creates a sparse file of one F32 tensor of zeros, aligned in the file as writers align it.
fn sparse(folder: &Path, bytes: u64) -> PathBuf {
    let mut json = format!(r#"{{"t":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#, bytes / 4);
    // Includes the 8 bytes of the header length.
    json.push_str(&" ".repeat((json.len() + 8).next_multiple_of(64) - 8 - json.len()));
    let start = raw(&json, &[]);
    let path = folder.join("model.safetensors");
    fs::write(&path, &start).expect("writes");
    fs::File::options().write(true).open(&path).expect("opens").set_len(start.len() as u64 + bytes).expect("grows");
    path
}

/// Maps the checkpoint, touches every page, and prints the process's own memory in KiB. The tests
/// below start it; it does nothing otherwise.
#[test]
fn started_by_other_tests() {
    let Some(path) = std::env::var_os(CHECKPOINT) else { return };
    let own = || kib("RssAnon:");
    let before = own();
    let tensors: Tensors = Loader::new().map(&path).expect("opens");
    let tensor = tensors.get("t").expect("is there");
    let sum: u64 = tensor.as_bytes().iter().step_by(4096).map(|&byte| u64::from(byte)).sum();
    assert_eq!((sum, tensors.report().backend), (0, MMAP));
    println!("\nown memory: {}", own().saturating_sub(before));
    println!("peak memory: {}", kib("VmHWM:"));
}

/// Returns a field of this process's memory statistics.
fn kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Maps and touches a checkpoint in a child process, and returns its output.
fn open_and_touch(path: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut program = this_program(module_path!(), "started_by_other_tests");
    program.env(CHECKPOINT, path);
    prepare(&mut program);
    command::finish(&mut program).assert_ok().to_owned()
}

fn figure(printed: &str, name: &str) -> u64 {
    let line = printed.lines().find_map(|line| line.strip_prefix(name)).expect("is printed");
    line.trim().parse::<u64>().expect("a number") * 1024
}

/// Report: a process was killed for memory although it used a mapping, whose pages the kernel can
/// reclaim.
#[test]
fn a_mapping_larger_than_the_control_group_allows_is_opened_and_touched() {
    let folder = folder();
    let path = sparse(folder.path(), 384 << 20);
    let group = match MemoryGroup::new(128 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    let printed = open_and_touch(&path, |program| group.confine(program));
    assert!(figure(&printed, "own memory:") < 16 << 20, "{printed}");
}

/// Report: on machines that share memory with the accelerator, a mapping plus a copy held the model
/// twice.
#[test]
fn a_mapping_holds_the_model_once() {
    let folder = folder();
    let bytes = 256 << 20;
    let path = sparse(folder.path(), bytes);
    let printed = open_and_touch(&path, |_| {});
    assert!(figure(&printed, "own memory:") < 16 << 20, "{printed}");
    let opened = figure(&printed, "peak memory:");
    let load = ["load".as_ref(), path.as_os_str(), "--json".as_ref(), "--backend".as_ref(), "mmap".as_ref()];
    let loaded = command::run(load).json()["peak_rss_bytes"].as_u64().expect("a number");
    for peak in [opened, loaded] {
        assert!((bytes..bytes + (48 << 20)).contains(&peak), "{peak} of {bytes}");
    }
}

/// Report: in mixture-of-experts checkpoints, the cost per tensor was most of the time.
#[test]
fn a_mixture_of_experts_loads_in_bounded_time() {
    let folder = folder();
    let file = many(&folder.path().join("one"), 131_072);
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("makes");
    reshard(&file, &shards, 8);
    for backend in BACKENDS {
        let load = ["load".as_ref(), shards.as_os_str(), "--json".as_ref(), "--backend".as_ref(), backend.as_ref()];
        let run = command::run(load);
        assert_eq!(run.json()["tensors"], 131_072);
        assert!(run.elapsed < Duration::from_secs(5), "{backend}: {:?}", run.elapsed);
    }
}

/// Report: a staging buffer was as large as the limit, however small the model.
#[test]
fn a_tiny_model_takes_little_memory() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    for backend in BACKENDS {
        let load = ["load".as_ref(), path.as_os_str(), "--json".as_ref(), "--backend".as_ref(), backend.as_ref()];
        let peak = command::run(load).json()["peak_rss_bytes"].as_u64().expect("a number");
        assert!(peak < 24 << 20, "{backend}: {peak}");
    }
}
