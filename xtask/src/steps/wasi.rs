//! The simulator built for `wasm32-wasip1` and run under Node.js: its digests must equal the native
//! ones.

use crate::step::Mode;
use crate::tools::{Outcome, Result, build_programs, cargo, has_target, run, target, works};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-wasip1";
const SEEDS: &str = "0..3000";

/// Runs a WASI program with the arguments that follow it.
const RUNNER: &str = r#"
const { WASI } = require("node:wasi");
const { readFileSync } = require("node:fs");
const [program, ...args] = process.argv.slice(1);
const wasi = new WASI({ version: "preview1", args: ["floodtide-sim", ...args], returnOnExit: true });
WebAssembly.compile(readFileSync(program))
  .then((module) => WebAssembly.instantiate(module, wasi.getImportObject()))
  .then((instance) => { process.exitCode = wasi.start(instance); })
  .catch((error) => { console.error(error); process.exitCode = 1; });
"#;

pub(super) fn check(_: Mode) -> Result {
    if !works(Command::new("node").arg("--version")) {
        return Ok(Outcome::Skipped("it needs Node.js, which runs WASI programs".to_owned()));
    }
    if !has_target(TARGET) {
        return Ok(Outcome::Skipped(format!("it needs the target {TARGET} (rustup target add {TARGET})")));
    }
    run(cargo().args(["build", "--release", "--package", "floodtide-sim", "--target", TARGET]))?;
    let native = build_programs("release")?.join("floodtide-sim");
    let wasm = target().join(TARGET).join("release/floodtide-sim.wasm");
    for arguments in [&["--seeds", SEEDS, "--digest"][..], &["--seeds", SEEDS, "--digest", "--verify"]] {
        let there = digest(Command::new("node").args(["--no-warnings", "-e", RUNNER]).arg(&wasm).args(arguments))?;
        let here = digest(Command::new(&native).args(arguments))?;
        let seeds = arguments.join(" ");
        if there != here {
            return Err(format!("{seeds} has the digest {there} on WASI, {here} on this machine"));
        }
        println!("{seeds} has the digest {here} on both");
    }
    Ok(Outcome::Passed)
}

fn digest(command: &mut Command) -> std::result::Result<String, String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
