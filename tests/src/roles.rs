//! Functions of a test program that run in a process of its own, as they would hurt the other tests: the program again, for one of them.

use crate::command;
use std::path::Path;
use std::process::Command;

/// What runs on a folder.
pub type OnPath = fn(&Path);

/// Which function a started program is to run, and on which folder.
const ROLE: &str = "FLOODTIDE_TEST_ROLE";
const FOLDER: &str = "FLOODTIDE_TEST_FOLDER";

/// Runs the role that this program was started for, if it was: the body of the test `started_by_other_tests`.
///
/// # Panics
/// When there is no such role.
pub fn run_role(roles: &[(&str, OnPath)]) {
    let (Some(role), Some(path)) = (std::env::var_os(ROLE), std::env::var_os(FOLDER)) else { return };
    let (_, run) = roles.iter().find(|(name, _)| role == *name).expect("a role");
    run(Path::new(&path));
}

/// Runs a role of this program in a process of its own; returns what it printed.
///
/// # Panics
/// When the role fails.
pub fn in_process(role: &str, path: &Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args(["--exact", "started_by_other_tests", "--nocapture", "--test-threads=1"]);
    program.env(ROLE, role).env(FOLDER, path);
    prepare(&mut program);
    let run = command::finish(&mut program);
    println!("{}", run.stdout);
    run.assert_ok().to_owned()
}
