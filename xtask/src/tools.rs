//! How the steps run other programs.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// How a step ends when it does not fail.
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
}

pub(crate) type Result = std::result::Result<Outcome, String>;

/// Returns the folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Returns the folder that builds go to.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// Returns the cargo that runs xtask, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Returns the cargo of another toolchain, through rustup's proxy.
pub(crate) fn cargo_of(toolchain: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{toolchain}")).current_dir(root()).stdin(Stdio::null());
    // These name the toolchain that runs xtask.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}

/// Returns a cargo that compiles the workspace's crates with `--cfg`.
///
/// A flag in `RUSTFLAGS` would reach the dependencies too and build all of them again.
pub(crate) fn cargo_with_cfg(cfg: &str) -> std::result::Result<Command, String> {
    // Cargo tells builds apart by the path of the wrapper, so each flag has its own.
    let wrapper = target().join("xtask").join(format!("rustc-{cfg}"));
    let write = |wrapper: &Path| {
        fs::create_dir_all(target().join("xtask"))?;
        fs::write(wrapper, format!("#!/bin/sh\nexec \"$@\" --cfg {cfg}\n"))?;
        fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755))
    };
    write(&wrapper).map_err(|error| format!("{}: {error}", wrapper.display()))?;
    let mut command = cargo();
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    Ok(command)
}

/// `cargo test` with optimisation. Every optimised build selects the whole workspace: cargo unites
/// the features of the packages that it builds together, and would otherwise build the same crates
/// once per selection.
pub(crate) const RELEASE_TEST: [&str; 4] = ["test", "--release", "--workspace", "--all-features"];

/// Builds the command and the simulator. Returns the folder that holds them.
pub(crate) fn build_programs(profile: &str) -> std::result::Result<PathBuf, String> {
    let programs = ["--bin", "floodtide", "--bin", "floodtide-sim"];
    run(cargo().args(["build", "--workspace", "--all-features", "--profile", profile]).args(programs))?;
    Ok(target().join(if profile == "dev" { "debug" } else { profile }))
}

/// Returns what `cargo metadata` prints.
pub(crate) fn metadata(flags: &[&str]) -> std::result::Result<Value, String> {
    let output = cargo().args(["metadata", "--format-version", "1", "--locked"]).args(flags).output();
    let output = output.map_err(|error| format!("cargo metadata cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Reports whether the standard library is installed for a target.
pub(crate) fn has_target(triple: &str) -> bool {
    let output = Command::new("rustup").args(["target", "list", "--installed"]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == triple))
}

pub(crate) fn run(command: &mut Command) -> std::result::Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?} cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

/// Runs a command that is a whole step.
pub(crate) fn passed(command: &mut Command) -> Result {
    run(command).map(|()| Outcome::Passed)
}

/// Reports whether a command can be started and succeeds; hides its output.
pub(crate) fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
