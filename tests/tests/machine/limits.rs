//! Restricted machines: no io_uring, little memory, a file system without direct reads.

use floodtide_tests::checkpoint::{folder, many, raw, reference_digest, reshard, small, sparse};
use floodtide_tests::command::{self, Run};
use floodtide_tests::sandbox::{
    MemoryGroup, SmallDisk, forbid_io_uring, forbid_resource_limits, forbid_use_of_rings, limit_address_space,
    limit_data, limit_open_files,
};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BACKENDS: [&str; 5] = ["auto", "uring", "pread", "mmap", "tokio"];

fn load_in(prepare: impl FnOnce(&mut Command), path: &Path, arguments: &[&str]) -> Run {
    let mut program = Command::new(command::path());
    program.arg("load").arg(path).args(arguments);
    prepare(&mut program);
    command::finish(&mut program)
}

#[test]
fn where_io_uring_is_forbidden_auto_goes_on_and_an_explicit_wish_fails() {
    let folder = folder();
    let path = sparse(folder.path(), 32 << 20);
    load_in(forbid_io_uring, &path, &["--backend", "uring"]).assert_error(1, &["uring", "EPERM", "seccomp", "auto"]);
    let report = load_in(forbid_io_uring, &path, &["--json"]).json();
    assert_eq!(report["backend"], "pread");
    let direct =
        command::run(["plan", path.to_str().expect("UTF-8"), "--json"]).json()["files"][0]["direct_reads"] != 0;
    let reason = report["reason"].as_str().expect("a reason");
    assert!(!direct || reason.contains("EPERM"), "{reason}");
    load_in(forbid_io_uring, &path, &["--backend", "tokio"]).assert_ok();
    let report = load_in(forbid_use_of_rings, &path, &["--json"]).json();
    assert_eq!(report["backend"], "pread", "rings can be made there, but not used");
}

#[test]
fn a_stream_keeps_to_its_memory_limit() {
    let folder = folder();
    let path = sparse(folder.path(), 3 << 30);
    for backend in ["auto", "uring", "pread", "tokio"] {
        let report =
            load_in(|_| {}, &path, &["--json", "--backend", backend, "--stream", "--memory-limit", "256MiB"]).json();
        let peak = report["peak_rss_bytes"].as_u64().expect("a number");
        println!("{backend}: peak {peak}");
        assert_eq!((&report["bytes"], &report["stream"]["memory_limit"]), (&(3_u64 << 30).into(), &(256 << 20).into()));
        assert!(peak <= (256 + 64) << 20, "{backend}: {peak}");
    }
}

#[test]
fn an_owned_load_takes_little_more_memory_than_its_bytes() {
    let bytes: u64 = 3 << 30;
    let available = floodtide::probe::memory_limit().available;
    if available < bytes + (1 << 30) {
        println!("skipped: this test loads 3 GiB, but only {available} bytes of memory are available");
        return;
    }
    let folder = folder();
    let path = sparse(folder.path(), bytes);
    for backend in ["uring", "pread"] {
        let report = load_in(|_| {}, &path, &["--json", "--backend", backend]).json();
        let peak = report["peak_rss_bytes"].as_u64().expect("a number");
        println!("{backend}: peak {peak} of {bytes}");
        assert!(peak >= bytes, "after a load every byte is resident: {peak}");
        assert!(peak <= bytes / 100 * 102 + (64 << 20), "{backend}: {peak}");
    }
}

