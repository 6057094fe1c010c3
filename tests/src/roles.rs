//! Runs functions of a test program in a child process, where they do not affect other tests.
//!
//! The child is the same program, started for one test: `started_by_other_tests` of the module that
//! has the role.

use crate::command;
use std::path::Path;
use std::process::Command;

/// A function that runs on a folder.
pub type OnPath = fn(&Path);

/// The environment variables that name the function to run, and its folder.
const ROLE: &str = "FLOODTIDE_TEST_ROLE";
const FOLDER: &str = "FLOODTIDE_TEST_FOLDER";

/// Runs the role that this program was started for, if it was: the body of the test
/// `started_by_other_tests`.
///
/// # Panics
/// If there is no such role.
pub fn run_role(roles: &[(&str, OnPath)]) {
    let (Some(role), Some(path)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else { return };
    let (_, run) = roles.iter().find(|(name, _)| role == *name).expect("a role");
    run(Path::new(&path));
}

/// Returns this program as a command that runs only this test function. `module` is the function's
/// `module_path!()`.
///
/// # Panics
/// If this program's path is unknown.
pub fn this_program(module: &str, test: &str) -> Command {
    // The harness leaves out the name of the crate.
    let test = module.split_once("::").map_or_else(|| test.to_owned(), |(_, module)| format!("{module}::{test}"));
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(["--exact", &test, "--nocapture", "--test-threads=1"]);
    program
}

/// Runs a role of the calling module in a child process; returns what it printed. `module` is the
/// module's `module_path!()`.
///
/// # Panics
/// If the role fails.
pub fn in_process(module: &str, role: &str, path: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut program = this_program(module, "started_by_other_tests");
    program.env(ROLE, role).env(FOLDER, path);
    prepare(&mut program);
    let run = command::finish(&mut program);
    println!("{}", run.stdout);
    // The harness does not fail if no test has the name.
    assert!(run.assert_ok().contains("1 passed"), "no role was run");
    run.stdout
}
