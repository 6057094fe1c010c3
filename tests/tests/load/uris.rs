//! URIs wherever a path is taken: of local files, of a storage with a scheme of its own, and of
//! none.

use floodtide::convert::{Converter, OutputError};
use floodtide::format::SAFETENSORS;
use floodtide::storage::{MemoryStorage, StorageError};
use floodtide::{Error, Loader};
use floodtide_tests::checkpoint::{folder, small};
use floodtide_tests::command;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is called with the path of a checkpoint, by name; each gives the number of its tensors.
type Call = (&'static str, fn(&Loader, &Path) -> Result<usize, Error>);

const CALLS: [Call; 11] = [
    ("load", |loader, path| Ok(loader.load(path)?.len())),
    ("start", |loader, path| Ok(loader.start(path)?.wait()?.len())),
    ("map", |loader, path| Ok(loader.map(path)?.len())),
    ("stream", |loader, path| loader.stream(path)?.try_fold(0, |count, tensor| tensor.map(|_| count + 1))),
    ("load_files", |loader, path| Ok(loader.load_files([path])?.len())),
    ("plan", |loader, path| Ok(loader.plan(path)?.plan.placements().len())),
    ("inspect", |loader, path| Ok(loader.inspect(path)?.catalog.len())),
    ("check_structure", |loader, path| {
        loader.check_structure(path).map(|found| found.catalog.len()).map_err(|mut errors| errors.remove(0))
    }),
    ("manifest", |loader, path| {
        let manifest = loader.manifest(path)?;
        assert!(loader.verify(path, &manifest)?.mismatches.is_empty());
        Ok(manifest.tensors().len())
    }),
    ("diff", |loader, path| Ok(loader.diff(path, path)?.same)),
    ("convert", |loader, path| {
        let out = folder();
        Ok(Converter::new(loader.clone(), SAFETENSORS).convert(path, out.path().join("out"))?.tensors)
    }),
];

/// A URI of a path, its special characters escaped.
fn uri(path: &Path) -> String {
    let escaped = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    format!("file://{}", path.as_os_str().as_bytes().iter().map(escaped).collect::<String>())
}

/// A file whose name is not Unicode, in a folder of a name with a space, an accent and a percent
/// sign.
fn odd(folder: &Path) -> PathBuf {
    let inner = folder.join("a b%41é");
    fs::create_dir(&inner).expect("makes");
    let path = inner.join(OsStr::from_bytes(b"m\xfe.safetensors"));
    small(&path);
    path
}

#[test]
fn local_files_are_found_by_path_and_by_uri() {
    let folder = folder();
    let path = odd(folder.path());
    let inner = path.parent().expect("a folder");
    let plain = folder.path().join("plain.safetensors");
    small(&plain);
    let at_localhost = uri(inner).replacen("file://", "file://localhost", 1);
    for (name, call) in CALLS {
        for given in
            [path.clone(), inner.to_owned(), uri(&plain).into(), uri(inner).into(), at_localhost.clone().into()]
        {
            // A manifest cannot hold a name that is not Unicode.
            let found = call(&Loader::new(), &given);
            let unlistable = name == "manifest" && given != Path::new(&uri(&plain));
            let is_folder = name == "load_files" && given != path && given != Path::new(&uri(&plain));
            assert!(
                matches!(&found, Ok(5))
                    || unlistable && matches!(&found, Err(Error::UnlistableName { .. }))
                    || is_folder && matches!(&found, Err(Error::Storage(StorageError::IsFolder { .. }))),
                "{name} of {}: {found:?}",
                given.display()
            );
        }
    }
}

#[test]
fn what_is_no_uri_of_a_local_file_is_refused() {
    for uri in ["file://elsewhere/model", "file:///model%4", "file:///model%zz", "file:///model%00", "file://model"] {
        for (name, call) in CALLS {
            let error = call(&Loader::new(), Path::new(uri)).expect_err(name);
            assert!(matches!(error, Error::InvalidUri { .. }), "{name} of {uri}: {error}");
        }
    }
}

#[test]
fn a_storage_has_a_scheme_and_others_are_unknown() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let memory = MemoryStorage::new();
    // What is escaped in other URIs is a part of the name here.
    memory.insert("org/a b%20c/model.safetensors", fs::read(&path).expect("reads"));
    let loader = Loader::new().storage("hub", memory);
    for (name, call) in CALLS {
        for given in ["hub://org/a b%20c/model.safetensors", "hub://org/a b%20c", "hub:///org/a b%20c/"] {
            let is_folder = name == "load_files" && !given.ends_with("safetensors");
            let found = call(&loader, Path::new(given));
            assert!(matches!(found, Ok(5)) || is_folder && found.is_err(), "{name} of {given}: {found:?}");
        }
        let error = call(&loader, Path::new("hub://org/none")).expect_err(name).to_string();
        assert!(error.contains("org/none") && error.contains("no such file"), "{name}: {error}");
        let error = call(&loader, Path::new("s3://bucket/model")).expect_err(name);
        assert!(matches!(&error, Error::UnknownScheme { known, .. } if known == "file://, hub://"), "{name}: {error}");
    }
}

#[test]
fn a_conversion_writes_to_local_files_only() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    small(&path);
    let loader = Loader::new().storage("mem", MemoryStorage::new());
    let convert = |to: &str| Converter::new(loader.clone(), SAFETENSORS).force(true).convert(&path, to);
    let error = convert("mem://out").expect_err("not local");
    assert!(matches!(error, Error::Output(OutputError::NotLocal { .. })), "{error}");
    assert!(matches!(convert("s3://bucket/out"), Err(Error::UnknownScheme { .. })));
    let out = folder.path().join("the output");
    convert(&uri(&out)).expect("converts");
    assert!(out.join("model.safetensors").is_file());
    // The source stays, whatever it is called.
    let again = Converter::new(loader.clone(), SAFETENSORS).force(true).convert(uri(&out), &out);
    assert!(matches!(again, Err(Error::Output(OutputError::IsSource { .. }))), "{again:?}");
}

#[test]
fn the_command_takes_uris() {
    let folder = folder();
    let path = odd(folder.path());
    let inner = uri(path.parent().expect("a folder"));
    for verb in ["load", "plan", "inspect", "digest", "verify", "doctor"] {
        command::run([verb, &inner]).assert_ok();
    }
    command::run(["diff", &inner, &inner]).assert_ok();
    let out = folder.path().join("out");
    command::run(["convert", &inner, out.to_str().expect("Unicode"), "--to", "safetensors"]).assert_ok();
}

#[test]
fn a_uri_that_cannot_be_resolved_is_an_error_of_the_command_line() {
    let unknown = ("s3://bucket/model", "file://");
    let malformed = ("file://elsewhere/model", "file:///ABSOLUTE/PATH");
    for (uri, expected) in [unknown, malformed] {
        let to = ["out", "--to", "safetensors"];
        for verb in ["load", "plan", "inspect", "digest", "verify", "manifest", "doctor", "probe", "bench"] {
            command::run([verb, uri]).assert_error(2, &[uri, expected]);
        }
        command::run(["verify", "--json", uri]).assert_error(2, &[uri, expected]);
        command::run(["diff", uri, uri]).assert_error(2, &[uri, expected]);
        command::run(["convert", uri].into_iter().chain(to)).assert_error(2, &[uri, expected]);
    }
}
