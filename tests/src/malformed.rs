//! One malformed checkpoint for each rule of the formats, with the words that its error must
//! contain.

pub mod gguf;
pub mod safetensors;
pub mod serverlessllm;

use crate::checkpoint::folder;
use crate::command;
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

/// Asserts that each subcommand refuses each case with its words and the shared `words`.
///
/// # Panics
/// If a case is accepted or a word is missing.
pub fn assert_refused_by_command(cases: Vec<Case>, verbs: &[&str], shared: &[&str]) {
    for case in cases {
        let folder = folder();
        let path = (case.write)(folder.path());
        println!("{}", case.rule);
        for verb in verbs {
            command::run([verb.as_ref(), path.as_os_str()]).assert_error(1, &[&case.words, shared].concat());
        }
    }
}
