//! `floodtide manifest`: computes the checksums of a checkpoint in one pass.

use crate::args::ManifestArgs;
use crate::load::watched;
use crate::output::{self, Failure};
use floodtide::core::manifest::ManifestFile;
use floodtide::{Loader, StreamOptions};
use std::borrow::Cow;
use std::io::{self, Write};

pub(crate) fn run(args: &ManifestArgs) -> Result<(), Failure> {
    let mut loader = Loader::new();
    let inspected = loader.inspect(&args.path)?;
    output::warn(&inspected.warnings);
    if let Some(limit) = args.memory_limit {
        loader = loader.stream_options(StreamOptions::new().memory_limit(limit.as_u64()));
    }
    let files = output::count(inspected.catalog.files().len(), "file");
    let mut out = output::stdout();
    if args.sha256sum {
        let what = format!("hashing {files} in parallel: SHA-256");
        let files = watched(loader, what, false, |loader| loader.file_checksums(&args.path))?;
        files.iter().try_for_each(|file| sha256sum(&mut out, file))?;
    } else {
        let what = format!("hashing {files} in parallel: SHA-256 of files, BLAKE3 of tensors");
        let manifest = watched(loader, what, false, |loader| loader.manifest(&args.path))?;
        write!(out, "{manifest}")?;
    }
    Ok(out.flush()?)
}

/// Writes a line in the format of `sha256sum`, which escapes a name with a backslash or a line
/// break and marks it with a leading backslash.
fn sha256sum(out: &mut impl Write, file: &ManifestFile) -> io::Result<()> {
    let special = |c| matches!(c, '\\' | '\n' | '\r');
    let name = if file.name.contains(special) {
        Cow::Owned(file.name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r"))
    } else {
        Cow::Borrowed(&file.name)
    };
    let mark = if matches!(name, Cow::Owned(_)) { "\\" } else { "" };
    writeln!(out, "{mark}{}  {name}", file.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_plain_is_escaped() {
        let line = |name: &str| {
            let mut out = Vec::new();
            let file = ManifestFile { name: name.to_owned(), bytes: 0, sha256: [0; 32].into() };
            sha256sum(&mut out, &file).expect("writes");
            String::from_utf8(out).expect("text")
        };
        let zeros = "0".repeat(64);
        assert_eq!(line("a b"), format!("{zeros}  a b\n"));
        assert_eq!(line("a\\b\nc\rd"), format!("\\{zeros}  a\\\\b\\nc\\rd\n"));
    }
}
