//! The declared rust-version: no linked dependency may need more, and that toolchain must build the
//! published crates where it is installed. Clippy checks which parts of std they use
//! (`incompatible_msrv`).

use crate::step::Mode;
use crate::tools::{Outcome, Result, cargo_of, metadata, run, target, works};
use serde_json::Value;
use std::collections::BTreeSet;

/// What users link or install.
const PUBLISHED: [&str; 5] = ["floodtide", "floodtide-core", "floodtide-memory", "floodtide-linux", "floodtide-cli"];

pub(super) fn check(_: Mode) -> Result {
    let metadata = metadata(&["--all-features"])?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let declared = packages
        .iter()
        .find(|package| package["name"] == PUBLISHED[0])
        .and_then(|package| package["rust_version"].as_str())
        .ok_or("the workspace declares no rust-version")?;
    let linked = linked(&metadata)?;
    let mut offenders = Vec::new();
    for package in packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| linked.contains(id))) {
        if let Some(needed) = package["rust_version"].as_str().filter(|needed| version(needed) > version(declared)) {
            offenders.push(format!("{} {} needs {needed}", package["name"], package["version"]));
        }
    }
    if !offenders.is_empty() {
        return Err(format!("rust-version is {declared}, but {}", offenders.join(", ")));
    }
    println!("{} linked packages need at most Rust {declared}", linked.len());
    if works(cargo_of(declared).arg("--version")) {
        let mut check = cargo_of(declared);
        check.args(["check", "--all-features", "--target-dir"]).arg(target().join("msrv"));
        run(check.args(PUBLISHED.iter().flat_map(|name| ["--package", name])))?;
    } else {
        println!(
            "Rust {declared} is not installed (rustup toolchain install {declared}), so nothing was built with it"
        );
    }
    Ok(Outcome::Passed)
}

/// Returns the packages that the published crates link on Linux.
fn linked(metadata: &Value) -> std::result::Result<BTreeSet<&str>, String> {
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("cargo metadata resolves nothing")?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let published = packages.iter().filter(|package| PUBLISHED.iter().any(|name| package["name"] == *name));
    let mut open: Vec<&str> = published.filter_map(|package| package["id"].as_str()).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !linked.insert(id) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == id).ok_or_else(|| format!("{id} is not resolved"))?;
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array();
            let foreign = |kind: &Value| {
                kind["target"]
                    .as_str()
                    .is_some_and(|t| ["windows", "wasi", "macos", "loom", "wasm"].iter().any(|os| t.contains(os)))
            };
            let normal = kinds.into_iter().flatten().any(|kind| kind["kind"].is_null() && !foreign(kind));
            open.extend(dependency["pkg"].as_str().filter(|_| normal));
        }
    }
    Ok(linked)
}

fn version(text: &str) -> Vec<u64> {
    let mut parts: Vec<u64> = text.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    parts.resize(3, 0);
    parts
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.9") < version("1.88"));
        assert!(version("1.88.0") == version("1.88"));
        assert!(version("1.88.1") > version("1.88"));
    }
}
