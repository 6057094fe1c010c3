//! Runs the `floodtide` command as a user does, with a time limit and its peak memory.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A command still running after this is killed and fails its test.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The result of a run of the command.
#[derive(Debug)]
pub struct Run {
    /// The exit code, -1 when a signal ended it.
    pub code: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
    /// The duration.
    pub elapsed: Duration,
}

/// Returns the path of the command: `FLOODTIDE_BIN`, or a release build made now.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("FLOODTIDE_BIN") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--release", "--package", "floodtide-cli"]).current_dir(&root);
        assert!(cargo.status().expect("cargo starts").success(), "the command does not build");
        target.join("release/floodtide")
    })
}

/// Runs the command with these arguments.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    let mut command = Command::new(path());
    command.args(arguments);
    finish(&mut command)
}

/// Runs a prepared command to its end, without stored profiles unless it sets a cache folder.
pub fn finish(command: &mut Command) -> Run {
    // No test may depend on a profile that is stored on this machine.
    if command.get_envs().all(|(name, _)| name != "XDG_CACHE_HOME") {
        command.env("XDG_CACHE_HOME", "/dev/null");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().expect("the command starts");
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("reads");
        String::from_utf8(bytes).expect("the command writes UTF-8")
    };
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || read(&mut out));
        let stderr = scope.spawn(move || read(&mut err));
        let status = loop {
            if let Some(status) = child.try_wait().expect("waits") {
                break status;
            }
            if start.elapsed() > TIME_LIMIT {
                child.kill().expect("kills");
                panic!("{command:?} did not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let elapsed = start.elapsed();
        let (stdout, stderr) = (stdout.join().expect("reads"), stderr.join().expect("reads"));
        Run { code: status.code().unwrap_or(-1), stdout, stderr, elapsed }
    })
}

impl Run {
    /// Asserts a failure: the exit code, one line that contains these words, at most one hint,
    /// nothing on stdout, no panic, without a long wait.
    pub fn assert_error(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(self.stderr.starts_with("error: ") && !self.stderr.contains("panicked"), "{self:#?}");
        let mut more = self.stderr.lines().skip(1);
        assert!(more.next().is_none_or(|hint| hint.starts_with("hint: ")) && more.next().is_none(), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "\"{word}\" is not in {self:#?}");
        }
        assert!(self.elapsed < Duration::from_secs(5), "{self:#?}");
    }

    /// Asserts success and returns stdout.
    pub fn assert_ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:#?}");
        &self.stdout
    }

    /// Asserts success and returns the one JSON document on stdout.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(self.assert_ok()).expect("one JSON document")
    }
}
