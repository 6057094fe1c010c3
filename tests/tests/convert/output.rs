//! The output of a conversion appears complete or not at all, however the conversion ends.

use floodtide::convert::{Converter, OutputError};
use floodtide::format::{SAFETENSORS, SERVERLESSLLM};
use floodtide::{Error, Loader};
use floodtide_tests::checkpoint::{folder, raw};
use floodtide_tests::sandbox::{SmallDisk, forbid_rename_flags, forbid_reserving_disk};
use floodtide_tests::{command, serverlessllm_reader};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const MB: usize = 1 << 20;

/// A checkpoint of tensors of these lengths, in a folder with room for outputs.
struct Source {
    folder: tempfile::TempDir,
    tensors: BTreeMap<String, Vec<u8>>,
}

impl Source {
    fn new(sizes: &[usize]) -> Self {
        let folder = folder();
        fs::create_dir(folder.path().join("in")).expect("makes");
        let mut tensors = BTreeMap::new();
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (t, &bytes) in sizes.iter().enumerate() {
            let contents: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 255 + t * 31) as u8).collect();
            let offsets = [data.len(), data.len() + bytes];
            data.extend_from_slice(&contents);
            header
                .insert(format!("t{t}"), serde_json::json!({"dtype": "U8", "shape": [bytes], "data_offsets": offsets}));
            tensors.insert(format!("t{t}"), contents);
        }
        let json = serde_json::Value::Object(header).to_string();
        fs::write(folder.path().join("in/model.safetensors"), raw(&json, &data)).expect("writes");
        fs::write(folder.path().join("in/config.json"), "{}").expect("writes");
        Self { folder, tensors }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the command that converts it to a ServerlessLLM checkpoint.
    fn command(&self, to: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(command::path());
        command.arg("convert").arg(self.at("in")).arg(to).args(["--to", "serverlessllm"]).args(more);
        command
    }

    fn convert(&self, to: &Path, more: &[&str]) -> command::Run {
        command::finish(&mut self.command(to, more))
    }

    /// Returns the duration of an undisturbed conversion: the shortest of a few.
    fn takes(&self, to: &Path) -> Duration {
        let once = || {
            let run = self.convert(to, &[]);
            run.assert_ok();
            fs::remove_dir_all(to).expect("removes");
            run.elapsed
        };
        (0..3).map(|_| once()).min().expect("three")
    }

    /// Asserts that a ServerlessLLM checkpoint is complete and right.
    fn assert_stored(&self, folder: &Path) {
        let stored = serverlessllm_reader::read(folder).into_iter().map(|(name, tensor)| (name, tensor.bytes));
        assert!(stored.collect::<BTreeMap<_, _>>() == self.tensors);
        assert_eq!(fs::read_to_string(folder.join("config.json")).expect("it comes last"), "{}");
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("lists").map(|entry| entry.expect("lists").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

fn quietly(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).env("XDG_CACHE_HOME", "/dev/null");
    command.spawn().expect("starts")
}

/// Spreads values over a range pseudo-randomly, the same in every run.
fn moment(number: u32, within: Duration) -> Duration {
    within.mul_f64(f64::from(number.wrapping_mul(2_654_435_769)) / f64::from(u32::MAX))
}

#[test]
fn a_killed_conversion_leaves_nothing_or_all_of_it() {
    let source = Source::new(&[10 * MB, 3, 9 * MB, 0, 5 * MB, 100]);
    let out = source.at("out");
    let whole = source.takes(&out);
    let (mut absent, mut complete) = (0, 0);
    for kill in 0..50 {
        let mut child = quietly(&mut source.command(&out, &["--partitions", "3"]));
        std::thread::sleep(moment(kill, whole.mul_f64(1.5)));
        child.kill().expect("kills");
        child.wait().expect("ends");
        if out.exists() {
            source.assert_stored(&out);
            fs::remove_dir_all(&out).expect("removes");
            complete += 1;
        } else {
            absent += 1;
        }
        // The next conversion removes the leftovers of this one.
        let left = entries(source.folder.path());
        assert!(left.len() <= 2, "{left:?}");
    }
    println!("{absent} times nothing, {complete} times all of it");
    assert!(absent > 0, "some are killed early enough");
    source.convert(&out, &[]).assert_ok();
    assert_eq!(entries(source.folder.path()), ["in", "out"]);
    source.assert_stored(&out);
}

#[test]
fn a_killed_replacement_leaves_the_old_one_or_the_new_one() {
    let source = Source::new(&[9 * MB, 7]);
    let out = source.at("out");
    fs::create_dir(&out).expect("makes");
    fs::copy(source.at("in/model.safetensors"), out.join("model.safetensors")).expect("copies");
    let whole = source.takes(&source.at("other"));
    let old = fs::read(source.at("in/model.safetensors")).expect("reads");
    let (mut kept, mut replaced) = (0, 0);
    for kill in 0..50 {
        let mut child = quietly(&mut source.command(&out, &["--force"]));
        std::thread::sleep(moment(kill, whole.mul_f64(1.5)));
        child.kill().expect("kills");
        child.wait().expect("ends");
        if out.join("model.safetensors").exists() {
            assert_eq!(entries(&out), ["model.safetensors"]);
            assert!(fs::read(out.join("model.safetensors")).expect("reads") == old);
            kept += 1;
        } else {
            source.assert_stored(&out);
            fs::remove_dir_all(&out).expect("removes");
            fs::create_dir(&out).expect("makes");
            fs::copy(source.at("in/model.safetensors"), out.join("model.safetensors")).expect("copies");
            replaced += 1;
        }
        let left = entries(source.folder.path());
        assert!(left.len() <= 3, "{left:?}");
    }
    println!("{kept} times the old one, {replaced} times the new one");
    source.convert(&out, &["--force"]).assert_ok();
    assert_eq!(entries(source.folder.path()), ["in", "out"], "neither a half nor an old one");
    source.assert_stored(&out);
}

#[test]
fn an_interrupted_conversion_removes_what_it_has_written() {
    let source = Source::new(&[20 * MB; 4]);
    let mut child = quietly(&mut source.command(&source.at("out"), &["--memory-limit", "1MiB"]));
    let start = Instant::now();
    while entries(source.folder.path()).len() < 2 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("it is there");
    let status = child.wait().expect("ends");
    // A fast conversion ends before the signal.
    assert!([Some(130), Some(0)].contains(&status.code()), "{status}");
    let left = if status.success() { vec!["in", "out"] } else { vec!["in"] };
    assert_eq!(entries(source.folder.path()), left);
}

#[test]
fn a_conversion_that_is_given_up_leaves_nothing() {
    let source = Source::new(&[MB]);
    let converter = Converter::new(Loader::new(), SAFETENSORS).cancelled_by(Arc::new(AtomicBool::new(true)));
    let error = converter.convert(source.at("in"), source.at("out")).expect_err("cancelled");
    assert!(matches!(error, Error::Core(floodtide_core::Error::Cancelled)), "{error}");
    assert_eq!(entries(source.folder.path()), ["in"]);
}

#[test]
fn a_disk_that_is_too_small_is_refused_and_one_that_fills_up_is_left_empty() {
    let source = Source::new(&[3 * MB, 3 * MB, 3 * MB]);
    let disk = match SmallDisk::new(8 << 20) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no small disk can be mounted here: {why}"),
    };
    let out = disk.path().join("out");
    source.convert(&out, &[]).assert_error(1, &["the output needs 9", "8.0 MiB available", "--select"]);
    assert!(entries(disk.path()).is_empty());
    // As if another program had filled the disk meanwhile, in the middle of a file.
    let mut command = source.command(&out, &[]);
    forbid_reserving_disk(&mut command);
    let run = command::finish(&mut command);
    run.assert_error(1, &["tensor.data_0", "cannot write the file", "No space left", "free space there"]);
    assert!(entries(disk.path()).is_empty(), "nothing is left behind");
    source.convert(&out, &["--select", "t1"]).assert_ok();
    assert_eq!(entries(disk.path()), ["out"]);

    // There is room, but no more files can be created.
    let disk = SmallDisk::with("size=64m,nr_inodes=4").expect("as the other");
    let run = source.convert(&disk.path().join("out"), &["--partitions", "3"]);
    run.assert_error(1, &["tensor.data_2", "cannot create the file", "No space left"]);
    assert!(entries(disk.path()).is_empty());
}

