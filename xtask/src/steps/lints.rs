//! Checks that run nothing: format, spelling, dependencies, lints, documentation.

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo, passed, root, run, works};
use std::process::Command;

pub(super) fn fmt(_: Mode) -> Result {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    // Workspaces of their own.
    for folder in ["fuzz", "tests/no-std"] {
        run(cargo().args(["fmt", "--check", "--manifest-path"]).arg(root().join(folder).join("Cargo.toml")))?;
    }
    Ok(Outcome::Passed)
}

pub(super) fn typos(_: Mode) -> Result {
    if !works(Command::new("typos").arg("--version")) {
        return Ok(Outcome::Skipped(
            "it needs typos (pip install typos, or cargo install --locked typos-cli)".to_owned(),
        ));
    }
    passed(Command::new("typos").current_dir(root()))
}

pub(super) fn deny(_: Mode) -> Result {
    if !works(cargo().args(["deny", "--version"])) {
        return Ok(Outcome::Skipped("it needs cargo-deny (cargo install --locked cargo-deny)".to_owned()));
    }
    let mut check = cargo();
    check.args(["deny", "--workspace", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    if works(cargo().args(["deny", "fetch", "db"])) {
        check.arg("advisories");
    } else {
        println!("the advisory database cannot be fetched, so advisories are not checked");
    }
    passed(&mut check)
}

pub(super) fn clippy(_: Mode) -> Result {
    passed(cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))
}

pub(super) fn doc(_: Mode) -> Result {
    passed(cargo().args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings"))
}
