//! One malformed checkpoint for each rule of the formats, with the words that its error must
//! contain.

pub mod gguf;
pub mod safetensors;
pub mod serverlessllm;

use crate::checkpoint::folder;
use crate::command;
use crate::over_storages::{Place, places};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A malformed checkpoint.
pub struct Case {
    /// The broken rule.
    pub rule: &'static str,
    /// Writes it into a folder and returns the path to load.
    pub write: Box<dyn Fn(&Path) -> PathBuf>,
    /// The words of the error.
    pub words: Vec<&'static str>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("rule", &self.rule).field("words", &self.words).finish_non_exhaustive()
    }
}

impl Case {
    /// Returns a case of a single file.
    fn file(rule: &'static str, name: &'static str, bytes: Vec<u8>, words: &[&'static str]) -> Self {
        let write = move |folder: &Path| {
            let path = folder.join(name);
            fs::write(&path, &bytes).expect("writes");
            path
        };
        Self { rule, write: Box::new(write), words: words.to_vec() }
    }

    /// Returns a case of a folder of files.
    fn folder<N: AsRef<Path> + 'static>(rule: &'static str, files: Vec<(N, Vec<u8>)>, words: &[&'static str]) -> Self {
        let write = move |folder: &Path| {
            files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).expect("writes"));
            folder.to_owned()
        };
        Self { rule, write: Box::new(write), words: words.to_vec() }
    }
}

/// Asserts that core's parser, which gets the path to load, refuses each case with its words.
///
/// # Panics
/// If a case is accepted or a word is missing.
pub fn assert_refused_by_core(cases: Vec<Case>, parse: impl Fn(&Path) -> Result<(), String>) {
    for case in cases {
        let folder = folder();
        let error = parse(&(case.write)(folder.path())).expect_err(case.rule);
        for word in &case.words {
            assert!(error.contains(word), "{}: \"{word}\" is not in \"{error}\"", case.rule);
        }
    }
}

/// Fails unless the library refuses each case in memory as it refuses it in local files, whether it
/// is loaded or streamed.
///
/// # Panics
/// That is how it fails.
pub fn assert_refused_alike(cases: Vec<Case>) {
    for case in cases {
        let folder = folder();
        let path = (case.write)(folder.path());
        let beside = if path.is_dir() { &*path } else { path.parent().expect("a folder") };
        let mut entries = fs::read_dir(beside).expect("lists").map(|entry| entry.expect("lists").path());
        if entries.any(|entry| entry.is_symlink() || entry.is_dir()) {
            // There are neither links nor empty folders in memory.
            continue;
        }
        let root = folder.path().to_str().expect("Unicode");
        let [local, memory] = places(&path).map(|Place { loader, path, .. }| {
            let loaded = loader.load(&path).map(drop).expect_err(case.rule);
            let streamed = loader.stream(&path).map(drop).expect_err(case.rule);
            assert_eq!(loaded.to_string(), streamed.to_string(), "{}", case.rule);
            // Names in memory begin without a slash.
            (loaded.kind(), loaded.to_string().replace(root, root.trim_start_matches('/')))
        });
        assert_eq!(memory, local, "{}", case.rule);
    }
}

/// Fails unless each of the command's verbs refuses each case with this exit code, its words and
/// these, which all share.
///
/// # Panics
/// If a case is accepted or a word is missing.
pub fn assert_refused_by_command(code: i32, cases: Vec<Case>, verbs: &[&str], shared: &[&str]) {
    for case in cases {
        let folder = folder();
        let path = (case.write)(folder.path());
        println!("{}", case.rule);
        for verb in verbs {
            command::run([verb.as_ref(), path.as_os_str()]).assert_error(code, &[&case.words, shared].concat());
        }
    }
}
