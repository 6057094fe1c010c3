//! Reads which modules of a crate use which, from its sources.
//!
//! Comments, literals and what is compiled for tests or documentation alone are no uses.

use super::graph::Graph;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Returns the contents of a file; `None` when there is no such file.
pub(super) type Read<'r> = &'r dyn Fn(&Path) -> Option<String>;

/// The modules inside a module or a crate.
#[derive(Debug)]
pub(super) struct Folder {
    /// The path of the module, empty for the root.
    pub(super) path: Vec<String>,
    /// The documentation of the module.
    pub(super) docs: String,
    /// Which of the modules inside use which.
    pub(super) graph: Graph,
}

/// Returns the root of a crate and each module that has modules inside. `src` is the folder of the
/// root file.
pub(super) fn folders(src: &Path, read: Read<'_>) -> Vec<Folder> {
    let root = ["lib.rs", "main.rs"].iter().find_map(|name| read(&src.join(name))).unwrap_or_default();
    let mut folders = Vec::new();
    add_folders(&root, src, &[], read, &mut folders);
    folders
}

/// Adds the module at `path` and those inside, if it has any. `inside` is the folder of their
/// files.
fn add_folders(source: &str, inside: &Path, path: &[String], read: Read<'_>, folders: &mut Vec<Folder>) {
    let tokens = compiled(&tokens(source));
    let modules = declared(&tokens);
    if modules.is_empty() {
        return;
    }
    let exports = exports(&tokens, &modules);
    let mut graph = Graph::default();
    for module in &modules {
        let mut names = BTreeSet::new();
        collect(&inside.join(module), path, 1, read, &mut names);
        let used = names.iter().filter_map(|name| modules.get(name).or_else(|| exports.get(name)));
        graph.0.insert(module.clone(), used.filter(|&used| used != module).cloned().collect());
    }
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    folders.push(Folder { path: path.to_vec(), docs, graph });
    for module in modules {
        let file = inside.join(&module);
        let path = [path, &[module]].concat();
        add_folders(&source_of(&file, read), &file, &path, read, folders);
    }
}

/// Returns the source of a module. `module` is its path without `.rs`.
fn source_of(module: &Path, read: Read<'_>) -> String {
    read(&module.with_extension("rs")).or_else(|| read(&module.join("mod.rs"))).unwrap_or_default()
}

/// Adds the names of the module at `path` that a module inside it and those further inside use.
/// `depth` is how many modules below `path` it is.
fn collect(module: &Path, path: &[String], depth: usize, read: Read<'_>, names: &mut BTreeSet<String>) {
    let source = source_of(module, read);
    let tokens = compiled(&tokens(&source));
    names.extend(names_in(path, &tokens, depth).into_iter().map(str::to_owned));
    for inner in declared(&tokens) {
        collect(&module.join(inner), path, depth + 1, read, names);
    }
}

/// Returns the modules that are declared as files.
fn declared(tokens: &[&str]) -> BTreeSet<String> {
    let declarations = tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";");
    declarations.map(|three| three[1].to_owned()).collect()
}

/// Returns the names that a module takes from those inside, each with its module.
fn exports(tokens: &[&str], modules: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for statement in tokens.split(|&token| token == ";") {
        let Some(at) = statement.iter().position(|&token| token == "use") else { continue };
        let mut names = statement[at + 1..].iter().filter(|token| token.starts_with(is_word));
        if let Some(module) = names.find(|&&name| name != "crate").filter(|&&name| modules.contains(name)) {
            exports.extend(names.map(|&name| (name.to_owned(), (*module).to_owned())));
        }
    }
    exports
}

/// Returns the names that follow the path of a module, or as many `super::` as lead to it.
fn names_in<'s>(path: &'s [String], tokens: &[&'s str], depth: usize) -> Vec<&'s str> {
    let mut names = Vec::new();
    let up = ["super", ":", ":"].repeat(depth);
    let down: Vec<&str> =
        ["crate"].into_iter().chain(path.iter().map(String::as_str)).flat_map(|name| [name, ":", ":"]).collect();
    for at in 0..tokens.len() {
        let rest = &tokens[at..];
        let path = match rest.strip_prefix(&down[..]) {
            Some(path) => path,
            None if at > 0 && tokens[at - 1] == ":" => continue,
            None => match rest.strip_prefix(&up[..]) {
                Some(path) => path,
                None => continue,
            },
        };
        if path.first() != Some(&"{") {
            names.extend(path.first());
            continue;
        }
        let mut nested = 0;
        for pair in path.windows(2) {
            nested = if pair[0] == "{" { nested + 1 } else { nested - usize::from(pair[0] == "}") };
            if nested == 0 {
                break;
            }
            if nested == 1 && (pair[0] == "{" || pair[0] == ",") {
                names.push(pair[1]);
            }
        }
    }
    names
}

/// Leaves out what is there for tests or documentation alone: an attribute `cfg` that names one of
/// them, and its item.
fn compiled<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some(token) = rest.first() {
        let end = rest.iter().position(|&token| token == "]").unwrap_or(rest.len());
        let attribute = &rest[..end];
        let names = |(at, token): (usize, &&str)| matches!(*token, "test" | "doc") && attribute[at - 2] != "not";
        let left_out = rest.starts_with(&["#", "[", "cfg", "("])
            && !attribute.contains(&"any")
            && attribute.iter().enumerate().skip(4).any(names);
        if left_out {
            rest = &rest[end..];
            rest = &rest[item_len(rest)..];
        } else {
            kept.push(*token);
            rest = &rest[1..];
        }
    }
    kept
}

