//! The steps of `cargo xtask test`. To add one, write its function and its line in [`STEPS`].

use crate::tools::{Outcome, Result, cargo, cargo_of, root, run, target, works};
use crate::{msrv, wasi};
use std::env;
use std::process::Command;

pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn() -> Result,
}

pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "the code is formatted", run: fmt },
    Step { name: "clippy", about: "no lint, warnings denied", run: clippy },
    Step { name: "doc", about: "the documentation builds, warnings denied", run: doc },
    Step { name: "msrv", about: "the declared rust-version is honoured", run: msrv::check },
    Step { name: "no-std", about: "core links without std", run: no_std },
    Step { name: "test", about: "unit, property, integration and end-to-end tests", run: test },
    Step { name: "features", about: "the platform builds and tests without its optional features", run: features },
    Step { name: "loom", about: "every interleaving of the concurrent parts", run: loom },
    Step { name: "sim", about: "seeds of the simulator, every fault, way of recovery and size among them", run: sim },
    Step { name: "planted", about: "the simulator finds the defects that are planted for it", run: planted },
    Step { name: "wasi", about: "the simulator's digests on WASI are those of this machine", run: wasi::check },
    Step { name: "miri", about: "the unsafe of the pool and the arena, by Miri", run: miri },
    Step { name: "bench", about: "every bench runs once", run: bench },
    Step { name: "fuzz", about: "the fuzz targets, for half a minute each", run: fuzz },
];

/// The fuzz targets, and seconds for each.
const FUZZ_TARGETS: [&str; 7] =
    ["safetensors_header", "shard_index", "serverlessllm", "gguf", "manifest", "planner", "engine"];
const FUZZ_SECONDS: u32 = 30;

fn passed(command: &mut Command) -> Result {
    run(command).map(|()| Outcome::Passed)
}

fn fmt() -> Result {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    // Workspaces of their own.
    for alone in ["fuzz", "tests/no-std"] {
        run(cargo().args(["fmt", "--check", "--manifest-path"]).arg(root().join(alone).join("Cargo.toml")))?;
    }
    Ok(Outcome::Passed)
}

fn clippy() -> Result {
    passed(cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))
}

fn doc() -> Result {
    passed(cargo().args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// Builds a library for a program without std, with a panic handler and an allocator of its own: if core or a dependency
/// pulled std in, its own would be defined twice.
fn no_std() -> Result {
    let manifest = root().join("tests/no-std/Cargo.toml");
    let folder = target().join("no-std");
    let build = |extra: &[&str]| {
        run(cargo()
            .args(["build", "--quiet", "--manifest-path"])
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&folder)
            .args(extra))
    };
    build(&[])?;
    let bare = "thumbv7em-none-eabihf";
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(bare)) {
        build(&["--target", bare])?;
    } else {
        println!("{bare} is not installed (rustup target add {bare}), so only the host's target was linked");
    }
    Ok(Outcome::Passed)
}

/// The tests run the command as users do, so it is built first, with optimisation.
fn test() -> Result {
    run(cargo().args(["build", "--release", "--package", "floodtide-cli"]))?;
    let command = target().join("release/floodtide");
    passed(cargo().args(["test", "--workspace", "--all-features"]).env("FLOODTIDE_BIN", command))
}

fn features() -> Result {
    passed(cargo().args(["test", "--quiet", "--package", "floodtide-linux", "--no-default-features"]))
}

fn loom() -> Result {
    let arguments = ["test", "--release", "--package", "floodtide-tests", "--test", "loom"];
    let flags = format!("{} --cfg loom", env::var("RUSTFLAGS").unwrap_or_default());
    passed(cargo().args(arguments).env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target().join("loom")))
}

/// Seeds for the simulator in each run.
const SIM_SEEDS: &str = "0..50000";

fn sim() -> Result {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    passed(cargo().args(["run", "--release", "--quiet", "--package", "floodtide-sim", "--"]).args([
        "--seeds",
        SIM_SEEDS,
        "--require-coverage",
        "--jobs",
        &threads,
    ]))?;
    // The same, verified: wrong bytes are found, and only they.
    passed(cargo().args(["run", "--release", "--quiet", "--package", "floodtide-sim", "--"]).args([
        "--seeds",
        "0..10000",
        "--verify",
        "--require-coverage",
        "--jobs",
        &threads,
    ]))?;
    // Each seed twice: the same history, or something in it depends on more than the seed.
    passed(cargo().args(["run", "--release", "--quiet", "--package", "floodtide-sim", "--"]).args([
        "--seeds",
        "0..2000",
        "--double-check",
        "--jobs",
        &threads,
    ]))
}

fn planted() -> Result {
    let flags = format!("{} --cfg floodtide_planted", env::var("RUSTFLAGS").unwrap_or_default());
    passed(
        cargo()
            .args(["test", "--release", "--package", "floodtide-tests", "--test", "planted"])
            .env("RUSTFLAGS", flags.trim())
            .env("CARGO_TARGET_DIR", target().join("planted")),
    )
}

/// The parts that are written so that they can run under Miri: their memory comes from the allocator there.
fn miri() -> Result {
    if !works(cargo_of("nightly").args(["miri", "--version"])) {
        let why = "it needs a nightly toolchain with Miri (rustup component add --toolchain nightly miri rust-src)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    passed(
        cargo_of("nightly")
            .args([
                "miri",
                "test",
                "--package",
                "floodtide-linux",
                "--lib",
                "--",
                "pool",
                "arena",
                "region",
                "pieces",
                "shelf",
            ])
            .env("CARGO_TARGET_DIR", target().join("miri"))
            // The tests look at the system's memory and clock.
            .env("MIRIFLAGS", "-Zmiri-disable-isolation"),
    )
}

fn bench() -> Result {
    passed(cargo().args(["bench", "--package", "floodtide-benches", "--", "--test"]))
}

fn fuzz() -> Result {
    if !works(cargo_of("nightly").args(["fuzz", "--version"])) {
        let why =
            "it needs a nightly toolchain and cargo-fuzz (rustup toolchain install nightly; cargo install cargo-fuzz)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    run(cargo_of("nightly").args(["fuzz", "build"]).args(NO_SANITIZER))?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    for targets in FUZZ_TARGETS.chunks(at_once) {
        println!("{}", targets.join(", "));
        std::thread::scope(|scope| {
            let running: Vec<_> = targets.iter().map(|name| scope.spawn(|| fuzz_target(name))).collect();
            let ended = running.into_iter().map(|thread| thread.join().unwrap_or(Err("it panicked".to_owned())));
            // All of them, before the first error counts.
            ended.collect::<Vec<_>>().into_iter().collect::<std::result::Result<(), String>>()
        })?;
    }
    Ok(Outcome::Passed)
}

/// The sanitizer is off: the fuzzed crates forbid unsafe code, and its runtime costs most of the speed.
const NO_SANITIZER: [&str; 2] = ["--sanitizer", "none"];

fn fuzz_target(name: &str) -> std::result::Result<(), String> {
    // New inputs go to a folder of their own; the committed corpus is only read.
    let found = target().join("fuzz-found").join(name);
    std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let seeds = root().join("fuzz/corpus").join(name);
    let limits = [format!("-max_total_time={FUZZ_SECONDS}"), "-max_len=4096".to_owned(), "-verbosity=0".to_owned()];
    let mut command = cargo_of("nightly");
    command.args(["fuzz", "run"]).args(NO_SANITIZER).arg(name).arg(&found).arg(&seeds).arg("--").args(limits);
    run(&mut command)
}