#[test]
fn a_disk_that_cannot_be_written_to_is_told() {
    let source = Source::new(&[MB]);
    let Ok(disk) = SmallDisk::new(64 << 20) else { return println!("skipped: no disk can be mounted here") };
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_remount(disk.path(), flags, c"").expect("as the mount");
    source.convert(&disk.path().join("out"), &[]).assert_error(1, &["create a folder for the output", "Read-only"]);
}

#[test]
fn places_that_will_not_do_are_refused() {
    let source = Source::new(&[MB]);
    let at = |name: &str| source.at(name);
    fs::create_dir(at("other")).expect("makes");
    fs::write(at("other/photo.jpg"), "").expect("writes");
    fs::write(at("file"), "").expect("writes");
    std::os::unix::fs::symlink("other", at("link")).expect("links");
    for (to, more, words) in [
        ("other", &[][..], &["--force"][..]),
        ("file", &[], &["--force"]),
        ("link", &[], &["--force"]),
        ("other", &["--force"], &["without a checkpoint"]),
        ("file", &["--force"], &["found a file"]),
        ("link", &["--force"], &["symbolic link"]),
        ("in", &["--force"], &["would replace the checkpoint"]),
        ("in", &[], &["would replace the checkpoint"]),
        ("missing/out", &[], &["missing", "create it first"]),
        ("..", &[], &["does not name a new folder"]),
    ] {
        source.convert(&at(to), more).assert_error(2, words);
    }
    assert_eq!(entries(source.folder.path()), ["file", "in", "link", "other"]);
    source.convert(&at("in/out"), &[]).assert_ok();
    source.assert_stored(&at("in/out"));
    source.convert(&at("in"), &["--force"]).assert_error(2, &["would replace the checkpoint"]);
}