#[test]
fn a_checkpoint_larger_than_a_control_group_allows_is_refused_before_the_first_read() {
    let folder = folder();
    let path = sparse(folder.path(), 512 << 20);
    let group = match MemoryGroup::new(256 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    for backend in BACKENDS {
        let run = load_in(|program| group.confine(program), &path, &["--backend", backend]);
        run.assert_error(1, &["512.0 MiB", "available", "cgroup", "--select"]);
    }
    let small = sparse(folder.path(), 64 << 20);
    load_in(|program| group.confine(program), &small, &[]).assert_ok();
}

#[test]
fn a_checkpoint_larger_than_the_address_space_is_refused() {
    let folder = folder();
    let path = sparse(folder.path(), 1 << 30);
    let run = load_in(|program| limit_address_space(program, 1 << 30), &path, &[]);
    run.assert_error(1, &["1.0 GiB", "available", "ulimit -v"]);
    let run = load_in(|program| limit_data(program, 1 << 30), &path, &[]);
    run.assert_error(1, &["1.0 GiB", "available", "ulimit -d"]);
}

#[test]
fn where_limits_may_not_be_asked_for_none_is_made_up() {
    let folder = folder();
    let path = sparse(folder.path(), 32 << 20);
    for more in [&["--json"][..], &["--json", "--stream"]] {
        assert_eq!(load_in(forbid_resource_limits, &path, more).json()["bytes"], 32 << 20, "{more:?}");
    }
}

#[test]
fn a_broken_header_is_parsed_within_its_own_size() {
    let folder = folder();
    // 100 MB of zeros as a header, in 300 MB of address space: an allocation by a claim, or a copy,
    // would not fit.
    let path = folder.path().join("zeros.safetensors");
    fs::write(&path, 100_000_000_u64.to_le_bytes()).expect("writes");
    fs::File::options().write(true).open(&path).expect("opens").set_len(1 << 40).expect("grows");
    load_in(|program| limit_address_space(program, 300 << 20), &path, &[]).assert_error(1, &["JSON"]);
}

/// A header takes at most 16 times its size in address space, whatever it holds and wherever it
/// breaks. Metadata, which is kept, takes at most 32 times, because a pair of a few bytes becomes
/// two strings.
#[test]
fn an_adversarial_header_takes_memory_in_proportion_to_its_size() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let size = 8_usize << 20;
    let run = |verb: &[&str], json: &str, factor: u64| {
        fs::write(&path, raw(json, &[])).expect("writes");
        let mut program = Command::new(command::path());
        program.args(verb).arg(&path);
        // The program itself and its libraries, beside the header.
        limit_address_space(&mut program, factor * size as u64 + (32 << 20));
        command::finish(&mut program)
    };
    // The shortest texts of what is kept: a dimension is two bytes, a pair of metadata six.
    let dims = "0,".repeat(size / 2);
    let same = r#""":"","#.repeat(size / 6);
    let different: String = (0..size / 13).map(|key| format!(r#""{key:07x}":"","#)).collect();
    let metadata = |pairs: &str| format!(r#""__metadata__":{{{pairs}"":""}}"#);
    let tensor = format!(r#""t":{{"dtype":"U8","shape":[{dims}0],"data_offsets":[0,0]}}"#);
    for (json, factor) in [(&tensor, 16), (&metadata(&same), 32), (&metadata(&different), 32)] {
        run(&["inspect"], &format!("{{{json}}}"), factor).assert_ok();
        run(&["inspect", "--json"], &format!("{{{json}}}"), factor).json();
        let broken = run(&["inspect"], &format!(r#"{{{json},"u":{{"dtype":"U7"}}}}"#), 16);
        broken.assert_error(1, &["model.safetensors", "U7"]);
    }
}

#[test]
fn a_file_on_tmpfs_loads_by_every_backend() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return println!("skipped: there is no /dev/shm") };
    let path = folder.path().join("model.safetensors");
    small(&path);
    // Sparse, so that most of it is not cached, and large enough for direct reads.
    let long = sparse(folder.path(), 8 << 20);
    let file = fs::File::options().write(true).open(&long).expect("opens");
    file.write_all_at(&[7; 4096], 5 << 20).expect("writes");
    for backend in BACKENDS {
        let plan = ["plan".as_ref(), long.as_os_str(), "--json".as_ref(), "--backend".as_ref(), backend.as_ref()];
        let plan = command::run(plan).json();
        let file = &plan["files"][0];
        assert!(file["resident_share"].as_f64().is_some_and(|share| share < 0.5), "{plan}");
        // A direct read may succeed there, through the page cache that it should bypass.
        assert_eq!(file["direct_reads"], 0, "{plan}");
    }
    for path in [path, long] {
        let expected = reference_digest(&path);
        for backend in BACKENDS {
            let run = command::run(["digest".as_ref(), path.as_os_str(), "--backend".as_ref(), backend.as_ref()]);
            assert_eq!(run.assert_ok(), expected, "{backend}");
        }
    }
}

#[test]
fn data_at_an_odd_offset_loads_by_every_backend() {
    let folder = folder();
    let data: Vec<u8> = (0..8_u32 << 20).map(|i| (i * 7 % 253) as u8).collect();
    for padding in 0..8 {
        let json =
            format!(r#"{{"t":{{"dtype":"F32","shape":[2097152],"data_offsets":[0,8388608]}}}}{}"#, " ".repeat(padding));
        let path = folder.path().join("odd.safetensors");
        fs::write(&path, raw(&json, &data)).expect("writes");
        let expected = reference_digest(&path);
        for backend in BACKENDS {
            let run = command::run(["digest".as_ref(), path.as_os_str(), "--backend".as_ref(), backend.as_ref()]);
            assert_eq!(run.assert_ok(), expected, "{backend}");
        }
    }
}

#[test]
fn a_hundred_thousand_tensors_load_at_once() {
    let folder = folder();
    let path = many(&folder.path().join("many.safetensors"), 100_000);
    for backend in BACKENDS {
        let run = command::run([
            "load".as_ref(),
            path.as_os_str(),
            "--json".as_ref(),
            "--backend".as_ref(),
            backend.as_ref(),
        ]);
        assert_eq!(run.json()["tensors"], 100_000);
        assert!(run.elapsed < Duration::from_secs(5), "{run:?}");
    }
    // Every second one: scattered, and still few reads, each tensor right.
    let run =
        command::run(["digest".as_ref(), path.as_os_str(), "--select".as_ref(), "*.layers.*[02468].mlp*".as_ref()]);
    let all = reference_digest(&path);
    let even: Vec<&str> =
        all.lines().filter(|line| line.contains(['0', '2', '4', '6', '8']) && is_even(line)).collect();
    assert_eq!(run.assert_ok().lines().collect::<Vec<_>>(), even);
}

fn is_even(line: &str) -> bool {
    let layer = line.split('.').nth(2).expect("a layer");
    layer.parse::<usize>().expect("a number") % 2 == 0
}

#[test]
fn more_shards_than_the_limit_of_open_files() {
    let folder = folder();
    let file = many(&folder.path().join("one"), 200);
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).expect("makes");
    reshard(&file, &shards, 200);
    // The soft limit is what shells give; the command raises it.
    for backend in BACKENDS {
        let run = load_in(|program| limit_open_files(program, 64, 1024), &shards, &["--json", "--backend", backend]);
        assert_eq!(run.json()["files"], 200, "{backend}");
    }
    let run = load_in(|program| limit_open_files(program, 64, 64), &shards, &[]);
    run.assert_error(1, &["model-000", "open", "ulimit -n"]);
}

#[test]
fn a_selection_reads_little_more_than_it_selects() {
    let folder = folder();
    let big = 64_u64 << 20;
    let json = format!(
        r#"{{"a":{{"dtype":"U8","shape":[{big}],"data_offsets":[0,{big}]}},"b":{{"dtype":"U8","shape":[4],"data_offsets":[{big},{}]}}}}"#,
        big + 4
    );
    let start = raw(&json, &[]);
    let path = folder.path().join("model.safetensors");
    fs::write(&path, &start).expect("writes");
    let file = fs::File::options().write(true).open(&path).expect("opens");
    file.write_all_at(&[1, 2, 3, 4], start.len() as u64 + big).expect("writes");
    let report = load_in(|_| {}, &path, &["--select", "b", "--json"]).json();
    assert_eq!((&report["bytes"], &report["tensors"]), (&4.into(), &1.into()));
    assert!(report["peak_rss_bytes"].as_u64().expect("a number") < 32 << 20, "{report}");
}

/// The scale that the demo proposes works.
fn assert_the_proposed_scale_fits(demo: impl Fn(&[&str]) -> Command) {
    let run = command::finish(&mut demo(&["demo"]));
    run.assert_error(1, &["the demo needs", "--scale"]);
    let scale = run.stderr.split("--scale ").nth(1).expect("a scale").trim();
    command::finish(&mut demo(&["demo", "--scale", scale])).assert_ok();
}

#[test]
fn a_demo_without_room_on_the_disk_proposes_a_scale_that_fits() {
    let disk = match SmallDisk::new(128 << 20) {
        Ok(disk) => disk,
        Err(error) => return println!("skipped: no file system can be mounted here ({error})"),
    };
    assert_the_proposed_scale_fits(|arguments| {
        let mut demo = Command::new(command::path());
        demo.args(arguments).env("TMPDIR", disk.path());
        demo
    });
    let tiny = SmallDisk::new(4 << 20).expect("as the other");
    let mut demo = Command::new(command::path());
    command::finish(demo.arg("demo").env("TMPDIR", tiny.path())).assert_error(1, &["even the smallest demo needs"]);
}

#[test]
fn a_demo_without_room_makes_no_folder() {
    let disk = match SmallDisk::new(64 << 20) {
        Ok(disk) => disk,
        Err(error) => return println!("skipped: no file system can be mounted here ({error})"),
    };
    let keep = disk.path().join("models/gpt2");
    let run = command::run(["demo".as_ref(), "--keep".as_ref(), keep.as_os_str()]);
    run.assert_error(1, &["disk space", "--scale"]);
    assert_eq!(fs::read_dir(disk.path()).expect("lists").count(), 0);
}

/// A file system in memory drops nothing from the page cache, and a demo there does not claim it.
#[test]
fn a_demo_in_memory_says_that_it_is_not_cold() {
    let demo = |folder: &Path, arguments: &[&str]| {
        let mut demo = Command::new(command::path());
        command::finish(demo.args(["demo", "--scale", "0.01"]).args(arguments).env("TMPDIR", folder))
    };
    let (disk, memory) = match (folder(), tempfile::tempdir_in("/dev/shm")) {
        (disk, Ok(memory)) => (disk, memory),
        (_, Err(error)) => return println!("skipped: there is no /dev/shm ({error})"),
    };
    let text = demo(memory.path(), &[]);
    assert!(text.assert_ok().contains("up to 100 % of a file in the page cache"), "{text:?}");
    assert!(text.stderr.contains("warning: not all loads were cold"), "{text:?}");
    assert!(!text.stdout.contains("page cache dropped"), "{text:?}");
    let json = demo(memory.path(), &["--json"]).json();
    assert_eq!((&json["disturbed_share"], &json["agree"]), (&1.0.into(), &true.into()));
    let json = demo(disk.path(), &["--json"]).json();
    assert!(json["disturbed_share"].as_f64().is_none_or(|share| share < 0.5), "{json}");
}

#[test]
fn a_demo_without_memory_proposes_a_scale_that_fits() {
    let folder = folder();
    let group = match MemoryGroup::new(128 << 20) {
        Ok(group) => group,
        Err(error) => return println!("skipped: no control group can be made here ({error})"),
    };
    assert_the_proposed_scale_fits(|arguments| {
        let mut demo = Command::new(command::path());
        demo.args(arguments).env("TMPDIR", folder.path());
        group.confine(&mut demo);
        demo
    });
}

/// Starts a demo, interrupts it while it writes below `folder`, and returns how it ended.
fn interrupt_demo(demo: &mut Command, folder: &Path) -> Option<i32> {
    let mut demo = demo.args(["--scale", "0.1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let begun = || {
        fs::read_dir(folder)
            .expect("lists")
            .filter_map(Result::ok)
            .any(|entry| fs::read_dir(entry.path()).is_ok_and(|mut files| files.next().is_some()))
    };
    let start = Instant::now();
    while !begun() {
        assert!(start.elapsed() < Duration::from_secs(20), "the demo writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    let process = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(process, rustix::process::Signal::INT).expect("it runs");
    demo.wait().expect("waits").code()
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let folder = folder();
    let mut demo = Command::new(command::path());
    assert_eq!(interrupt_demo(demo.arg("demo").env("TMPDIR", folder.path()), folder.path()), Some(130));
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 0);
    // A demo with --keep leaves its checkpoint once it is complete.
    let keep = folder.path().join("gpt2");
    for there in [false, true] {
        if there {
            fs::create_dir(&keep).expect("makes");
        }
        let mut demo = Command::new(command::path());
        assert_eq!(interrupt_demo(demo.args(["demo", "--keep"]).arg(&keep), folder.path()), Some(130));
        assert_eq!(keep.exists(), there, "what was there stays");
        assert!(!there || fs::read_dir(&keep).expect("lists").next().is_none());
    }
}
