//! Builds that the tests do not cover: core without std, floodtide with other features.

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo, has_target, metadata, run, target};

const BARE_METAL: &str = "thumbv7em-none-eabihf";

/// Builds a static library without std that has its own panic handler and allocator. If core or a
/// dependency pulled std in, both would be defined twice.
pub(super) fn no_std(_: Mode) -> Result {
    let build = |extra: &[&str]| {
        let manifest = ["build", "--quiet", "--manifest-path", "tests/no-std/Cargo.toml", "--target-dir"];
        run(cargo().args(manifest).arg(target()).args(extra))
    };
    build(&[])?;
    if has_target(BARE_METAL) {
        build(&["--target", BARE_METAL])?;
    } else {
        println!("{BARE_METAL} is not installed (rustup target add {BARE_METAL}), so core links for the host only");
    }
    Ok(Outcome::Passed)
}

/// Lints floodtide without features and with each feature alone, and runs its tests without any.
/// The other steps turn all features on.
pub(super) fn features(_: Mode) -> Result {
    let package = ["--package", "floodtide", "--no-default-features"];
    for feature in features_of("floodtide")? {
        println!("floodtide with {feature} alone");
        let features = ["--features", &feature, "--all-targets", "--", "-D", "warnings"];
        run(cargo().arg("clippy").args(package).args(features))?;
    }
    println!("floodtide without features");
    run(cargo().arg("clippy").args(package).args(["--all-targets", "--", "-D", "warnings"]))?;
    run(cargo().args(["test", "--quiet"]).args(package))?;
    Ok(Outcome::Passed)
}

/// The names of a package's features.
fn features_of(name: &str) -> std::result::Result<Vec<String>, String> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.into_iter().find(|package| package["name"] == name);
    let features = package.and_then(|package| package["features"].as_object());
    let features = features.ok_or_else(|| format!("the workspace has no package {name}"))?;
    Ok(features.keys().filter(|feature| *feature != "default").cloned().collect())
}