/// Returns how many tokens there are up to the end of an item: its semicolon, or the brace that
/// closes it.
fn item_len(tokens: &[&str]) -> usize {
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => open += 1,
            "}" if open <= 1 => return at + 1,
            "}" => open -= 1,
            ";" if open == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Splits a source into words and signs, without comments and literals of text.
fn tokens(source: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| text(rest));
        let len = skipped.unwrap_or_else(|| match rest.find(|character| !is_word(character)) {
            Some(0) => first.len_utf8(),
            Some(len) => len,
            None => rest.len(),
        });
        if skipped.is_none() && !first.is_whitespace() {
            tokens.push(&rest[..len]);
        }
        rest = &rest[len..];
    }
    tokens
}

/// Returns the length of the comment at the start.
fn comment(source: &str) -> Option<usize> {
    if source.starts_with("//") {
        return Some(source.find('\n').unwrap_or(source.len()));
    }
    source.strip_prefix("/*").map(|inner| inner.find("*/").map_or(source.len(), |len| len + 4))
}

/// Returns the length of the string or character at the start.
fn text(source: &str) -> Option<usize> {
    let unprefixed = source.trim_start_matches(['b', 'c']);
    let prefix = source.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if let Some(inner) = raw[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let len = inner.find(&end).map_or(inner.len(), |len| len + end.len());
            return Some(prefix + 1 + hashes + 1 + len);
        }
    }
    let quote = unprefixed.chars().next().filter(|&quote| quote == '"' || quote == '\'')?;
    let inner = &unprefixed[1..];
    if quote == '\'' && !inner.starts_with('\\') {
        // A lifetime has no second quote.
        let character = inner.chars().next()?;
        return inner[character.len_utf8()..].starts_with('\'').then(|| prefix + 2 + character.len_utf8());
    }
    let mut escaped = false;
    let end = inner.find(|character| {
        let ends = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    });
    Some(prefix + 1 + end.map_or(inner.len(), |end| end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(files: &[(&str, &str)]) -> String {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, source)| (*source).to_owned())
        };
        folders(Path::new("src"), &read).iter().map(|folder| folder.graph.to_string()).collect()
    }

    #[test]
    fn paths_groups_and_exported_names_are_edges() {
        let graph = graph_of(&[
            ("src/lib.rs", "mod a;\nmod b;\npub mod c;\npub use b::{Bee, inner::Wasp as Hornet};"),
            ("src/a/mod.rs", "mod inner;\nuse crate::Bee;"),
            ("src/a/inner.rs", "use super::super::c::Sea;"),
            ("src/b.rs", "use crate::{a::{A, Bee}, c};"),
            ("src/c.rs", "fn f() -> crate::Hornet { super::f() }"),
        ]);
        assert_eq!(graph, "a → b, c\nb → a, c\nc → b\ninner\n");
    }

    #[test]
    fn modules_inside_a_module_are_read_as_well() {
        let graph = graph_of(&[
            ("src/lib.rs", "mod a;"),
            ("src/a.rs", "mod b;\nmod c;\nmod d;\npub use d::Dee;"),
            ("src/a/b.rs", "use super::{c::C, Dee};"),
            ("src/a/c.rs", "use crate::a::d;"),
            ("src/a/d.rs", "use crate::b;"),
        ]);
        assert_eq!(graph, "a\nb → c, d\nc → d\nd\n");
    }

    #[test]
    fn comments_texts_and_tests_are_no_edges() {
        let graph = graph_of(&[
            ("src/main.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod tests;"),
            (
                "src/a.rs",
                "// crate::b\n/* crate::b */\n/// [`B`](crate::b)\n#[cfg(doc)]\nuse crate::b;\n\
                 fn f<'a>(a: &'a str) { g(\"\\\" crate::b\", r#\"\" crate::b\"#, '\"', a) }\n\
                 #[cfg(all(test, not(miri)))]\nmod tests { use crate::b; fn f() { {} } }\n#[cfg(test)]\nmod more;",
            ),
            ("src/a/more.rs", "use crate::b;"),
            ("src/b.rs", "#[cfg(not(test))]\nuse crate::a;"),
        ]);
        assert_eq!(graph, "a\nb → a\n");
    }
}
