//! Tests under cargo, loom and Miri, and the benches.

use crate::step::Mode;
use crate::tools::{
    Outcome, RELEASE_TEST, Result, build_programs, cargo, cargo_of, cargo_with_cfg, passed, run, target, works,
};

/// The integration tests that `--quick` leaves out, by module: they measure, fill memory or disks,
/// hash whole models, or install packages.
const SLOW: [&str; 9] =
    ["adaptive", "bench", "field_reports", "golden_gguf", "lifecycle", "limits", "probe", "real_model", "simulated"];

pub(super) fn test(mode: Mode) -> Result {
    match mode {
        Mode::Quick => quick_tests(),
        Mode::Full => all_tests(),
    }
}

/// Runs the tests of the libraries, then the fast integration tests, with an unoptimised command.
fn quick_tests() -> Result {
    let test = ["test", "--workspace", "--all-features"];
    run(cargo().args(test).arg("--lib"))?;
    let skips = SLOW.iter().flat_map(|module| ["--skip".to_owned(), format!("{module}::")]);
    let command = build_programs("dev")?.join("floodtide");
    passed(cargo().args(test).args(["--test", "*", "--"]).args(skips).env("FLOODTIDE_BIN", command))
}

/// Runs every test. The integration tests run the command as users do, so it is optimised.
fn all_tests() -> Result {
    let command = build_programs("release")?.join("floodtide");
    passed(cargo().args(["test", "--workspace", "--all-features"]).env("FLOODTIDE_BIN", command))
}

pub(super) fn loom(_: Mode) -> Result {
    run(cargo_with_cfg("loom")?.args(RELEASE_TEST).args(["--test", "loom"]))?;
    passed(cargo_with_cfg("loom")?.args(["test", "--release", "--package", "floodtide", "--lib", "interleavings"]))
}

/// Runs what takes its memory from the allocator under Miri.
pub(super) fn miri(_: Mode) -> Result {
    if !works(cargo_of("nightly").args(["miri", "--version"])) {
        let why = "it needs Miri (rustup component add --toolchain nightly miri rust-src)";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    let mut tests = cargo_of("nightly");
    tests.args(["miri", "test", "--package", "floodtide-memory", "--lib"]);
    // The tests ask for the system's memory and the time.
    tests.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    passed(tests.env("CARGO_TARGET_DIR", target().join("miri")))
}

/// Criterion runs each bench once where it is run as a test.
pub(super) fn bench(_: Mode) -> Result {
    passed(cargo().args(RELEASE_TEST).args(["--bench", "*"]))
}
