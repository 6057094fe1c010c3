//! The enums of errors and warnings that the sources declare, so that no message is left out.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Write};
use std::path::Path;

/// An error that never reaches a user and has no message.
const INTERNAL: &str = "TakeError";

/// The messages by enum, and the enums that they were made of.
pub(crate) struct Messages {
    text: String,
    /// Every enum of errors or warnings of the libraries with its variants, as the sources declare them.
    declared: Vec<(String, BTreeSet<String>)>,
    shown: BTreeSet<String>,
}

impl Messages {
    pub(crate) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut declared = Vec::new();
        for library in ["core", "memory", "platform-linux", "floodtide"] {
            collect_enums(library, &root.join(library).join("src"), &mut declared);
        }
        Self { text: String::new(), declared, shown: BTreeSet::new() }
    }

    /// Adds the messages of all variants of an enum, and fails if one is missing.
    pub(crate) fn add<E: Debug + Display>(&mut self, name: &str, errors: impl IntoIterator<Item = E>) {
        let _ = writeln!(self.text, "\n## {name}\n");
        let mut variants = BTreeSet::new();
        for error in errors {
            let debug = format!("{error:?}");
            let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
            let _ = writeln!(self.text, "{variant}\n    {error}");
            variants.insert(variant);
        }
        let declared = self.declared.iter().find(|(declared, _)| declared == name);
        let (_, declared) = declared.unwrap_or_else(|| panic!("no enum is named {name}"));
        assert_eq!(&variants, declared, "the messages of {name} are not complete");
        self.shown.insert(name.to_owned());
    }

    pub(crate) fn finish(self) -> String {
        let declared: BTreeSet<String> = self.declared.into_iter().map(|(name, _)| name).collect();
        assert_eq!(self.shown, declared, "an enum of errors or warnings is not in the snapshot");
        self.text
    }
}

/// Collects the public enums of errors and warnings below a folder, with the names of their variants.
fn collect_enums(library: &str, folder: &Path, enums: &mut Vec<(String, BTreeSet<String>)>) {
    for entry in std::fs::read_dir(folder).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            collect_enums(library, &path, enums);
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("reads");
        for declaration in source.split("\npub enum ").skip(1) {
            let (head, body) = declaration.split_once(" {\n").expect("a body");
            let name = head.split('<').next().unwrap_or(head);
            let has_messages = name.ends_with("Error") || ["Fault", "Mismatch", "Warning"].contains(&name);
            if !has_messages || name == INTERNAL {
                continue;
            }
            let body = body.split("\n}").next().unwrap_or_default();
            // A variant is indented once and starts with a capital.
            let variants = body.lines().filter_map(|line| {
                let line =
                    line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))?;
                Some(line.split(|c: char| !c.is_alphanumeric()).next()?.to_owned())
            });
            enums.push((format!("{library} {name}"), variants.collect()));
        }
    }
}