#[test]
fn what_is_replaced_is_there_until_the_new_one_is() {
    let source = Source::new(&[2 * MB]);
    let out = source.at("out");
    source.convert(&out, &[]).assert_ok();
    fs::write(out.join("README.md"), "the old one").expect("writes");
    source.convert(&out, &["--force", "--select", "none"]).assert_error(2, &["no tensor matches"]);
    assert!(out.join("README.md").exists(), "a failure replaces nothing");
    source.convert(&out, &["--force"]).assert_ok();
    assert_eq!(entries(&out), ["config.json", "tensor.data_0", "tensor_index.json"]);
    assert_eq!(entries(source.folder.path()), ["in", "out"]);
    source.assert_stored(&out);
}

#[test]
fn file_systems_that_know_no_flags_of_rename_will_do_for_new_folders() {
    let source = Source::new(&[MB]);
    let out = source.at("out");
    for (more, code) in [(&[][..], 0), (&[], 2), (&["--force"], 1)] {
        let mut command = source.command(&out, more);
        forbid_rename_flags(&mut command);
        let run = command::finish(&mut command);
        assert_eq!(run.code, code, "{run:?}");
        source.assert_stored(&out);
        assert_eq!(entries(source.folder.path()), ["in", "out"]);
    }
}

#[test]
fn of_two_conversions_to_one_place_one_is_kept_and_the_other_is_told() {
    let source = Source::new(&[5 * MB, 5 * MB]);
    let out = source.at("out");
    for force in [false, true] {
        let convert = || Converter::new(Loader::new(), SERVERLESSLLM).force(force).convert(source.at("in"), &out);
        let ends: Vec<Result<_, Error>> = std::thread::scope(|scope| {
            let both = [scope.spawn(convert), scope.spawn(convert)];
            both.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        for error in ends.iter().filter_map(|end| end.as_ref().err()) {
            assert!(!force && matches!(error, Error::Output(OutputError::Exists { .. })), "{error}");
        }
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), if force { 2 } else { 1 });
        assert_eq!(entries(source.folder.path()), ["in", "out"]);
        source.assert_stored(&out);
    }
}

/// Runs the conversion under a limit of the shell.
fn under(limit: &str, conversion: &Command) -> command::Run {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {limit}; exec \"$@\"")).arg("sh").arg(conversion.get_program());
    command::finish(shell.args(conversion.get_args()))
}

#[test]
fn more_files_than_may_be_open_are_closed_in_time() {
    let source = Source::new(&[1000; 150]);
    let out = source.at("out");
    under("-n 24", &source.command(&out, &["--partitions", "150"])).assert_ok();
    source.assert_stored(&out);
    assert_eq!(entries(&out).len(), 152);
}

#[test]
fn a_limit_of_a_files_size_is_an_error_and_leaves_nothing() {
    let source = Source::new(&[4 * MB]);
    let run = under("-f 1000", &source.command(&source.at("out"), &[]));
    run.assert_error(1, &["tensor.data_0", "File too large", "ulimit -f"]);
    assert_eq!(entries(source.folder.path()), ["in"]);
}

#[test]
fn an_output_that_somebody_takes_away_is_no_success() {
    let source = Source::new(&[20 * MB; 4]);
    let mut child = quietly(&mut source.command(&source.at("out"), &["--memory-limit", "1MiB"]));
    let start = Instant::now();
    let taken = loop {
        let unfinished = entries(source.folder.path()).into_iter().find(|name| name.starts_with('.'));
        if unfinished.is_some_and(|name| fs::remove_file(source.at(&name).join("tensor.data_0")).is_ok()) {
            break true;
        }
        if child.try_wait().expect("waits").is_some() || start.elapsed() > Duration::from_secs(20) {
            break false;
        }
    };
    let status = child.wait().expect("ends");
    if !taken {
        return println!("skipped: it was done before anybody could take anything away");
    }
    assert_eq!(status.code(), Some(1));
    assert_eq!(entries(source.folder.path()), ["in"]);
}
