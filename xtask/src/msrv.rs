//! The declared rust-version: what we depend on must not ask for more, and the toolchain itself must build us where it is
//! installed. (Which std APIs we use is clippy's business: `incompatible_msrv` is denied.)

use crate::tools::{Outcome, cargo, cargo_of, run, target, works};
use serde_json::Value;
use std::collections::BTreeSet;

/// What users link or install; the other crates are ours to build.
const SHIPPED: [&str; 4] = ["floodtide-core", "floodtide-linux", "floodtide-sim", "floodtide-cli"];

pub(crate) fn check() -> Result<Outcome, String> {
    let output = cargo().args(["metadata", "--format-version", "1", "--locked", "--all-features"]).output();
    let output = output.map_err(|error| format!("cargo metadata cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let declared = packages
        .iter()
        .find(|package| package["name"] == SHIPPED[0])
        .and_then(|package| package["rust_version"].as_str())
        .ok_or("the workspace declares no rust-version")?;
    let linked = linked(&metadata)?;
    let mut offenders = Vec::new();
    for package in packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| linked.contains(id))) {
        if let Some(wanted) = package["rust_version"].as_str().filter(|wanted| version(wanted) > version(declared)) {
            offenders.push(format!("{} {} needs {wanted}", package["name"], package["version"]));
        }
    }
    if !offenders.is_empty() {
        return Err(format!("rust-version is {declared}, but {}", offenders.join(", ")));
    }
    println!("{} linked packages need at most Rust {declared}", linked.len());
    if works(cargo_of(declared).arg("--version")) {
        let folder = target().join("msrv");
        run(cargo_of(declared).args(["check", "--workspace", "--all-features", "--target-dir"]).arg(folder))?;
    } else {
        println!("toolchain {declared} is not installed, so nothing was built with it");
    }
    Ok(Outcome::Passed)
}

/// The packages that get into what we ship: normal dependencies on Linux, from ours on.
fn linked(metadata: &Value) -> Result<BTreeSet<&str>, String> {
    let nodes = metadata["resolve"]["nodes"].as_array().ok_or("cargo metadata resolves nothing")?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let ours = packages.iter().filter(|package| SHIPPED.iter().any(|name| package["name"] == *name));
    let mut open: Vec<&str> = ours.filter_map(|package| package["id"].as_str()).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !linked.insert(id) {
            continue;
        }
        let node = nodes.iter().find(|node| node["id"] == id).ok_or_else(|| format!("{id} is not resolved"))?;
        for dependency in node["deps"].as_array().into_iter().flatten() {
            let kinds = dependency["dep_kinds"].as_array();
            // Foreign targets name an operating system that is not ours.
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
