//! The structure of the workspace: which crates, and which top modules of each, use which.
//!
//! Dependencies point one way: [`check`] fails on a cycle and on a dependency against the order of
//! the crates. Modules below the top may use each other if the documentation of the module that
//! holds them says so: "`a` and `b` use each other".

mod graph;
mod source;

use crate::tools::{Outcome, Result, root};
use graph::Graph;
use source::Folder;
use std::fs;
use std::path::Path;

/// Each crate depends at most on those before it.
const LAYERS: [&str; 5] = ["floodtide-core", "floodtide-memory", "floodtide-linux", "floodtide", "floodtide-cli"];
/// The folders of the crates whose top modules `ARCHITECTURE.md` lists.
const LIBRARIES: [&str; 5] = ["core", "memory", "platform-linux", "platform-sim", "floodtide"];
/// Depends on core alone, and only crates outside the layers depend on it.
const SIMULATOR: &str = "floodtide-sim";

/// Prints the graph of the crates and those of their modules.
pub(crate) fn print() -> std::result::Result<(), String> {
    let (crates, modules) = read()?;
    print!("crates\n{crates}");
    for (name, folder) in modules.iter().filter(|(_, folder)| folder.path.is_empty()) {
        print!("\n{name}\n{}", folder.graph);
    }
    Ok(())
}

/// Fails on a cycle, on a dependency against the order of the crates, and on a top module of a
/// library that `ARCHITECTURE.md` does not list.
pub(crate) fn check() -> Result {
    let (crates, modules) = read()?;
    let mut wrong = against_order(&crates);
    let in_a_cycle = |place: &str, cycle: &[&str]| format!("{place}: {} use each other in a cycle", cycle.join(", "));
    wrong.extend(crates.cycles().iter().map(|cycle| in_a_cycle("the workspace", cycle)));
    for (name, folder) in &modules {
        let place = [std::slice::from_ref(name), &folder.path].concat().join("/");
        let cycles = folder.graph.cycles();
        wrong.extend(cycles.iter().filter(|cycle| !is_named(cycle, folder)).map(|cycle| in_a_cycle(&place, cycle)));
    }
    let page =
        fs::read_to_string(root().join("ARCHITECTURE.md")).map_err(|error| format!("ARCHITECTURE.md: {error}"))?;
    let libraries =
        modules.iter().filter(|(name, folder)| folder.path.is_empty() && LIBRARIES.contains(&name.as_str()));
    let listed = |module: &str| page.contains(&format!("`{module}`"));
    for (name, folder) in libraries {
        let missing = folder.graph.0.keys().filter(|module| !listed(module));
        wrong.extend(missing.map(|module| format!("ARCHITECTURE.md does not list `{module}` of {name}")));
    }
    if wrong.is_empty() { Ok(Outcome::Passed) } else { Err(wrong.join("; ")) }
}

/// Returns true if a cycle lies below the top, and the documentation there names it.
fn is_named(cycle: &[&str], folder: &Folder) -> bool {
    let names = |module: &&str| folder.docs.contains(&format!("`{module}`"));
    !folder.path.is_empty() && folder.docs.contains("use each other") && cycle.iter().all(names)
}

/// Returns the graph of the crates, and the modules of each with the crate's folder.
fn read() -> std::result::Result<(Graph, Vec<(String, Folder)>), String> {
    let root = root();
    let manifest = |folder: &str| {
        let path = root.join(folder).join("Cargo.toml");
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let workspace = manifest("")?;
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).unwrap_or_default();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    let mut crates = Graph::default();
    let mut modules = Vec::new();
    for folder in members {
        let (name, dependencies) = dependencies(&manifest(folder)?);
        crates.0.insert(name, dependencies.into_iter().collect());
        let folders = source::folders(&root.join(folder).join("src"), &|path: &Path| fs::read_to_string(path).ok());
        modules.extend(folders.into_iter().map(|inner| (folder.to_owned(), inner)));
    }
    let names: Vec<String> = crates.0.keys().cloned().collect();
    crates.0.values_mut().for_each(|used| used.retain(|name| names.contains(name)));
    Ok((crates, modules))
}

/// Returns a crate's name and what it depends on, outside its tests, from its manifest.
fn dependencies(manifest: &str) -> (String, Vec<String>) {
    let (mut name, mut section, mut dependencies) = (String::new(), "", Vec::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.split('.').next().unwrap_or(key).trim();
            if section == "[package" && key == "name" {
                name = value.trim().trim_matches('"').to_owned();
            } else if section == "[dependencies" || section.ends_with(".dependencies") {
                dependencies.push(key.to_owned());
            }
        }
    }
    (name, dependencies)
}

/// Returns what is wrong with the order of the crates.
fn against_order(crates: &Graph) -> Vec<String> {
    let edges = crates.0.iter().flat_map(|(name, used)| used.iter().map(move |used| (name.as_str(), used.as_str())));
    let layer = |name: &str| LAYERS.iter().position(|&layer| layer == name);
    let wrong = edges.filter(|&(name, used)| match (layer(name), layer(used)) {
        (Some(above), Some(below)) => below >= above,
        (Some(_), None) => true,
        (None, _) => name == SIMULATOR && used != LAYERS[0],
    });
    wrong.map(|(name, used)| format!("{name} must not depend on {used}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_and_those_of_tests_are_not() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nb.workspace = true\nc = { path = \"c\" }\n\
                        [target.'cfg(unix)'.dependencies]\nd = \"1\"\n[dev-dependencies]\ne = \"1\"\n";
        assert_eq!(dependencies(manifest), ("a".to_owned(), ["b", "c", "d"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_cycle_must_be_named_and_below_the_top() {
        let folder = |path: &[&str], docs: &str| Folder {
            path: path.iter().map(|&name| name.to_owned()).collect(),
            docs: docs.to_owned(),
            graph: Graph::default(),
        };
        let docs = "`a` and [`b`] use each other.";
        assert!(is_named(&["a", "b"], &folder(&["plan"], docs)));
        assert!(!is_named(&["a", "c"], &folder(&["plan"], docs)));
        assert!(!is_named(&["a", "b"], &folder(&["plan"], "`a`, then `b`.")));
        assert!(!is_named(&["a", "b"], &folder(&[], docs)));
    }

    #[test]
    fn a_dependency_against_the_order_is_reported() {
        let crates = |edges: &[(&str, &str)]| {
            Graph(edges.iter().map(|&(name, used)| (name.to_owned(), [used.to_owned()].into())).collect())
        };
        let right = [("floodtide", "floodtide-core"), ("floodtide-sim", "floodtide-core"), ("tests", "floodtide-sim")];
        assert_eq!(against_order(&crates(&right)), [""; 0]);
        for wrong in
            [("floodtide-memory", "floodtide-linux"), ("floodtide", "floodtide-sim"), ("floodtide-sim", "floodtide")]
        {
            assert_eq!(against_order(&crates(&[wrong])).len(), 1, "{wrong:?}");
        }
    }
}
