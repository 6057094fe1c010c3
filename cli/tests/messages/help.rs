//! The help of every command.

use crate::assert_reviewed;
use std::fmt::Write;
use std::process::Command;

fn help(arguments: &[&str]) -> String {
    // The help is wrapped to the terminal. Without one it is as wide as allowed.
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodtide"));
    let output = command.args(arguments).env_remove("COLUMNS").output().expect("the command starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the command writes UTF-8")
}

#[test]
fn every_help_text_is_reviewed() {
    let overview = help(&["--help"]);
    let (_, commands) = overview.split_once("Commands:\n").expect("lists the commands");
    // A name is indented by two, and the further lines of a summary by more.
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|name| !name.starts_with(' '))?;
        name.split(' ').next()
    });
    let mut text = format!("$ floodtide --help\n{overview}");
    for name in names.filter(|name| *name != "help") {
        let _ = write!(text, "\n$ floodtide {name} --help\n{}", help(&[name, "--help"]));
    }
    assert!(text.contains("$ floodtide doctor --help"), "the last command is missing: {text}");
    assert_reviewed("help", &text);
}
